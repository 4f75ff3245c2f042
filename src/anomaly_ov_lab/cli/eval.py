"""``anomaly-ov eval detect``: measure a model on labelled pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly_ov.cli import contexts
from anomaly_ov.cli.console import Bar, note, print_error, stdout_console
from anomaly_ov.errors import UsageError
from anomaly_ov_lab.cli import ablation, eval_reason

if TYPE_CHECKING:
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.records import Detector
    from anomaly_ov_lab.data.samples import DataSet

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure a model on labelled pictures.")


@app.callback()
def evaluate() -> None:
    """Measure a model on labelled pictures."""


@app.command()
def detect(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of a labelled set, or a .jsonl list; repeatable.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Name or folder of a model, or a baseline: 'anomaly-ov baselines list' names them."
        ),
    ] = "tiny",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for rows, maps, metrics and a report; the same call goes on from it."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Most pictures per forward pass.")] = 8,
    include_train: Annotated[
        bool, typer.Option("--include-train", help="Also measure the normals of the train split.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap intervals.")] = 0,
    context: Annotated[
        str,
        typer.Option(
            *contexts.OPTION,
            help="What else says what is normal, per category: none; folder = the measured pictures among themselves "
            "(transductive); refs:K = K good pictures, drawn and then not measured. "
            f"{contexts.OLD_NAME}",
        ),
    ] = "none",
    draw: Annotated[int, typer.Option("--draw", min=0, help="Seed by which refs:K are drawn.")] = 0,
    summary: Annotated[
        Path | None, typer.Option("--summary", help="Write the figures of all sets into one JSON file.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """Image and pixel figures of a detector, with 95 % bootstrap intervals, per category, as their mean and pooled."""
    from anomaly_ov.files import write_atomic
    from anomaly_ov.inspector import Inspector, load
    from anomaly_ov_lab.baselines.load import is_baseline, load_baseline, told
    from anomaly_ov_lab.data.layouts import discover
    from anomaly_ov_lab.evaluation import report
    from anomaly_ov_lab.evaluation.detect import evaluate_detection
    from anomaly_ov_lab.evaluation.page import page

    wanted = _context(context)
    if summary is not None and not summary.parent.is_dir():  # said now rather than when all is measured
        raise UsageError(f"no folder {summary.parent} for --summary", hint="make it first")
    sets = [discover(path) for path in data]
    for one in sets:
        note(f"{one.name}: {len(one)} pictures, read as {one.layout}")
        for left_out in one.notes:
            note(f"  {left_out}")
    if out is not None and len({one.name for one in sets}) < len(sets):
        raise UsageError(
            f"two sets of one name: {', '.join(one.name for one in sets)}", hint="measure them in separate calls"
        )
    baseline = is_baseline(model)
    if baseline and context != "none":
        raise UsageError(f"--references {context} is for our own models", hint="leave it out with a baseline")
    inspector = load_baseline(model, device, dtype) if baseline else load(model, device, dtype)
    results = []
    for one in sets:
        folder = None if out is None else out / one.name
        try:
            if isinstance(inspector, Inspector):
                detector, tested = _with_context(wanted, inspector, one, draw, batch_size, include_train)
            else:
                detector, tested = told(inspector, {str(one.id_of(s)): s.category for s in one}), one
            with Bar(None, one.name) as bar:
                result = evaluate_detection(
                    detector, tested, folder, batch_size, bar.at, include_train=include_train, seed=seed
                )
        except KeyboardInterrupt:
            _say_interrupted(one, folder)
            raise typer.Exit(130) from None
        results.append(result)
        if folder is not None:
            _, written = page.write_report(folder, result)
            note(f"rows, maps and metrics in {folder}; look at {written}")
    if summary is not None:
        write_atomic(summary, (json.dumps([result.to_json() for result in results], indent=1) + "\n").encode())
        note(f"figures of {len(results)} sets in {summary}")
    if markdown:
        print(report.markdown(results))
    else:
        report.print_report(results, stdout_console())


def _say_interrupted(dataset: DataSet, folder: Path | None) -> None:
    from anomaly_ov_lab.evaluation.run_folder import ROWS_NAME

    if folder is None:
        print_error(f"interrupted while measuring {dataset.name}", "with --out DIR a run can be continued")
        return
    rows = folder / ROWS_NAME
    done = rows.read_bytes().count(b"\n") if rows.is_file() else 0
    print_error(
        f"interrupted while measuring {dataset.name}: {done} pictures scored, kept in {rows}",
        "the same command goes on from there",
    )


@dataclass(frozen=True)
class _Context:
    """``--references``: none, the folder's own, or so many references."""

    folder: bool = False
    references: int = 0


def _context(text: str) -> _Context:
    """What ``--references`` asks for. Raises ``UsageError`` for anything else."""
    if text in ("none", "folder"):
        return _Context(folder=text == "folder")
    name, _, number = text.partition(":")
    if name == "refs" and number.isdecimal() and int(number) > 0:
        return _Context(references=int(number))
    raise UsageError(f"--references {text} is not known here", hint="none, folder, or refs:K with K of 1 or more")


def _with_context(
    wanted: _Context, inspector: Inspector, dataset: DataSet, draw: int, batch_size: int, include_train: bool
) -> tuple[Detector, DataSet]:
    """The inspector as it is to be measured, and the pictures to measure it on."""
    if not wanted.folder and not wanted.references:
        return inspector, dataset
    from anomaly_ov_lab.evaluation.with_context import with_folder_context, with_references

    note(f"looking at what is normal in {dataset.name}")
    if wanted.folder:
        return with_folder_context(inspector, dataset, batch_size, include_train), dataset
    return with_references(inspector, dataset, wanted.references, draw, batch_size, include_train)


app.command()(eval_reason.reason)
app.command()(ablation.ablation)
