from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_specificity,
)

from anomaly_ov.errors import DataError
from anomaly_ov_lab.evaluation.metrics import (
    METRICS,
    auroc,
    average_precision,
    bootstrap_all,
    bootstrap_draws,
    bootstrap_interval,
    calibration_error,
    f1_max,
    operating_point,
    paired_bootstrap,
)

# Few distinct scores, so that most pictures are tied with others.
_PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=40).filter(
    lambda pairs: len({label for label, _ in pairs}) == 2
)


@settings(deadline=None, max_examples=40)
@given(_PAIRS)
def test_auroc_ap_and_f1_agree_with_scikit_learn_under_ties(pairs: list[tuple[int, int]]) -> None:
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    scores = scores / 7
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    by_threshold = {t: f1_score(labels, scores >= t) for t in set(scores.tolist())}
    best = f1_max(labels, scores)
    assert best is not None
    assert best.f1 == pytest.approx(max(by_threshold.values()), abs=1e-12)
    assert best.threshold == max(t for t, f1 in by_threshold.items() if f1 > best.f1 - 1e-9)


def test_auroc_counts_ties_half() -> None:
    assert auroc([0, 1], [0.5, 0.5]) == 0.5
    assert auroc([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.3]) == (1 + 0.5 + 1 + 1) / 4


def test_one_label_only_is_undefined() -> None:
    for labels in ([0, 0], [1, 1], []):
        scores = [0.1, 0.2][: len(labels)]
        assert auroc(labels, scores) is None
        assert average_precision(labels, scores) is None
        assert f1_max(labels, scores) is None
        assert bootstrap_interval(labels, scores) is None
        assert paired_bootstrap(labels, scores, scores) is None


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, float("nan")], "1 scores are not finite"),
        ([0, 1], [0.1, float("inf")], "not finite"),
        ([0, 2], [0.1, 0.2], "labels must be 0"),
        ([0, 1, 1], [0.1, 0.2], "labels against"),
    ],
)
def test_broken_input_is_an_error(labels: list[int], scores: list[float], message: str) -> None:
    for metric in (auroc, average_precision, f1_max, bootstrap_interval):
        with pytest.raises(DataError, match=message):
            metric(labels, scores)


def test_operating_point_flags_scores_equal_to_the_threshold() -> None:
    point = operating_point([0, 0, 0, 1, 1], [0.1, 0.5, 0.2, 0.5, 0.4], threshold=0.5)
    assert (point.true_positives, point.false_positives) == (1, 1)
    assert (point.true_negatives, point.false_negatives) == (2, 1)
    assert point.specificity == pytest.approx(2 / 3)
    assert (point.false_alarms, point.misses) == (pytest.approx(1 / 3), 1 / 2)
    assert point.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert point.precision == point.recall == point.f1 == 0.5


def test_operating_point_without_one_label() -> None:
    point = operating_point([1, 1], [0.1, 0.2], threshold=0.5)
    assert point.recall == 0
    assert (point.specificity, point.false_alarms, point.misses) == (None, None, 1)
    assert point.balanced_accuracy is None
    assert point.precision is None


def _scores(n: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    return labels, rng.normal(size=2 * n) + shift * labels


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "f1_max"])
def test_each_draw_is_the_metric_of_a_resample(metric: str) -> None:
    """A slow bootstrap with the same indices gives the same draws."""
    labels, scores = _scores(15, 1.0)
    scores = np.clip(np.round(scores), -1, 1)  # many ties, also of both labels at the top
    draws = bootstrap_draws(labels, scores, metric, draws=20, seed=3)
    rng = np.random.default_rng(3)
    chosen = np.concatenate([np.arange(15)[rng.integers(0, 15, (20, 15))] for _ in (0, 1)], axis=1)
    chosen[:, 15:] += 15
    slow = {"auroc": auroc, "average_precision": average_precision, "f1_max": lambda y, s: f1_max(y, s).f1}[metric]
    assert draws is not None
    np.testing.assert_allclose(draws, [slow(labels[i], scores[i]) for i in chosen], atol=1e-12)


def test_interval_is_seeded_holds_the_value_and_narrows_with_more_pictures() -> None:
    widths = []
    for n in (30, 300):
        labels, scores = _scores(n, 1.0)
        interval = bootstrap_interval(labels, scores, seed=1)
        assert interval is not None
        assert interval == bootstrap_interval(labels, scores, seed=1)
        assert interval != bootstrap_interval(labels, scores, seed=2)
        assert interval.low < auroc(labels, scores) < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 0.7602  # P(N(1, 1) > N(0, 1))
    intervals = [bootstrap_interval(*_scores(60, 1.0, seed), draws=400, seed=seed) for seed in range(150)]
    covered = np.mean([i is not None and i.low <= truth <= i.high for i in intervals])
    assert 0.89 <= covered <= 0.99


def test_paired_comparison_sees_what_two_intervals_cannot() -> None:
    labels, scores = _scores(200, 1.0)
    worse = scores + np.random.default_rng(5).normal(size=400) * 0.7
    interval_a, interval_b = bootstrap_interval(labels, scores), bootstrap_interval(labels, worse)
    assert interval_a is not None
    assert interval_b is not None
    assert interval_b.high > interval_a.low  # the two intervals overlap, so they alone prove nothing
    paired = paired_bootstrap(labels, scores, worse)
    assert paired is not None
    assert paired.difference == pytest.approx(auroc(labels, scores) - auroc(labels, worse))
    assert paired.interval.low > 0
    assert paired.p_value < 0.05
    same = paired_bootstrap(labels, scores, scores)
    assert same is not None
    assert (same.difference, same.p_value) == (0, 1)


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = _scores(20, 0.5)
    whole = bootstrap_draws(labels, scores, draws=50)
    monkeypatch.setattr("anomaly_ov_lab.evaluation.metrics._BLOCK_ELEMENTS", 400)
    blocks = bootstrap_draws(labels, scores, draws=50)
    assert whole is not None
    assert blocks is not None
    assert blocks.shape == (50,)
    assert abs(whole.mean() - blocks.mean()) < 0.05


def test_zero_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws"):
        bootstrap_draws([0, 1], [0.0, 1.0], draws=0)


_CLOSE = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.5, 0.5 + 1e-12]))),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(_CLOSE)
def test_random_tied_constant_and_tiny_inputs_agree_with_scikit_learn(pairs: list[tuple[int, float]]) -> None:
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    if len(set(labels.tolist())) < 2:
        assert auroc(labels, scores) is None
        return
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
    best = f1_max(labels, scores)
    assert best is not None
    assert best.f1 == pytest.approx(f1_score(labels, scores >= best.threshold), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([1, 5, 15]))
def test_metrics_agree_with_torchmetrics(seed: int, n: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, n), [0, 1])
    # Float32 values off the edges of bins, so that both put every score into the same bin.
    scores = ((rng.integers(0, 240, n + 2) + 0.5) / 240).astype(np.float32)
    y, s = torch.from_numpy(labels), torch.from_numpy(scores)
    assert auroc(labels, scores) == pytest.approx(float(binary_auroc(s, y)), abs=1e-6)
    assert average_precision(labels, scores) == pytest.approx(float(binary_average_precision(s, y)), abs=1e-6)
    expected = float(binary_calibration_error(s, y, n_bins=bins, norm="l1"))
    assert calibration_error(labels, scores, bins) == pytest.approx(expected, abs=1e-6)
    point = operating_point(labels, scores, 0.5)
    assert point.specificity == pytest.approx(float(binary_specificity(s, y)), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    # [0, 0.5): mean 0.2, none anomalous; [0.5, 1]: mean 0.8, half anomalous.
    assert calibration_error([0, 0, 0, 1], [0.1, 0.3, 0.6, 1.0], bins=2) == pytest.approx(0.5 * 0.2 + 0.5 * 0.3)
    assert calibration_error([0, 1], [0.0, 1.0]) == 0
    assert calibration_error([1, 1], [0.0, 0.0]) == 1  # one label only is no obstacle
    assert calibration_error([0, 1], [0.5, 0.5], bins=2) == 0  # an edge belongs to the bin above it
    assert calibration_error([], []) is None


def test_scores_that_are_no_probabilities_have_no_calibration_error() -> None:
    with pytest.raises(DataError, match=r"from -0\.5 to 0\.2 are no probabilities"):
        calibration_error([0, 1], [-0.5, 0.2])
    with pytest.raises(ValueError, match="bins"):
        calibration_error([0, 1], [0.1, 0.2], bins=0)


def test_several_metrics_share_their_resamples() -> None:
    labels, scores = _scores(20, 1.0)
    together = bootstrap_all(labels, scores, draws=30, seed=4)
    assert together is not None
    for metric in METRICS:
        np.testing.assert_array_equal(together[metric], bootstrap_draws(labels, scores, metric, draws=30, seed=4))
