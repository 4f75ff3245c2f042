from __future__ import annotations

from typing import Any

from rich.console import Console

from anomaly_ov.records import ModelInfo
from anomaly_ov_lab.evaluation.detect import DetectionResult
from anomaly_ov_lab.evaluation.figures import Figures, figures_of, mean_of
from anomaly_ov_lab.evaluation.pixel_metrics import PixelMetrics
from anomaly_ov_lab.evaluation.report import COLUMNS, markdown, print_report, rows
from anomaly_ov_lab.evaluation.run_folder import Row

INFO = ModelInfo("m", "r", "cpu", "float32")


def _row(score: float) -> Row:
    return Row("x", "sha", INFO, score=score, score_raw=score / 2, threshold=0.5)


def _figures(name: str, labels: list[int], pixels: PixelMetrics | None = None) -> Figures:
    scores = [_row(0.2 + 0.1 * i) for i in range(len(labels))]
    return figures_of(name, scores, labels, draws=50, pixels=pixels)


def _result(categories: list[Figures], **changes: Any) -> DetectionResult:
    several = len(categories) > 1
    values: dict[str, Any] = {
        "dataset": "set",
        "layout": "folders",
        "model": INFO,
        "threshold_source": None,
        "counts": {},
        "categories": tuple(categories),
        "main": mean_of(categories) if several else categories[0],
        "pooled": categories[0],
        "distinct": None,
        "uncertain": None,
        "speed": {"scored": 3, "seconds": 1.0, "images_per_second": 3.0},
        "notes": (),
        "provenance": {},
    }
    return DetectionResult(**values | changes)


def test_one_category_is_one_line_with_undefined_as_dash() -> None:
    pixels = PixelMetrics(0.5, 0.25, 0.125, 0.3, 4, 1, 100, 10)
    (cells,) = rows([_result([_figures("a", [0, 1, 0, 1], pixels)])])
    shown = dict(zip(COLUMNS, cells, strict=True))
    assert shown["set"] == "set"
    assert shown["normal / anomalous"] == "2 / 2"
    assert shown["AUROC [95 %]"].startswith("75.0 [")
    assert shown["head"] == "75.0"
    assert shown["map"] == "-"
    assert (shown["pixel AUROC"], shown["pixel AP"], shown["PRO"]) == ("50.0", "25.0", "12.5")
    assert (shown["bal. acc."], shown["false alarms"], shown["misses"]) == ("75.0", "0.0", "50.0")
    assert shown["images/s"] == "3.0"


def test_mean_pooled_and_categories() -> None:
    categories = [_figures("a", [0, 1, 0, 1]), _figures("b", [0, 0, 1, 1]), _figures("c", [0, 0])]
    found = rows([_result(categories, distinct=_figures("distinct files", [0, 1]))], per_category=True)
    assert [cells[0] for cells in found] == [
        "set (mean of 2)",
        "set, pooled",
        "set, distinct files",
        "  a",
        "  b",
        "  c",
    ]
    assert found[0][2].startswith("87.5 [")  # (75 + 100) / 2: the category with one label takes no part
    assert found[0][1] == "6 / 4"
    assert found[5][2] == "-"


def test_markdown_is_a_table_followed_by_notes() -> None:
    text = markdown([_result([_figures("a", [0, 1])], dataset="x|y", notes=("mask is empty: 4",))])
    lines = text.splitlines()
    assert lines[0].count("|") == lines[1].count("|") == len(COLUMNS) + 1
    assert lines[2].startswith(r"| x\|y |")
    assert lines[-1] == "- x|y: mask is empty: 4"
    assert lines[-2] == ""


def test_terminal_table_shows_sets_and_notes() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report([_result([_figures("a", [0, 1])], notes=("note [x]",))], console)
    text = console.export_text()
    assert "set" in text
    assert "note [x]" in text


def test_mean_of_categories_without_any_defined_figure() -> None:
    mean = mean_of([_figures("a", [0, 0]), _figures("b", [1, 1])])
    assert mean.categories == 0
    assert mean.scores["score"].auroc is None
    assert mean.scores["score"].interval is None
    assert mean.pixels is None


def test_names_are_no_markup() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report([_result([_figures("a", [0, 1])], dataset="[/b] [red]set")], console)
    assert "[/b] [red]set" in console.export_text()


def test_names_that_cannot_be_printed_are_escaped() -> None:
    result = _result([_figures("a\x1b[31m", [0, 1]), _figures("b", [0, 1])], dataset="set\udcff", notes=("x\ny",))
    text = markdown([result], per_category=True)
    assert text.encode()
    assert "\x1b" not in text
    assert text.rstrip().splitlines()[-1] == r"- 'set\udcff: x\ny'"
