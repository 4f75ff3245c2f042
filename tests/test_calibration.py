from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from anomaly_ov.calibration import SetScores, f1_max_threshold, fit_calibration
from anomaly_ov.errors import DataError
from anomaly_ov.models.config import CalibrationConfig
from anomaly_ov.models.score import fused_scores, logit


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _set(n: int, head: float, maps: float, seed: int, anomalous: float = 0.5) -> SetScores:
    """Scores whose logits are noise plus ``head`` / ``maps`` times the label."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) < anomalous * n).astype(int)
    return SetScores(
        labels, _sigmoid(rng.normal(size=n) + head * labels), _sigmoid(rng.normal(size=n) - 1 + maps * labels)
    )


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=30).filter(
        lambda pairs: len({label for label, _ in pairs}) == 2
    )
)
def test_threshold_reaches_the_best_f1_and_lies_between_scores(pairs: list[tuple[int, int]]) -> None:
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    threshold = f1_max_threshold(scores / 5, labels)
    best = max(f1_score(labels, scores >= t) for t in scores)
    assert f1_score(labels, scores / 5 >= threshold) == pytest.approx(best)
    if 0 < threshold < 1 and threshold > (scores / 5).min():
        assert not np.isclose(scores / 5, threshold).any()


def test_threshold_between_neighbouring_floats_still_separates() -> None:
    low = 0.3
    high = float(np.nextafter(low, 1))
    assert f1_max_threshold([low, high], [0, 1]) == high


def test_weights_of_pictures_move_the_threshold() -> None:
    scores, labels = [0.1, 0.3, 0.5, 0.7], [0, 1, 0, 1]
    assert f1_max_threshold(scores, labels) == pytest.approx(0.2)
    assert f1_max_threshold(scores, labels, [1, 0.1, 10, 1]) == pytest.approx(0.6)


def test_fit_agrees_with_scikit_learn_where_no_bound_is_active() -> None:
    scores = _set(400, 1.5, 1.0, seed=0)
    config = fit_calibration({"a": scores}, l2=1e-9)
    inputs = np.stack([logit(scores.score_raw), logit(scores.score_map)], axis=1)
    oracle = LogisticRegression(C=1e8, tol=1e-10).fit(inputs, scores.labels)
    assert [config.head_weight, config.map_weight] == pytest.approx(oracle.coef_[0].tolist(), rel=1e-3)
    assert config.bias == pytest.approx(float(oracle.intercept_[0]), rel=1e-3)
    expected = oracle.predict_proba(inputs)[:, 1]
    np.testing.assert_allclose(fused_scores(scores.score_raw, scores.score_map, config), expected, atol=1e-4)


def test_a_misleading_score_gets_weight_zero_not_a_negative_one() -> None:
    config = fit_calibration({"a": _set(300, -2.0, 1.5, seed=1)})
    assert config.head_weight == 0
    assert config.map_weight > 0


def test_every_set_and_label_counts_the_same() -> None:
    small, large = _set(40, 0.0, 3.0, seed=2), _set(40, 3.0, 0.0, seed=3)
    tenfold = SetScores(*(np.tile(np.asarray(v), 10) for v in (large.labels, large.score_raw, large.score_map)))
    once, often = fit_calibration({"s": small, "l": large}), fit_calibration({"s": small, "l": tenfold})
    assert (often.head_weight, often.map_weight, often.bias) == pytest.approx(
        (once.head_weight, once.map_weight, once.bias), rel=1e-4
    )
    assert often.threshold == pytest.approx(once.threshold, abs=1e-4)


def test_separable_and_saturated_scores_give_finite_weights() -> None:
    config = fit_calibration({"a": SetScores([0, 0, 1, 1], [0, 0, 1, 1], [0.0, 0.1, 0.9, 1.0])})
    assert 0 < config.head_weight < 10
    fused = fused_scores([0, 1], [0, 1], config)
    assert fused[0] < config.threshold <= fused[1]
    assert np.isfinite(fused).all()


def test_constant_score_is_ignored() -> None:
    config = fit_calibration({"a": SetScores([0, 0, 1, 1], [0.5] * 4, [0.1, 0.4, 0.3, 0.9])})
    assert config.head_weight == 0
    assert config.map_weight > 0


def test_sets_of_one_label_are_allowed_but_not_all_of_them() -> None:
    normal_only = SetScores([0, 0], [0.2, 0.3], [0.2, 0.3])
    config = fit_calibration({"n": normal_only, "both": _set(50, 1, 1, 4)}, map_top=0.02, map_threshold=0.6)
    assert "of n, both (n = 52" in config.threshold_source
    assert (config.map_top, config.map_threshold) == (0.02, 0.6)
    with pytest.raises(DataError, match="both labels"):
        fit_calibration({"n": normal_only})
    with pytest.raises(DataError, match="no scores"):
        fit_calibration({})


def test_broken_scores_are_an_error() -> None:
    with pytest.raises(DataError, match="not finite"):
        fit_calibration({"a": SetScores([0, 1], [0.1, float("nan")], [0.1, 0.2])})
    with pytest.raises(DataError, match="labels against"):
        fit_calibration({"a": SetScores([0, 1], [0.1, 0.2, 0.3], [0.1, 0.2])})
    with pytest.raises(DataError, match="both labels"):
        f1_max_threshold([0.1, 0.2], [1, 1])


@pytest.mark.parametrize(("raw", "of_map"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1e-300, 0.5)])
def test_fused_score_is_a_probability_at_the_ends(raw: float, of_map: float) -> None:
    for weight in (0.0, 1.0, 100.0):
        score = float(fused_scores(raw, of_map, CalibrationConfig(head_weight=weight, map_weight=1.0)))
        assert 0 <= score <= 1


def test_identity_calibration_leaves_the_head_score() -> None:
    assert float(fused_scores(0.37, 0.9, CalibrationConfig())) == pytest.approx(0.37)


def test_importing_it_loads_no_scipy() -> None:
    code = "import sys, anomaly_ov.calibration; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loads_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, anomaly_ov.calibration, anomaly_ov.evaluation.detect, anomaly_ov.evaluation.report, "
        "anomaly_ov.data.leakage, anomaly_ov.data.layouts; "
        "print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
