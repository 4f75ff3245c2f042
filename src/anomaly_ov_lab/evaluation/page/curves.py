"""Points of the curves on a report's page: exact, then thinned to what an eye can tell apart.

Pictures with one score share one threshold, so ties give one slanted step of the ROC curve, as in ``metrics.auroc``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomaly_ov.charts import Floats

MOST_POINTS = 400


def roc_points(labels: Sequence[int], scores: Sequence[float]) -> Floats:
    """(K, 2) rate of false alarms and recall, from (0, 0) to (1, 1); both labels must occur."""
    hits, alarms = _cumulated(labels, scores)
    points = np.column_stack([alarms / alarms[-1], hits / hits[-1]])
    return _without_straight(np.concatenate([[[0.0, 0.0]], points]))


def precision_recall_points(labels: Sequence[int], scores: Sequence[float]) -> Floats:
    """(K, 2) recall and precision as steps, whose area is the average precision; both labels must occur."""
    hits, alarms = _cumulated(labels, scores)
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    before = np.concatenate([[0.0], recall[:-1]])
    return _without_straight(np.column_stack([np.ravel([before, recall], "F"), np.repeat(precision, 2)]))


def thinned(points_K2: Floats, most: int = MOST_POINTS) -> Floats:
    """At most ``most`` of the points, first and last among them, evenly spread along the curve's length."""
    if len(points_K2) <= most:
        return points_K2
    lengths = np.abs(np.diff(points_K2, axis=0)).sum(axis=1)
    place = np.concatenate([[0.0], np.cumsum(lengths)])
    kept = np.searchsorted(place, np.linspace(0, place[-1], most)).clip(0, len(points_K2) - 1)
    kept[0], kept[-1] = 0, len(points_K2) - 1
    few_K2: Floats = points_K2[np.unique(kept)]
    return few_K2


def _cumulated(labels: Sequence[int], scores: Sequence[float]) -> tuple[Floats, Floats]:
    """Anomalous and normal pictures at or above each distinct score, the highest first."""
    y = np.asarray(labels)
    values, group = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True)
    hits = np.cumsum(np.bincount(group[y == 1], minlength=len(values)))
    alarms = np.cumsum(np.bincount(group[y == 0], minlength=len(values)))
    return hits.astype(np.float64), alarms.astype(np.float64)


def _without_straight(points_K2: Floats) -> Floats:
    """Without repeated points and those in the middle of a straight line; one where the line turns back stays."""
    moved = np.abs(np.diff(points_K2, axis=0)).max(axis=1, initial=0) > 0
    points_K2 = points_K2[np.concatenate([[True], moved])]
    if len(points_K2) < 3:
        return points_K2
    before, after = np.diff(points_K2[:-1], axis=0), np.diff(points_K2[1:], axis=0)
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    bends = (np.abs(cross) > 1e-15) | ((before * after).sum(axis=1) < 0)
    bent_K2: Floats = points_K2[np.concatenate([[True], bends, [True]])]
    return bent_K2
