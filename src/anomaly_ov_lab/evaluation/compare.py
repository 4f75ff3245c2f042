"""Two runs over the same pictures, compared pair by pair: is one detector better than the other, and how sure is that?

* A picture is the same in both runs if its id, the bytes of its file and its label are; others take no part and are
  counted and named. Runs over data sets of different names are refused, and so are runs without a common picture.
* Image metrics are measured anew on the common pictures. Both runs are measured on the same resamples (drawn with
  replacement within each label of each category), so what is hard for both cancels. Interval: 95 %, percentiles;
  p-value: two-sided, of "no difference", not corrected for the number of comparisons.
* Differences are A minus B, so a positive one speaks for A; of ``calibration_error`` a negative one does. Balanced
  accuracy and specificity are at each run's own threshold.
* Pixel metrics are those that the runs stored; a difference is given only if the runs hold the very same pictures. They
  have no interval: a defect's pixels are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import DataError
from anomaly_ov_lab.evaluation.figures import ScoreName
from anomaly_ov_lab.evaluation.metrics import (
    METRICS,
    bootstrap_all,
    bootstrap_draws,
    calibration_error,
    measure,
    operating_point,
    paired_difference,
)
from anomaly_ov_lab.evaluation.stored_run import Side, StoredRun, runs_in

COMPARISON_SCHEMA = "anomaly-ov.comparison/1"
RATES = ("balanced_accuracy", "specificity")
PIXEL_METRICS = ("auroc", "average_precision", "f1_max", "pro")
_SHOWN = 3

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One metric in both runs, None where undefined. ``interval`` and ``p_value`` are of ``difference``, A minus B."""

    a: float | None
    b: float | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class ComparedGroup:
    """One category, the mean over those with both labels, or all pictures pooled."""

    name: str
    normal: int
    anomalous: int
    metrics: dict[str, Difference]


@dataclass(frozen=True)
class LeftOut:
    """Ids of pictures that take no part, by the reason."""

    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    other_bytes: tuple[str, ...] = ()
    other_label: tuple[str, ...] = ()
    no_score: tuple[str, ...] = ()
    no_label: tuple[str, ...] = ()

    @property
    def same_pictures(self) -> bool:
        """Whether both runs hold the very same pictures with the same labels, all of them scored."""
        return not any((self.only_a, self.only_b, self.other_bytes, self.other_label, self.no_score))

    def lines(self) -> list[str]:
        """One line per reason, with how many and the first names; empty if all pictures are common."""
        words = {
            "only_a": "only in A",
            "only_b": "only in B",
            "other_bytes": "other bytes under the same name",
            "other_label": "another label or category",
            "no_score": "not scored by both",
            "no_label": "without a label",
        }
        return [_named(words[reason], ids) for reason, ids in asdict(self).items() if ids]


@dataclass(frozen=True)
class Comparison:
    """Two runs of one data set. ``mean`` is None where the set has one category; ``pixels`` where runs differ."""

    dataset: str
    score: ScoreName
    a: Side
    b: Side
    pictures: int
    left_out: LeftOut
    categories: tuple[ComparedGroup, ...]
    mean: ComparedGroup | None
    pooled: ComparedGroup
    pixels: dict[str, Difference] | None
    notes: tuple[str, ...]
    draws: int
    seed: int

    @property
    def main(self) -> ComparedGroup:
        """The figures to quote: the mean over categories, or the one category's."""
        return self.mean or self.pooled

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"schema": COMPARISON_SCHEMA, **asdict(self)}


def compare_runs(
    run_a: Path, run_b: Path, score: ScoreName = "score", draws: int = 2000, seed: int = 0
) -> list[Comparison]:
    """Compares two folders of ``eval detect --out``: of one set each, or holding one folder per set.

    Of the latter the sets in both are compared, and each comparison notes those in one alone. Raises ``DataError`` if
    there is no common set, no common picture, or a folder holds no run.
    """
    sides = runs_in(run_a), runs_in(run_b)
    common = [name for name in sides[0] if name in sides[1]]
    if not common:
        raise DataError(
            f"different data sets: {run_a} holds {', '.join(sides[0])}, {run_b} holds {', '.join(sides[1])}",
            hint="compare runs over the same set",
        )
    alone = [(name, "A" if name in sides[0] else "B") for name in {**sides[0], **sides[1]} if name not in common]
    notes = tuple(f"{name}: only {where} holds this set" for name, where in alone)
    return [_compare(sides[0][name], sides[1][name], score, draws, seed, notes) for name in common]


# --- inside ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """Pictures of one group: labels (n,), both runs' scores (n,), and the runs' thresholds for these scores."""

    labels: npt.NDArray[np.int64]
    scores: tuple[Float64, Float64]
    thresholds: tuple[float | None, float | None]

    def of(self, chosen: npt.NDArray[np.bool_]) -> _Pairs:
        return _Pairs(self.labels[chosen], (self.scores[0][chosen], self.scores[1][chosen]), self.thresholds)


@dataclass(frozen=True)
class _Drawn:
    """A group, and for each metric with an interval the draws of its difference; none where it has one label only."""

    group: ComparedGroup
    draws: dict[str, Float64]


def _compare(
    folder_a: Path, folder_b: Path, score: ScoreName, draws: int, seed: int, notes: tuple[str, ...]
) -> Comparison:
    a, b = StoredRun.read(folder_a), StoredRun.read(folder_b)
    ids, left_out = _matched(a, b, score)
    if not ids:
        first = (left_out.lines() or ["both are empty"])[0]
        raise DataError(f"{folder_a} and {folder_b} have no picture in common: {first}", hint="compare runs of one set")
    pairs = _pairs(ids, a, b, score)
    owners = np.array([a.labels[id_].category for id_ in ids])
    parts = [
        # Another seed per category: their draws are averaged as if independent.
        _group(name, pairs.of(owners == name), draws, seed + index)
        for index, name in enumerate(dict.fromkeys(owners.tolist()))
    ]
    return Comparison(
        dataset=str(a.metrics["dataset"]),
        score=score,
        a=a.side(),
        b=b.side(),
        pictures=len(ids),
        left_out=left_out,
        categories=tuple(part.group for part in parts),
        mean=_mean(parts) if len(parts) > 1 else None,
        pooled=_group("pooled", pairs, draws, seed).group,
        pixels=_pixels(a, b) if left_out.same_pictures else None,
        notes=(*notes, *_notes(a, b, parts, left_out.same_pictures)),
        draws=draws,
        seed=seed,
    )


def _matched(a: StoredRun, b: StoredRun, score: ScoreName) -> tuple[list[str], LeftOut]:
    """Ids of the labelled pictures that are the same in both and scored by both, and what became of the others."""
    kept: list[str] = []
    out: dict[str, list[str]] = {reason: [] for reason in LeftOut.__dataclass_fields__}
    for id_ in {**a.rows, **b.rows}:
        if id_ not in b.rows or id_ not in a.rows:
            out["only_a" if id_ in a.rows else "only_b"].append(id_)
        elif getattr(a.rows[id_], score) is None or getattr(b.rows[id_], score) is None:
            out["no_score"].append(id_)
        elif a.rows[id_].sha256 is None or a.rows[id_].sha256 != b.rows[id_].sha256:
            out["other_bytes"].append(id_)
        elif a.labels[id_] != b.labels[id_]:
            out["other_label"].append(id_)
        elif a.labels[id_].label is None:
            out["no_label"].append(id_)
        else:
            kept.append(id_)
    return kept, LeftOut(**{reason: tuple(ids) for reason, ids in out.items()})


def _pairs(ids: Sequence[str], a: StoredRun, b: StoredRun, score: ScoreName) -> _Pairs:
    def scores_of(run: StoredRun) -> Float64:
        scores = np.array([getattr(run.rows[id_], score) for id_ in ids])
        if not np.isfinite(scores).all():
            bad = ids[int(np.argmin(np.isfinite(scores)))]
            raise DataError(f"{run.folder}: {score} of {bad} is not finite", hint="the detector's output is broken")
        return scores

    # The threshold is one for the score itself, not for its parts.
    thresholds = (a.threshold, b.threshold) if score == "score" else (None, None)
    return _Pairs(np.array([a.labels[id_].label for id_ in ids]), (scores_of(a), scores_of(b)), thresholds)


def _group(name: str, pairs: _Pairs, draws: int, seed: int) -> _Drawn:
    labels, (a, b) = pairs.labels, pairs.scores
    drawn: dict[str, Float64] = {}
    drawn_a, drawn_b = bootstrap_all(labels, a, draws, seed), bootstrap_all(labels, b, draws, seed)
    if drawn_a is not None and drawn_b is not None:
        drawn = {metric: drawn_a[metric] - drawn_b[metric] for metric in METRICS}
        drawn |= _balanced_draws(pairs, draws, seed)
    both: dict[str, tuple[float | None, float | None]] = {
        metric: (measure(metric, labels, a), measure(metric, labels, b)) for metric in METRICS
    }
    both |= {rate: (_rate(pairs, 0, rate), _rate(pairs, 1, rate)) for rate in RATES}
    both["calibration_error"] = _calibration(labels, a), _calibration(labels, b)
    metrics = {key: _difference(of_a, of_b, drawn.get(key)) for key, (of_a, of_b) in both.items()}
    return _Drawn(ComparedGroup(name, int((labels == 0).sum()), int((labels == 1).sum()), metrics), drawn)


def _balanced_draws(pairs: _Pairs, draws: int, seed: int) -> dict[str, Float64]:
    """Draws of the difference in balanced accuracy, which is the AUROC of "flagged or not"."""
    found = []
    for scores, threshold in zip(pairs.scores, pairs.thresholds, strict=True):
        if threshold is None:
            return {}
        found.append(bootstrap_draws(pairs.labels, scores >= threshold, "auroc", draws, seed))
    return {} if found[0] is None or found[1] is None else {"balanced_accuracy": found[0] - found[1]}


def _mean(parts: Sequence[_Drawn]) -> ComparedGroup:
    """Each metric's mean over the categories where both runs have it; draws are averaged one by one."""
    metrics = {}
    for name in parts[0].group.metrics:
        defined = [part for part in parts if part.group.metrics[name].difference is not None]
        a, b = (_average([getattr(part.group.metrics[name], side) for part in defined]) for side in ("a", "b"))
        drawn = [part.draws[name] for part in defined if name in part.draws]
        metrics[name] = _difference(a, b, np.mean(drawn, axis=0) if drawn else None)
    groups = [part.group for part in parts]
    return ComparedGroup("mean", sum(g.normal for g in groups), sum(g.anomalous for g in groups), metrics)


def _difference(a: float | None, b: float | None, draws: Float64 | None = None) -> Difference:
    if a is None or b is None:
        return Difference(a, b)
    if draws is None:
        return Difference(a, b, a - b)
    found = paired_difference(a - b, draws)
    return Difference(a, b, found.difference, (found.interval.low, found.interval.high), found.p_value)


def _rate(pairs: _Pairs, side: int, rate: str) -> float | None:
    """A rate of one run at its own threshold."""
    threshold = pairs.thresholds[side]
    if threshold is None:
        return None
    value: float | None = getattr(operating_point(pairs.labels, pairs.scores[side], threshold), rate)
    return value


def _calibration(labels: npt.NDArray[np.int64], scores: Float64) -> float | None:
    return calibration_error(labels, scores) if scores.min() >= 0 and scores.max() <= 1 else None


def _pixels(a: StoredRun, b: StoredRun) -> dict[str, Difference] | None:
    if a.pixels is None or b.pixels is None or a.pixels.get("max_fpr") != b.pixels.get("max_fpr"):
        return None
    return {name: _difference(a.pixels.get(name), b.pixels.get(name)) for name in PIXEL_METRICS}


def _notes(a: StoredRun, b: StoredRun, parts: Sequence[_Drawn], same_pictures: bool) -> list[str]:
    notes = []
    undefined = tuple(part.group.name for part in parts if not part.draws)
    if undefined:
        notes.append(_named("one label only, undefined and not in the mean", undefined))
    if (a.side().model, a.side().context) == (b.side().model, b.side().context):
        notes.append("both runs name the same model and context")
    notes += [
        f"{letter}'s scores depend on the other pictures of the set (folder context)"
        for run, letter in ((a, "A"), (b, "B"))
        if run.transductive
    ]
    if not same_pictures and a.pixels and b.pixels:
        notes.append("pixel metrics are not compared, as the runs hold different pictures")
    return notes


def _average(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _named(what: str, ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > _SHOWN else ""
    return f"{what}: {len(ids)} ({', '.join(ids[:_SHOWN])}{more})"
