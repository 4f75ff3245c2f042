"""The curves of a report's page as charts: exact points, then thinned to what an eye can tell apart.

Pictures with one score share one threshold, so ties give one slanted step of the ROC curve, as in ``metrics.auroc``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from anomaly_ov.charts import Axes, Chart, Floats, Line
from anomaly_ov_lab.evaluation.metrics import OperatingPoint

MOST_POINTS = 400


def roc_points(labels: Sequence[int], scores: Sequence[float]) -> Floats:
    """(K, 2) rate of false alarms and recall, from (0, 0) to (1, 1); both labels must occur."""
    alarms, hits, _ = roc_curve(labels, scores)
    return np.column_stack([alarms, hits])


def precision_recall_points(labels: Sequence[int], scores: Sequence[float]) -> Floats:
    """(K, 2) recall and precision as steps, whose area is the average precision; both labels must occur."""
    precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
    precision, recall = precision[-2::-1], recall[::-1]
    return np.column_stack([np.ravel([recall[:-1], recall[1:]], "F"), np.repeat(precision, 2)])


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


def roc_chart(
    labels: Sequence[int], scores: Sequence[float], auroc: float | None, point: OperatingPoint | None
) -> Chart:
    """ROC curve with the diagonal of chance and the operating point."""
    mark = None
    if point is not None and point.recall is not None and point.specificity is not None:
        mark = (1 - point.specificity, point.recall)
    note = "" if auroc is None else f"area {100 * auroc:.1f} %"
    names = ("false alarms (share of normal)", "found (share of anomalous)")
    return _curve("ROC", note, names, roc_points(labels, scores), (0.0, 1.0), mark)


def precision_recall_chart(
    labels: Sequence[int], scores: Sequence[float], average: float | None, point: OperatingPoint | None
) -> Chart:
    """Precision against recall, with the precision of flagging everything and the operating point."""
    mark = None
    if point is not None and point.recall is not None and point.precision is not None:
        mark = (point.recall, point.precision)
    note = "" if average is None else f"average precision {100 * average:.1f} %"
    names = ("recall (share of anomalous)", "precision")
    share = sum(labels) / len(labels)
    return _curve("Precision and recall", note, names, precision_recall_points(labels, scores), (share, share), mark)


def _curve(
    title: str,
    note: str,
    names: tuple[str, str],
    points: Floats,
    chance: tuple[float, float],
    mark: tuple[float, float] | None,
) -> Chart:
    """Shares against shares. ``chance``: heights of its line at 0 and 1; ``mark``: the operating point."""
    axes = Axes((0.0, 1.0), (0.0, 1.0))
    lines = (
        Line(axes.path(np.array([[0.0, chance[0]], [1.0, chance[1]]])), "chance"),
        Line(axes.path(thinned(points)), "curve"),
    )
    marks = () if mark is None else (axes.place(*mark),)
    return Chart(title, note, *names, axes.x_ticks(), axes.y_ticks(), lines, marks)
