"""The curves of a report's page as charts: ROC, and precision against recall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomaly_ov.charts import Axes, Chart, Line
from anomaly_ov_lab.evaluation.metrics import OperatingPoint
from anomaly_ov_lab.evaluation.page.curves import precision_recall_points, roc_points, thinned


def roc_chart(
    labels: Sequence[int], scores: Sequence[float], auroc: float | None, point: OperatingPoint | None
) -> Chart:
    """ROC curve with the diagonal of chance and the operating point."""
    axes = Axes((0.0, 1.0), (0.0, 1.0))
    curve = thinned(roc_points(labels, scores))
    marks: tuple[tuple[float, float], ...] = ()
    if point is not None and point.recall is not None and point.specificity is not None:
        marks = (axes.place(1 - point.specificity, point.recall),)
    chance = Line(axes.path(np.array([[0.0, 0.0], [1.0, 1.0]])), "chance")
    return Chart(
        "ROC",
        "" if auroc is None else f"area {100 * auroc:.1f} %",
        "false alarms (share of normal)",
        "found (share of anomalous)",
        axes.x_ticks(),
        axes.y_ticks(),
        (chance, Line(axes.path(curve), "curve")),
        marks,
    )


def precision_recall_chart(
    labels: Sequence[int], scores: Sequence[float], average: float | None, point: OperatingPoint | None
) -> Chart:
    """Precision against recall, with the precision of flagging everything and the operating point."""
    axes = Axes((0.0, 1.0), (0.0, 1.0))
    curve = thinned(precision_recall_points(labels, scores))
    marks: tuple[tuple[float, float], ...] = ()
    if point is not None and point.recall is not None and point.precision is not None:
        marks = (axes.place(point.recall, point.precision),)
    share = sum(labels) / len(labels)
    chance = Line(axes.path(np.array([[0.0, share], [1.0, share]])), "chance")
    return Chart(
        "Precision and recall",
        "" if average is None else f"average precision {100 * average:.1f} %",
        "recall (share of anomalous)",
        "precision",
        axes.x_ticks(),
        axes.y_ticks(),
        (chance, Line(axes.path(curve), "curve")),
        marks,
    )
