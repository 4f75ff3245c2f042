"""Figures of a group of scored pictures: a category, all of them pooled, or the mean over categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import DataError
from anomaly_ov_lab.evaluation.metrics import (
    CALIBRATION_BINS,
    Interval,
    Metric,
    OperatingPoint,
    auroc,
    average_precision,
    bootstrap_all,
    calibration_error,
    f1_max,
    operating_point,
    percentile_interval,
)
from anomaly_ov_lab.evaluation.pixel_metrics import PixelMetrics
from anomaly_ov_lab.evaluation.run_folder import Row

ScoreName = Literal["score", "score_raw", "score_map", "score_expert", "score_context"]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)
RATES = ("precision", "recall", "specificity", "balanced_accuracy", "f1", "false_alarms", "misses")
_INTERVALS: dict[Metric, str] = {
    "auroc": "interval",
    "average_precision": "average_precision_interval",
    "f1_max": "f1_interval",
}


@dataclass(frozen=True)
class ScoreFigures:
    """Metrics of one of the scores, 0..1; None = undefined (one label only, or the detector gives no such score).

    ``interval``: 95 % bootstrap interval of ``auroc``; the two others name their metric. ``f1_threshold``: where
    ``f1_max`` is reached. ``calibration_error``: with the score taken for P(anomalous); None if any is outside 0..1.
    """

    auroc: float | None = None
    interval: Interval | None = None
    average_precision: float | None = None
    f1_max: float | None = None
    f1_threshold: float | None = None
    average_precision_interval: Interval | None = None
    f1_interval: Interval | None = None
    calibration_error: float | None = None
    draws: dict[Metric, npt.NDArray[np.float64]] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Figures:
    """All metrics of a group: its counts, each score's, those at the detector's own threshold, and the pixels'.

    ``categories``: over how many categories with both labels a mean was taken; 0 if this is no mean.
    ``rates_at_threshold``: precision, recall, specificity, balanced accuracy, F1, false alarms (1 - specificity) and
    misses (1 - recall) there, or their means, each over the categories where it is defined; counts are never averaged,
    so a mean has no ``at_threshold``.
    """

    name: str
    normal: int
    anomalous: int
    scores: dict[ScoreName, ScoreFigures]
    at_threshold: OperatingPoint | None = None
    pixels: PixelMetrics | None = None
    categories: int = 0
    rates_at_threshold: dict[str, float | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values, without the bootstrap draws."""
        scores = {
            name: {key: getattr(figures, key) for key in ScoreFigures.__dataclass_fields__ if key != "draws"}
            for name, figures in self.scores.items()
        }
        for values in scores.values():
            values |= {name: list(values[name]) if values[name] else None for name in _INTERVALS.values()}
        return {
            "name": self.name,
            "normal": self.normal,
            "anomalous": self.anomalous,
            "categories": self.categories,
            "scores": scores,
            "calibration_binning": f"{CALIBRATION_BINS} equal bins of [0, 1]",
            "at_threshold": _point_json(self.at_threshold),
            "rates_at_threshold": self.rates_at_threshold,
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
    """Figures of readable ``rows`` with their ``labels`` (0 or 1). ``seed`` is of the bootstrap.

    Raises ``DataError`` that names the picture where a score is NaN or infinite.
    """
    _check_finite(rows)
    threshold = next((row.threshold for row in rows if row.threshold is not None), None)
    scores = [row.score for row in rows]
    known = [score for score in scores if score is not None]
    point = operating_point(labels, known, threshold) if threshold is not None and len(known) == len(rows) else None
    values = {kind: tuple(getattr(row, kind) for row in rows) for kind in SCORE_NAMES}
    # Without a context the expert's score is the score itself: measured once.
    distinct = {scored: _score_figures(scored, tuple(labels), draws, seed) for scored in set(values.values())}
    return Figures(
        name=name,
        normal=sum(label == 0 for label in labels),
        anomalous=sum(label == 1 for label in labels),
        scores={kind: distinct[scored] for kind, scored in values.items()},
        at_threshold=point,
        pixels=pixels,
        rates_at_threshold=_rates(point),
    )


def mean_of(groups: Sequence[Figures]) -> Figures:
    """The mean over categories of every figure that is defined there; of operating points only the rates.

    The interval comes from the categories' own draws, averaged draw by draw, as they are independent.
    """
    return Figures(
        name="mean",
        normal=sum(group.normal for group in groups),
        anomalous=sum(group.anomalous for group in groups),
        scores={kind: _mean_scores([group.scores[kind] for group in groups]) for kind in SCORE_NAMES},
        pixels=_mean_pixels([group.pixels for group in groups if group.pixels is not None]),
        categories=sum(bool(group.normal and group.anomalous) for group in groups),
        rates_at_threshold=_mean_rates([group.rates_at_threshold for group in groups if group.rates_at_threshold]),
    )


@lru_cache(maxsize=8)  # a set of one category is measured as that category and again as a whole
def _score_figures(scores: tuple[float | None, ...], labels: tuple[int, ...], draws: int, seed: int) -> ScoreFigures:
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return ScoreFigures()
    drawn = bootstrap_all(labels, known, draws, seed)
    best = f1_max(labels, known)
    return ScoreFigures(
        auroc=auroc(labels, known),
        average_precision=average_precision(labels, known),
        f1_max=best.f1 if best else None,
        f1_threshold=best.threshold if best else None,
        calibration_error=calibration_error(labels, known) if all(0 <= score <= 1 for score in known) else None,
        draws=drawn,
        **_intervals(drawn),
    )


def _mean_scores(parts: Sequence[ScoreFigures]) -> ScoreFigures:
    draws = [part.draws for part in parts if part.draws is not None]
    mean_draws = {metric: np.mean([one[metric] for one in draws], axis=0) for metric in _INTERVALS} if draws else None
    return ScoreFigures(
        auroc=_mean([part.auroc for part in parts]),
        average_precision=_mean([part.average_precision for part in parts]),
        f1_max=_mean([part.f1_max for part in parts]),
        calibration_error=_mean([part.calibration_error for part in parts]),
        draws=mean_draws,
        **_intervals(mean_draws),
    )


def _intervals(draws: dict[Metric, npt.NDArray[np.float64]] | None) -> dict[str, Any]:
    return {name: percentile_interval(draws[metric]) for metric, name in _INTERVALS.items()} if draws else {}


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
        f1_max=_mean([part.f1_max for part in parts]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_rates(parts: Sequence[dict[str, float | None]]) -> dict[str, float | None] | None:
    return {name: _mean([part[name] for part in parts]) for name in RATES} if parts else None


def _rates(point: OperatingPoint | None) -> dict[str, float | None] | None:
    return None if point is None else {name: getattr(point, name) for name in RATES}


def _point_json(point: OperatingPoint | None) -> dict[str, Any] | None:
    return None if point is None else asdict(point) | (_rates(point) or {})


def _check_finite(rows: Sequence[Row]) -> None:
    for row in rows:
        for kind in SCORE_NAMES:
            value = getattr(row, kind)
            if value is not None and not math.isfinite(value):
                raise DataError(f"{row.id}: {kind} is not finite ({value})", hint="the detector's output is broken")
