"""Figures of answers: yes and no against labels, grades of free text, choices; each as mean over classes.

* Precision of a class without any "yes" is 0, as in the released evaluation; a rate over no picture is undefined, None,
  and left out of the mean.
* An answer that reads neither as yes nor as no is wrong whatever the truth: a miss on an anomalous picture, a false
  alarm on a normal one. How many there are is told.
* AUROC of P(Yes) takes the pictures whose answer has one.
* Intervals are 95 %, from draws with replacement within class and label, averaged over classes draw by draw. Within a
  label the number of right answers of a draw is binomial, so it is drawn as such.
* ``always_yes``: what saying yes to every picture would score; a set with many defects flatters F1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov_lab.evaluation.held_out import share
from anomaly_ov_lab.evaluation.metrics import Interval, auroc, bootstrap_draws, percentile_interval

Float64 = npt.NDArray[np.float64]
RATES = ("accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy")
METRICS = (*RATES, "auroc_p_yes")


@dataclass(frozen=True)
class Verdict:
    """One answer to the detection question. ``label`` 0 or 1; ``yes``: what was read, None = neither."""

    category: str
    label: int
    yes: bool | None
    p_yes: float | None = None


@dataclass(frozen=True)
class AnswerGroup:
    """Figures of a class, of all pooled, or the mean over classes. ``values``: by metric, None = undefined."""

    name: str
    counts: dict[str, int]
    values: dict[str, float | None]
    intervals: dict[str, Interval | None]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        intervals = {name: list(value) if value else None for name, value in self.intervals.items()}
        return {"name": self.name, **self.counts, **self.values, "intervals": intervals}


@dataclass(frozen=True)
class Detection:
    """Of one phrasing."""

    mean: AnswerGroup
    pooled: AnswerGroup
    categories: tuple[AnswerGroup, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        groups = [one.to_json() for one in self.categories]
        return {"mean": self.mean.to_json(), "pooled": self.pooled.to_json(), "categories": groups}


def detection_figures(verdicts: Sequence[Verdict], draws: int = 2000, seed: int = 0) -> Detection:
    """Figures of the answers to one phrasing."""
    by: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by[verdict.category].append(verdict)
    parts = [_measured(name, of, draws, seed + k) for k, (name, of) in enumerate(by.items())]
    pooled, _ = _measured("pooled", verdicts, draws, seed)
    groups = tuple(group for group, _ in parts)
    mean = _mean(groups, [drawn for _, drawn in parts]) if parts else replace(pooled, name="mean")
    return Detection(mean, pooled, groups)


def always_yes(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """What "yes" to every picture would score, as mean over classes."""
    said = [Verdict(verdict.category, verdict.label, True, 1.0) for verdict in verdicts]
    return detection_figures(said, draws=0).mean.values


def over_phrasings(found: Sequence[Detection]) -> dict[str, dict[str, float | None]]:
    """Mean, standard deviation (n - 1) and range of the class means, by metric."""
    spread = {}
    for metric in METRICS:
        known = [value for one in found if (value := one.mean.values[metric]) is not None]
        deviation = float(np.std(known, ddof=1)) if len(known) > 1 else None
        spread[metric] = {
            "mean": float(np.mean(known)) if known else None,
            "sd": deviation,
            "low": min(known, default=None),
            "high": max(known, default=None),
        }
    return spread


def _measured(
    name: str, verdicts: Sequence[Verdict], draws: int, seed: int
) -> tuple[AnswerGroup, Mapping[str, Float64 | None]]:
    """A group's figures, and what they are in every draw."""
    anomalous = [verdict for verdict in verdicts if verdict.label]
    normal = [verdict for verdict in verdicts if not verdict.label]
    hits, passes = sum(v.yes is True for v in anomalous), sum(v.yes is False for v in normal)
    values: dict[str, float | None] = {
        metric: _known(value) for metric, value in _rates(hits, len(anomalous), passes, len(normal)).items()
    }
    told = [(v.label, v.p_yes) for v in verdicts if v.p_yes is not None]
    labels, scores = [label for label, _ in told], [score for _, score in told]
    values["auroc_p_yes"] = auroc(labels, scores) if told else None
    counts = {
        "n": len(verdicts),
        "normal": len(normal),
        "anomalous": len(anomalous),
        "true_positives": hits,
        "true_negatives": passes,
        "unread": sum(v.yes is None for v in verdicts),
        "with_p_yes": len(told),
    }
    drawn: dict[str, Float64 | None] = dict.fromkeys(METRICS)
    if draws:
        rng = np.random.default_rng(seed)
        drawn |= _rates(
            _binomial(rng, hits, len(anomalous), draws), len(anomalous),
            _binomial(rng, passes, len(normal), draws), len(normal),
        )  # fmt: skip
        drawn["auroc_p_yes"] = bootstrap_draws(labels, scores, "auroc", draws, seed) if told else None
    return AnswerGroup(name, counts, values, {metric: _interval(drawn[metric]) for metric in METRICS}), drawn


def _rates(hits: Any, anomalous: int, passes: Any, normal: int) -> dict[str, Float64]:
    """The rates from right answers among anomalous and normal pictures, numbers or arrays; nan = undefined."""
    hits, passes = np.asarray(hits, dtype=np.float64), np.asarray(passes, dtype=np.float64)
    alarms, total = normal - passes, anomalous + normal
    said = hits + alarms
    nothing = np.full_like(hits, np.nan)
    recall = hits / anomalous if anomalous else nothing
    specificity = passes / normal if normal else nothing
    return {
        "accuracy": (hits + passes) / total if total else nothing,
        "precision": np.where(said > 0, hits / np.maximum(said, 1), 0.0) if anomalous else nothing,
        "recall": recall,
        "f1": 2 * hits / (said + anomalous) if anomalous else nothing,
        "specificity": specificity,
        "balanced_accuracy": (recall + specificity) / 2,
    }


def _binomial(rng: np.random.Generator, right: int, total: int, draws: int) -> Float64:
    return rng.binomial(total, right / total if total else 0.0, draws).astype(np.float64)


def _mean(groups: Sequence[AnswerGroup], drawn: Sequence[Mapping[str, Float64 | None]]) -> AnswerGroup:
    values: dict[str, float | None] = {}
    intervals: dict[str, Interval | None] = {}
    for metric in METRICS:
        known = [value for group in groups if (value := group.values[metric]) is not None]
        values[metric] = float(np.mean(known)) if known else None
        of = [draw for one in drawn if (draw := one[metric]) is not None and not np.isnan(draw).any()]
        intervals[metric] = _interval(np.mean(of, axis=0)) if of else None
    counts = {name: sum(group.counts[name] for group in groups) for name in groups[0].counts}
    return AnswerGroup("mean", counts | {"classes": len(groups)}, values, intervals)


def _interval(drawn: Float64 | None) -> Interval | None:
    return None if drawn is None or np.isnan(drawn).any() else percentile_interval(drawn)


def _known(value: Float64) -> float | None:
    return None if np.isnan(value) else float(value)


# --- free text ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grades:
    """Scores of free-text answers, by metric; a grade that is missing is left out. ``values``: None = no grade."""

    category: str
    values: dict[str, float | None]


def open_figures(grades: Sequence[Grades], draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Per metric the mean over classes with its interval, the pooled mean, and how many were graded; JSON-ready."""
    metrics = tuple(dict.fromkeys(metric for one in grades for metric in one.values))
    found: dict[str, Any] = {"n": len(grades)}
    for metric in metrics:
        by: dict[str, list[float]] = defaultdict(list)
        for one in grades:
            value = one.values.get(metric)
            if value is not None:
                by[one.category].append(value)
        rng = np.random.default_rng(seed)
        means = [float(np.mean(values)) for values in by.values()]
        drawn = [np.asarray(values)[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
                 for values in by.values()]  # fmt: skip
        everything = [value for values in by.values() for value in values]
        found[metric] = {
            "mean": float(np.mean(means)) if means else None,
            "interval": list(percentile_interval(np.mean(drawn, axis=0))) if means and draws else None,
            "pooled": float(np.mean(everything)) if everything else None,
            "graded": len(everything),
            "categories": dict(zip(by, means, strict=True)),
        }
    return found


# --- choices --------------------------------------------------------------------------------------------------------

BALANCED_TOPIC = "Anomaly Detection"
"""The type of MMAD's yes/no question; its released summary averages normal and anomalous pictures there."""


@dataclass(frozen=True)
class ChoiceAnswer:
    """One choice. ``right``: whether it was; ``truth``: the right option's text; ``unread``: no letter was read."""

    topic: str
    truth: str
    options: int
    right: bool
    unread: bool


def choice_figures(choices: Sequence[ChoiceAnswer]) -> dict[str, Any]:
    """Accuracy per question type with its Wilson interval, their mean, and what guessing would get; JSON-ready.

    ``balanced_accuracy`` of "Anomaly Detection" is the mean over its right answers (yes, no), None where all have the
    same; ``mean_balanced`` takes it instead of that type's accuracy. An answer without a letter is wrong.
    """
    by: dict[str, list[ChoiceAnswer]] = defaultdict(list)
    for one in choices:
        by[one.topic or "choice"].append(one)
    types = {topic: _of_topic(topic, of) for topic, of in by.items()}
    balanced = [value for of in types.values() if (value := of.get("balanced_accuracy", of["accuracy"])) is not None]
    return {
        "n": len(choices),
        "unread": sum(one.unread for one in choices),
        "mean": float(np.mean([of["accuracy"] for of in types.values()])) if types else None,
        "mean_balanced": float(np.mean(balanced)) if balanced else None,
        "chance": float(np.mean([of["chance"] for of in types.values()])) if types else None,
        "types": types,
    }


def _of_topic(topic: str, choices: Sequence[ChoiceAnswer]) -> dict[str, Any]:
    right = share([one.right for one in choices])
    found: dict[str, Any] = {
        "n": right["n"],
        "unread": sum(one.unread for one in choices),
        "accuracy": right["share"],
        "interval": right["interval"],
        "chance": float(np.mean([1 / one.options for one in choices])),
    }
    if topic == BALANCED_TOPIC:
        by: dict[str, list[bool]] = defaultdict(list)
        for one in choices:
            by[one.truth.strip(". ").lower()].append(one.right)
        found["balanced_accuracy"] = float(np.mean([np.mean(of) for of in by.values()])) if len(by) > 1 else None
    return found
