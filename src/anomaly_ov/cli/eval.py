"""``anomaly-ov eval detect``: measure a model on labelled pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anomaly_ov.cli.console import note, stdout_console
from anomaly_ov.errors import UsageError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure a model on labelled pictures.")


@app.callback()
def evaluate() -> None:
    """Measure a model on labelled pictures."""


@app.command()
def detect(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of a labelled set, or a .jsonl list; repeatable.")],
    model: Annotated[str, typer.Option("--model", help="Name or folder of a model.")] = "tiny",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for rows, maps and metrics; the same call goes on from it.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Most pictures per forward pass.")] = 8,
    include_train: Annotated[
        bool, typer.Option("--include-train", help="Also measure the normals of the train split.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap intervals.")] = 0,
    summary: Annotated[
        Path | None, typer.Option("--summary", help="Write the figures of all sets into one JSON file.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """Image and pixel figures of a detector, with 95 % bootstrap intervals, per category, as their mean and pooled."""
    from anomaly_ov.data.layouts import discover
    from anomaly_ov.evaluation import report
    from anomaly_ov.evaluation.detect import evaluate_detection
    from anomaly_ov.files import write_atomic
    from anomaly_ov.inspector import load

    if summary is not None and not summary.parent.is_dir():  # said now rather than when all is measured
        raise UsageError(f"no folder {summary.parent} for --summary", hint="make it first")
    sets = [discover(path) for path in data]
    if out is not None and len({one.name for one in sets}) < len(sets):
        raise UsageError(
            f"two sets of one name: {', '.join(one.name for one in sets)}", hint="measure them in separate calls"
        )
    detector = load(model, device, dtype)
    results = []
    for one in sets:
        folder = None if out is None else out / one.name
        result = evaluate_detection(
            detector, one, folder, batch_size, progress=True, include_train=include_train, seed=seed
        )
        results.append(result)
        if folder is not None:
            note(f"rows, maps and metrics in {folder}")
    if summary is not None:
        write_atomic(summary, (json.dumps([result.to_json() for result in results], indent=1) + "\n").encode())
        note(f"figures of {len(results)} sets in {summary}")
    if markdown:
        print(report.markdown(results))
    else:
        report.print_report(results, stdout_console())
