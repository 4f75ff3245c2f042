"""``anomaly-ov compare``: is one run better than another on the same pictures?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from anomaly_ov.cli.console import note, print_json_line, stdout_console
from anomaly_ov.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from anomaly_ov_lab.evaluation.compare import ComparedGroup, Comparison, Difference

app = typer.Typer(add_completion=False)
_NAMES = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1_max": "F1-max",
    "balanced_accuracy": "balanced accuracy",
    "specificity": "specificity",
    "calibration_error": "calibration error (less is better)",
    "pro": "PRO",
}


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="Folder of 'eval detect --out', or of one of its sets.")],
    run_b: Annotated[Path, typer.Argument(help="The run to compare it with.")],
    score: Annotated[
        str, typer.Option("--score", help="score, score_raw, score_map, score_expert or score_context.")
    ] = "score",
    draws: Annotated[int, typer.Option("--draws", min=100, help="Resamples of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record per set.")] = False,
) -> None:
    """Two runs over the same pictures: differences with paired 95 % intervals and p-values, per class and as mean."""
    from anomaly_ov_lab.evaluation.compare import compare_runs
    from anomaly_ov_lab.evaluation.figures import SCORE_NAMES, ScoreName

    names: dict[str, ScoreName] = {name: name for name in get_args(ScoreName)}
    if score not in names:
        raise UsageError(f"--score {score} is not known here", hint=f"one of {', '.join(SCORE_NAMES)}")
    for found in compare_runs(run_a, run_b, names[score], draws, seed):
        if as_json:
            print_json_line(found.to_json())
        else:
            _show(found)


def _show(found: Comparison) -> None:
    console = stdout_console()
    for letter, side in (("A", found.a), ("B", found.b)):
        threshold = "no threshold" if side.threshold is None else f"threshold {side.threshold:.4g}"
        origin = f" ({side.threshold_source})" if side.threshold_source else ""
        context = side.context or "no context"
        text = f"{letter}: {side.model}, {threshold}{origin}, {context}; {side.run}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(_table(found))
    for line in [*found.left_out.lines(), *found.notes]:
        note(f"{found.dataset}: {line}")


def _table(found: Comparison) -> Table:
    from rich.table import Table

    title = f"{found.dataset}: {found.pictures} common pictures, {found.score}, %"
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(("", "metric", "A", "B", "A - B [95 %]", "p")):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=index != 0)
    main = found.main
    both = sum(bool(group.normal and group.anomalous) for group in found.categories)
    name = f"mean of {both} classes" if found.mean else "all"
    for metric, value in main.metrics.items():
        _add(table, name, _NAMES[metric], value)
        name = ""
    for metric, value in (found.pixels or {}).items():
        _add(table, "", f"pixel {_NAMES[metric]}", value)
    if found.mean:
        for group in (found.pooled, *found.categories):
            _add(table, _counted(group), _NAMES["auroc"], group.metrics["auroc"])
    return table


def _counted(group: ComparedGroup) -> str:
    return f"{group.name} ({group.normal} / {group.anomalous})"


def _add(table: Table, name: str, metric: str, value: Difference) -> None:
    from rich.markup import escape

    if value.a is None and value.b is None and metric != _NAMES["auroc"]:
        return
    between = "-" if value.difference is None else f"{100 * value.difference:+.1f}"
    if value.interval is not None:
        between += f" [{100 * value.interval[0]:+.1f}, {100 * value.interval[1]:+.1f}]"
    p_value = "-" if value.p_value is None else f"{value.p_value:.4f}"
    table.add_row(escape(name), metric, _percent(value.a), _percent(value.b), between, p_value)


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f}"
