"""Figures of answers as tables, in Markdown: yes and no in percent, ROUGE-L and similarity as they are, grades of 10.

"-" stands for what is undefined or was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anomaly_ov.images.messages import printable
from anomaly_ov_lab.evaluation.report import markdown_table, percent
from anomaly_ov_lab.evaluation.text.figures import METRICS, AnswerGroup
from anomaly_ov_lab.evaluation.text.judge import HIGHEST
from anomaly_ov_lab.evaluation.text.result import ReasoningResult

DETECTION = ("set", "question", "normal / anomalous", "accuracy", "precision", "recall", "F1", "specificity",
             "bal. acc.", "AUROC of P(Yes)", "unread")  # fmt: skip
FREE_TEXT = ("set", "level", "questions", "ROUGE-L", "SBERT", f"judge (of {HIGHEST})", "graded")
CHOICES = ("set", "type", "questions", "accuracy", "bal. acc.", "guessing", "unread")
_SHOWN_INTERVALS = ("f1", "balanced_accuracy", "auroc_p_yes")

Rows = list[tuple[str, ...]]


def tables(results: Sequence[ReasoningResult], per_category: bool = False) -> list[tuple[str, tuple[str, ...], Rows]]:
    """(title, columns, rows) of each table that has rows. ``per_category``: classes too, of the first phrasing."""
    detection = [row for result in results if result.detection for row in _detection(result, per_category)]
    free_text = [row for result in results for row in _free_text(result)]
    choices = [row for result in results if result.choices for row in _choices(result.questions.name, result.choices)]
    made = (
        ("yes or no, %, means over classes", DETECTION, detection),
        ("free text, means over classes", FREE_TEXT, free_text),
        ("choices, %", CHOICES, choices),
    )
    # Names and questions come from files: what cannot be printed is escaped.
    return [(title, columns, [tuple(map(printable, row)) for row in rows]) for title, columns, rows in made if rows]


def markdown(results: Sequence[ReasoningResult], per_category: bool = False) -> str:
    """All tables, then which model answered and how, then the notes."""
    lines: list[str] = []
    for title, columns, rows in tables(results, per_category):
        lines += [f"**{title}**", "", *markdown_table(columns, rows), ""]
    lines += [f"- {line}" for result in results for line in remarks(result)]
    return "\n".join(lines) + "\n"


def remarks(result: ReasoningResult) -> list[str]:
    """Who answered, how answers were read and graded, and the notes, one line each."""
    name = result.questions.name
    said = [f"{name}: answered by {result.model.name} {result.model.revision} ({result.settings})"]
    if result.detection:
        said.append(f"{name}: answers read by the {result.parser} rule")
    if result.similarity:
        said.append(f"{name}: SBERT by {result.similarity['name']} {result.similarity['revision']}")
    if result.judge:
        said.append(
            f"{name}: judge {result.judge['model']} at {result.judge['base_url']}, prompt {result.judge['prompt']}, "
            f"{result.judge['graded']} graded, {result.judge['failed']} failed"
        )
    return [printable(line) for line in [*said, *(f"{name}: {note}" for note in result.notes)]]


def _detection(result: ReasoningResult, per_category: bool) -> Rows:
    name, first = result.questions.name, result.detection[0]
    rows = [
        _group(name, text, one.mean) for text, one in zip(result.questions.phrasings, result.detection, strict=True)
    ]
    if result.spread is not None:
        cells = [_spread(result.spread[metric]) for metric in METRICS]
        rows.append((name, f"mean ± sd over {len(result.detection)} questions", _labels(first.mean), *cells, "-"))
    if result.always_yes is not None:
        cells = [percent(result.always_yes[metric]) for metric in METRICS]
        rows.append((name, "always Yes", _labels(first.mean), *cells, "-"))
    if len(first.categories) > 1:
        rows.append(_group(name, "pooled, first question", first.pooled))
        if per_category:
            rows += [_group(f"{name}, {one.name}", "first question", one) for one in first.categories]
    return rows


def _group(name: str, question: str, group: AnswerGroup) -> tuple[str, ...]:
    cells = []
    for metric in METRICS:
        interval = group.intervals[metric] if metric in _SHOWN_INTERVALS else None
        cell = percent(group.values[metric])
        cells.append(f"{cell} [{percent(interval.low)}, {percent(interval.high)}]" if interval else cell)
    return (name, question, _labels(group), *cells, str(group.counts["unread"]))


def _labels(group: AnswerGroup) -> str:
    return f"{group.counts['normal']} / {group.counts['anomalous']}"


def _free_text(result: ReasoningResult) -> Rows:
    name = result.questions.name
    return [
        (name, level, str(found["n"]), _graded(found, "rouge_l"), _graded(found, "sbert"), _graded(found, "judge"),
         str(found["judge"]["graded"]) if "judge" in found else "-")
        for level, found in result.free_text.items()
    ]  # fmt: skip


def _graded(found: Mapping[str, Any], metric: str) -> str:
    of = found.get(metric)
    if of is None or of["mean"] is None:
        return "-"
    interval = of["interval"]
    return f"{of['mean']:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _choices(name: str, found: Mapping[str, Any]) -> Rows:
    rows = []
    for topic, of in found["types"].items():
        accuracy = f"{percent(of['accuracy'])} [{percent(of['interval'][0])}, {percent(of['interval'][1])}]"
        balanced = percent(of.get("balanced_accuracy"))
        rows.append((name, topic, str(of["n"]), accuracy, balanced, percent(of["chance"]), str(of["unread"])))
    mean = (percent(found["mean"]), percent(found["mean_balanced"]), percent(found["chance"]))
    return [*rows, (name, "mean over types", str(found["n"]), *mean, str(found["unread"]))]


def _spread(of: Mapping[str, float | None]) -> str:
    return percent(of["mean"]) + (f" ± {percent(of['sd'])}" if of["sd"] is not None else "")
