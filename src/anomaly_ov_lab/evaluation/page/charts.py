"""The curves of a report's page as charts: ROC, and precision against recall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomaly_ov.charts import Axes, Chart, Floats, Line
from anomaly_ov_lab.evaluation.metrics import OperatingPoint
from anomaly_ov_lab.evaluation.page.curves import precision_recall_points, roc_points, thinned


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
