from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from anomaly_ov.errors import DataError
from anomaly_ov.records import ModelInfo
from anomaly_ov_lab.evaluation.figures import Figures, figures_of, mean_of
from anomaly_ov_lab.evaluation.metrics import calibration_error
from anomaly_ov_lab.evaluation.pixel_metrics import PixelMetrics
from anomaly_ov_lab.evaluation.run_folder import Row

INFO = ModelInfo("m", "r", "cpu", "float32")
PIXELS = PixelMetrics(0.5, 0.25, 0.125, 0.3, 4, 1, 100, 10, 1e-6, 0.4, 0.7)


def _rows(scores: list[float], threshold: float | None = 0.5) -> list[Row]:
    return [Row(f"{i}.png", "sha", INFO, score=s, score_raw=s / 2, threshold=threshold) for i, s in enumerate(scores)]


def _figures(labels: list[int], scores: list[float], pixels: PixelMetrics | None = None) -> Figures:
    return figures_of("group", _rows(scores), labels, draws=100, pixels=pixels)


def test_a_group_has_rates_at_its_threshold_and_a_calibration_error() -> None:
    labels, scores = [0, 0, 0, 1, 1], [0.1, 0.6, 0.2, 0.9, 0.4]
    figures = _figures(labels, scores)
    assert figures.rates_at_threshold is not None
    flagged = np.array(scores) >= 0.5
    assert figures.rates_at_threshold["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, flagged))
    assert figures.rates_at_threshold["specificity"] == pytest.approx(2 / 3)
    assert figures.rates_at_threshold["false_alarms"] == pytest.approx(1 / 3)
    assert figures.rates_at_threshold["misses"] == pytest.approx(1 / 2)
    assert figures.scores["score"].calibration_error == pytest.approx(calibration_error(labels, scores))
    assert figures.scores["score_map"].calibration_error is None


def test_scores_outside_0_to_1_have_metrics_but_no_calibration_error() -> None:
    found = _figures([0, 1], [-3.0, 7.0]).scores["score"]
    assert (found.auroc, found.calibration_error) == (1, None)


def test_every_metric_has_an_interval_that_holds_it() -> None:
    rng = np.random.default_rng(0)
    labels = [0] * 40 + [1] * 40
    found = _figures(labels, rng.normal(size=80).tolist() + np.array(labels)).scores["score"]
    for value, interval in (
        (found.auroc, found.interval),
        (found.average_precision, found.average_precision_interval),
        (found.f1_max, found.f1_interval),
    ):
        assert value is not None
        assert interval is not None
        assert interval.low <= value <= interval.high


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_named(value: float) -> None:
    rows = _rows([0.1, 0.2, 0.3])
    rows[1] = replace(rows[1], score_raw=value)
    with pytest.raises(DataError, match=rf"1\.png: score_raw is not finite \({value}\)"):
        figures_of("group", rows, [0, 1, 0])


def test_mean_takes_rates_pixels_and_calibration_where_they_are_defined() -> None:
    both, one = _figures([0, 1], [0.1, 0.9], PIXELS), _figures([0, 0], [0.2, 0.8])
    mean = mean_of([both, one])
    assert mean.at_threshold is None
    assert mean.rates_at_threshold == {
        "precision": 0.5,  # 1 and, of one flagged normal picture, 0
        "recall": 1.0,
        "specificity": 0.75,
        "balanced_accuracy": 1.0,
        "f1": 0.5,
        "false_alarms": 0.25,
        "misses": 0.0,
    }
    assert mean.pixels is not None
    assert (mean.pixels.f1_max, mean.pixels.f1_threshold, mean.pixels.error) == (0.4, None, 1e-6)
    assert mean.categories == 1
    errors = [figures.scores["score"].calibration_error for figures in (both, one)]
    assert mean.scores["score"].calibration_error == pytest.approx(np.mean(errors))


def test_without_a_threshold_there_are_no_rates() -> None:
    figures = figures_of("group", _rows([0.1, 0.9], None), [0, 1], draws=100)
    assert figures.rates_at_threshold is None
    assert mean_of([figures, figures]).rates_at_threshold is None


def test_json_holds_every_figure_and_how_calibration_was_binned() -> None:
    values = json.loads(json.dumps(_figures([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], PIXELS).to_json(), allow_nan=False))
    assert values["calibration_binning"] == "15 equal bins of [0, 1]"
    assert values["at_threshold"]["specificity"] == values["rates_at_threshold"]["specificity"] == 1
    assert values["at_threshold"]["misses"] == values["rates_at_threshold"]["misses"] == 0
    assert values["pixels"]["f1_max"] == 0.4
    assert values["pixels"]["f1_threshold"] == 0.7
    assert values["scores"]["score"]["f1_interval"] == [1, 1]
    assert values["scores"]["score_map"]["average_precision_interval"] is None
    assert "draws" not in values["scores"]["score"]
