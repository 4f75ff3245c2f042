from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.charts import histogram
from anomaly_ov_lab.evaluation.metrics import auroc, average_precision
from anomaly_ov_lab.evaluation.page.curves import precision_recall_points, roc_points, thinned


def _random(seed: int, n: int, values: int) -> tuple[list[int], list[float]]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1], rng.integers(0, 2, n - 2)])
    return labels.tolist(), (rng.integers(0, values, n) / values).tolist()


@pytest.mark.parametrize("values", [1, 2, 7, 10_000])
@pytest.mark.parametrize("n", [2, 5, 200])
def test_areas_are_those_of_the_metrics(n: int, values: int) -> None:
    for seed in range(5):
        labels, scores = _random(seed, n, values)
        roc = roc_points(labels, scores)
        assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(auroc(labels, scores))
        steps = precision_recall_points(labels, scores)
        assert np.trapezoid(steps[:, 1], steps[:, 0]) == pytest.approx(average_precision(labels, scores))


def test_roc_runs_from_corner_to_corner_and_never_back() -> None:
    points = roc_points(*_random(3, 100, 30))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert (np.diff(points, axis=0) >= 0).all()


def test_thinning_keeps_the_ends_and_the_shape() -> None:
    points = roc_points(*_random(5, 20_000, 100_000))
    few = thinned(points, 400)
    assert len(points) > 3000
    assert len(few) <= 400
    assert few[0].tolist() == [0, 0]
    assert few[-1].tolist() == [1, 1]
    exact = np.interp(few[:, 0], points[:, 0], points[:, 1])
    assert np.abs(exact - few[:, 1]).max() < 0.02
    assert thinned(few, 400) is few


def test_bars_of_a_label_add_up_to_all_of_it() -> None:
    found = histogram([0, 0, 0, 1], [0.0, 0.5, 1.0, 1.0])
    assert found.normal.sum() == pytest.approx(1)
    assert found.anomalous[-1] == 1
    wide = histogram([0, 1], [-2.0, 30.0])
    assert (wide.edges[0], wide.edges[-1]) == (-2, 30)
    assert histogram([0, 0], [0.1, 0.2]).anomalous.sum() == 0
