"""``anomaly-ov data``: what a data set is and what is wrong with it; any data set as an MVTec-style tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly_ov.cli.console import Bar, note, stdout_console
from anomaly_ov.images.messages import counted

if TYPE_CHECKING:
    from rich.console import Console

    from anomaly_ov_lab.data.check import Remark, Report, SetReport

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look at data sets, and convert them.")


@app.callback()
def data() -> None:
    """Look at data sets, and convert them."""


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Folder of one data set or of several, or a list.")],
    against: Annotated[
        list[Path] | None, typer.Option("--against", help="Another set that must share no picture; repeatable.")
    ] = None,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Also decode every picture and look for look-alikes.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Say what was understood of a data set, and what is wrong with it.

    Counts; missing, broken, empty and misshapen masks; unreadable pictures; duplicates, look-alikes, label conflicts;
    pictures shared by training and test, or by sets. Exit codes: 0 clean, 1 problems found, 2 no data set.
    """
    from anomaly_ov_lab.data.check import check as check_sets
    from anomaly_ov_lab.data.layouts import discover_all

    sets = discover_all(path)
    others = [one for other in against or () for one in discover_all(other)]
    with Bar(None, "checking pictures") as bar:
        report = check_sets(sets, others, near, progress=bar.at)
    if as_json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        _print(report, stdout_console())
    if report.problems:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Folder or list of a data set, of any layout.")],
    out: Annotated[Path, typer.Argument(help="New folder for the MVTec-style tree.")],
    tile: Annotated[
        int | None, typer.Option("--tile", min=16, help="Cut the pictures into squares of this side, in pixels.")
    ] = None,
) -> None:
    """Write any data set as an MVTec-style tree; draws COCO's outlines as masks, cuts AITEX's strips into tiles."""
    from anomaly_ov_lab.data.convert import convert as convert_set

    with Bar(None, "converting") as bar:
        done = convert_set(source, out, tile, progress=bar.at)
    for line in done.notes:
        note(line)
    note(f"{done.pictures} pictures and {done.masks} masks written to {out}")


def _print(report: Report, console: Console) -> None:
    for one in report.sets:
        _print_title(f"{one.name}: layout {one.layout}, {one.root}", console)
        _print_counts(one, console)
        _print_remarks(one.remarks, console)
        console.print()
    for overlap in report.overlaps:
        _print_title(f"{overlap.first} and {overlap.second}", console)
        _print_remarks(overlap.remarks, console)
        console.print()
    kinds = f"{counted(report.problems, 'kind')} of problems"
    verdict = kinds if report.problems else "no problems"
    console.print(verdict, style="red" if report.problems else "green", highlight=False)


def _print_title(title: str, console: Console) -> None:
    from anomaly_ov.images.messages import printable

    console.print(printable(title), style="bold", markup=False, highlight=False)


def _print_counts(one: SetReport, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from anomaly_ov.images.messages import printable

    columns = ("normal", "anomalous", "unknown", "masks")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("category", overflow="fold")
    table.add_column("split")
    for column in columns:
        table.add_column(column, justify="right")
    for count in one.counts:
        numbers = [str(getattr(count, column)) for column in columns]
        table.add_row(Text(printable(count.category)), count.split or "-", *numbers)
    if len(one.counts) > 1:
        totals = [str(sum(getattr(count, column) for count in one.counts)) for column in columns]
        table.add_row("all", "", *totals, style="bold")
    console.print(table)


def _print_remarks(remarks: Sequence[Remark], console: Console) -> None:
    from rich.text import Text

    for remark in remarks:
        examples = "; ".join(remark.examples) + ("; ..." if remark.count > len(remark.examples) > 1 else "")
        start = Text("problem " if remark.problem else "note    ", style="red" if remark.problem else "dim")
        console.print(start.append(f"{remark.kind}: {remark.count} ({examples})", style="default"))
