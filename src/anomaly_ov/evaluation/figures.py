"""Figures of a group of scored pictures: a category, all of them pooled, or the mean over categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from anomaly_ov.evaluation.metrics import (
    Interval,
    OperatingPoint,
    auroc,
    average_precision,
    bootstrap_draws,
    f1_max,
    operating_point,
    percentile_interval,
)
from anomaly_ov.evaluation.pixel_metrics import PixelMetrics
from anomaly_ov.evaluation.run_folder import Row

ScoreName = Literal["score", "score_raw", "score_map", "score_expert", "score_context"]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)


@dataclass(frozen=True)
class ScoreFigures:
    """Metrics of one of the scores, 0..1; None = undefined (one label only, or the detector gives no such score).

    ``interval``: 95 % bootstrap interval of ``auroc``. ``f1_threshold``: where ``f1_max`` is reached.
    """

    auroc: float | None = None
    interval: Interval | None = None
    average_precision: float | None = None
    f1_max: float | None = None
    f1_threshold: float | None = None
    draws: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Figures:
    """All metrics of a group: its counts, each score's, those at the detector's own threshold, and the pixels'.

    ``categories``: over how many categories with both labels a mean was taken; 0 if this is no mean.
    """

    name: str
    normal: int
    anomalous: int
    scores: dict[ScoreName, ScoreFigures]
    at_threshold: OperatingPoint | None = None
    pixels: PixelMetrics | None = None
    categories: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values, without the bootstrap draws."""
        scores = {
            name: {key: getattr(figures, key) for key in ScoreFigures.__dataclass_fields__ if key != "draws"}
            for name, figures in self.scores.items()
        }
        for values in scores.values():
            values["interval"] = list(values["interval"]) if values["interval"] else None
        return {
            "name": self.name,
            "normal": self.normal,
            "anomalous": self.anomalous,
            "categories": self.categories,
            "scores": scores,
            "at_threshold": _point_json(self.at_threshold),
            "pixels": asdict(self.pixels) if self.pixels else None,
        }


def figures_of(
    name: str,
    rows: Sequence[Row],
    labels: Sequence[int],
    *,
    draws: int = 2000,
    seed: int = 0,
    pixels: PixelMetrics | None = None,
) -> Figures:
    """Figures of readable ``rows`` with their ``labels`` (0 or 1). ``seed`` is of the bootstrap."""
    threshold = next((row.threshold for row in rows if row.threshold is not None), None)
    scores = [row.score for row in rows]
    known = [score for score in scores if score is not None]
    point = operating_point(labels, known, threshold) if threshold is not None and len(known) == len(rows) else None
    values = {kind: tuple(getattr(row, kind) for row in rows) for kind in SCORE_NAMES}
    # Without a context the expert's score is the score itself: measured once.
    distinct = {scored: _score_figures(scored, labels, draws, seed) for scored in set(values.values())}
    return Figures(
        name=name,
        normal=sum(label == 0 for label in labels),
        anomalous=sum(label == 1 for label in labels),
        scores={kind: distinct[scored] for kind, scored in values.items()},
        at_threshold=point,
        pixels=pixels,
    )


def mean_of(groups: Sequence[Figures]) -> Figures:
    """The mean over categories of every figure that is defined there; operating points are not averaged.

    The interval comes from the categories' own draws, averaged draw by draw, as they are independent.
    """
    return Figures(
        name="mean",
        normal=sum(group.normal for group in groups),
        anomalous=sum(group.anomalous for group in groups),
        scores={kind: _mean_scores([group.scores[kind] for group in groups]) for kind in SCORE_NAMES},
        pixels=_mean_pixels([group.pixels for group in groups if group.pixels is not None]),
        categories=sum(bool(group.normal and group.anomalous) for group in groups),
    )


def _score_figures(scores: Sequence[float | None], labels: Sequence[int], draws: int, seed: int) -> ScoreFigures:
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return ScoreFigures()
    drawn = bootstrap_draws(labels, known, "auroc", draws, seed)
    best = f1_max(labels, known)
    return ScoreFigures(
        auroc=auroc(labels, known),
        interval=None if drawn is None else percentile_interval(drawn),
        average_precision=average_precision(labels, known),
        f1_max=best.f1 if best else None,
        f1_threshold=best.threshold if best else None,
        draws=drawn,
    )


def _mean_scores(parts: Sequence[ScoreFigures]) -> ScoreFigures:
    draws = [part.draws for part in parts if part.draws is not None]
    mean_draws = np.mean(draws, axis=0) if draws else None
    return ScoreFigures(
        auroc=_mean([part.auroc for part in parts]),
        interval=None if mean_draws is None else percentile_interval(mean_draws),
        average_precision=_mean([part.average_precision for part in parts]),
        f1_max=_mean([part.f1_max for part in parts]),
        draws=mean_draws,
    )


def _mean_pixels(parts: Sequence[PixelMetrics]) -> PixelMetrics | None:
    if not parts:
        return None
    return PixelMetrics(
        auroc=_mean([part.auroc for part in parts]),
        average_precision=_mean([part.average_precision for part in parts]),
        pro=_mean([part.pro for part in parts]),
        max_fpr=parts[0].max_fpr,
        images=sum(part.images for part in parts),
        regions=sum(part.regions for part in parts),
        pixels=sum(part.pixels for part in parts),
        defect_pixels=sum(part.defect_pixels for part in parts),
        error=max(part.error for part in parts),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _point_json(point: OperatingPoint | None) -> dict[str, Any] | None:
    if point is None:
        return None
    rates = ("precision", "recall", "specificity", "balanced_accuracy", "f1")
    return asdict(point) | {name: getattr(point, name) for name in rates}
