"""Results as tables: markdown for files, rich for terminals. Figures in percent, "-" where undefined.

A set measured with a context says so beside its name; a folder's own context is called transductive.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomaly_ov.images.messages import printable
from anomaly_ov_lab.evaluation.detect import DetectionResult
from anomaly_ov_lab.evaluation.figures import Figures

COLUMNS = (
    "set",
    "normal / anomalous",
    "AUROC [95 %]",
    "head",
    "map",
    "AP",
    "F1-max",
    "bal. acc.",
    "false alarms",
    "misses",
    "ECE",
    "pixel AUROC",
    "pixel AP",
    "pixel F1-max",
    "PRO",
    "images/s",
)
ALONE = "alone"
"""AUROC of the same pictures by themselves; its column follows that of the score where any result has a context."""


def columns(results: Sequence[DetectionResult]) -> tuple[str, ...]:
    """``COLUMNS``, with ``ALONE`` in its place if any result has a context."""
    return (*COLUMNS[:3], ALONE, *COLUMNS[3:]) if _with_context(results) else COLUMNS


def rows(results: Sequence[DetectionResult], per_category: bool = False) -> list[tuple[str, ...]]:
    """The cells below ``columns``: per set its main figure, then what differs from it, then (if asked) its categories.

    Balanced accuracy, false alarms (share of the normal pictures) and misses (share of the anomalous ones) are at the
    detector's own threshold, all pictures pooled; ECE, the expected calibration error, takes the score for a
    probability.
    """
    alone = _with_context(results)
    return [cells for result in results for cells in _of_result(result, per_category, alone)]


def markdown(results: Sequence[DetectionResult], per_category: bool = False) -> str:
    """A markdown table of ``results``, followed by one line per note."""
    lines = markdown_table(columns(results), rows(results, per_category))
    notes = [f"- {printable(f'{result.dataset}: {note}')}" for result in results for note in result.notes]
    return "\n".join([*lines, "", *notes] if notes else lines) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, signs of its own escaped."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(columns)} |", f"|{'-|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in cells)]


def terminal_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> Table:
    """A table for a terminal; the first ``names`` columns hold names, the others figures."""
    shown = Table(title=title)
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index < names else "right", no_wrap=index == 0)
    for row in rows:
        shown.add_row(*map(Text, row))  # names come from folders and files: never read as rich's markup
    return shown


def print_report(
    results: Sequence[DetectionResult], console: Console | None = None, per_category: bool = False
) -> None:
    """Prints the table and the notes to ``console`` (stdout by default)."""
    console = console or Console()
    console.print(terminal_table("detection, %", columns(results), rows(results, per_category)))
    for result in results:
        for note in result.notes:
            console.print(printable(f"{result.dataset}: {note}"), style="dim", markup=False, highlight=False)


def _with_context(results: Sequence[DetectionResult]) -> bool:
    return any(result.contexts for result in results)


def _of_result(result: DetectionResult, per_category: bool, alone: bool) -> list[tuple[str, ...]]:
    several = len(result.categories) > 1
    label = "" if result.context_label is None else f", {result.context_label}"
    name = f"{result.dataset}{label}{f' (mean of {result.main.categories})' if several else ''}"
    found = [_cells(name, result.main, alone, _speed(result), result.pooled)]
    if several:
        found.append(_cells(f"{result.dataset}{label}, pooled", result.pooled, alone))
    for extra in (result.distinct, result.uncertain):
        if extra is not None:
            found.append(_cells(f"{result.dataset}{label}, {extra.name}", extra, alone))
    if several and per_category:
        found += [_cells(f"  {figures.name}", figures, alone) for figures in result.categories]
    return found


def _cells(
    name: str, figures: Figures, alone: bool, speed: str = "-", point_of: Figures | None = None
) -> tuple[str, ...]:
    scores, pixels = figures.scores, figures.pixels
    point = (point_of or figures).at_threshold
    interval = scores["score"].interval
    main = percent(scores["score"].auroc)
    return (
        printable(name),
        f"{figures.normal} / {figures.anomalous}",
        f"{main} [{percent(interval.low)}, {percent(interval.high)}]" if interval else main,
        *([percent(scores["score_expert"].auroc)] if alone else []),
        percent(scores["score_raw"].auroc),
        percent(scores["score_map"].auroc),
        percent(scores["score"].average_precision),
        percent(scores["score"].f1_max),
        percent(point.balanced_accuracy if point else None),
        percent(point.false_alarms if point else None),
        percent(point.misses if point else None),
        percent(scores["score"].calibration_error),
        percent(pixels.auroc if pixels else None),
        percent(pixels.average_precision if pixels else None),
        percent(pixels.f1_max if pixels else None),
        percent(pixels.pro if pixels else None),
        speed,
    )


def _speed(result: DetectionResult) -> str:
    rate = result.speed["images_per_second"]
    return "-" if rate is None else f"{rate:.1f}"


def percent(value: float | None) -> str:
    """In percent, "-" where undefined."""
    return "-" if value is None else f"{100 * value:.1f}"
