"""``anomaly-ov inspect``: pictures in, a table or JSON lines out, overlays and maps into a folder."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from anomaly_ov.cli.console import Bar, note, print_error, print_json_line, stdout_console
from anomaly_ov.errors import UsageError

if TYPE_CHECKING:
    from anomaly_ov.cli.outputs import Outputs
    from anomaly_ov.images.sources import Source
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.records import Finding, ModelInfo, Threshold

app = typer.Typer(add_completion=False)
BAR_CELLS = 12


@dataclass
class Tally:
    """What a run found so far; decides the exit code."""

    done: int = 0
    anomalous: int = 0
    unreadable: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, finding: Finding) -> None:
        """Counts one finding."""
        self.done += 1
        self.anomalous += bool(finding.anomalous)
        self.unreadable += finding.error is not None

    def exit_code(self, fail_on_anomaly: bool) -> int:
        """3 some inputs unreadable, else 1 anomaly found if that counts as failure, else 0."""
        if self.unreadable:
            return 3
        return 1 if fail_on_anomaly and self.anomalous else 0


@app.command()
def inspect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, globs, or - for stdin.")],
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a model folder.")] = "tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Most pictures per forward pass.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record per picture and line on stdout.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for findings.jsonl, overlays and maps.")] = None,
    overlay: Annotated[bool | None, typer.Option(help="Write overlays to --out (on by default there).")] = None,
    map_format: Annotated[
        Literal["none", "png", "npy"], typer.Option("--map", help="Also write each map to --out.")
    ] = "none",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Score from which a picture counts as anomalous.")
    ] = None,
    fail_on_anomaly: Annotated[bool, typer.Option("--fail-on-anomaly", help="Exit 1 if any is anomalous.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pictures.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip pictures already in --out.")] = False,
) -> None:
    """Say how anomalous each picture is, and where.

    Exit codes: 0 done, 1 anomaly found (with --fail-on-anomaly), 2 usage, 3 some pictures unreadable, 4 weights
    missing, 5 device or memory, 130 interrupted.
    """
    if out is None and (overlay or map_format != "none" or resume):
        raise UsageError("--overlay, --map and --resume need a folder", hint="add --out DIR")
    from anomaly_ov.images.sources import expand
    from anomaly_ov.inspector import load

    sources = expand(paths)[:limit]
    jobs = _jobs(sources, out, resume)
    if not sources:
        raise UsageError(f"no pictures in {', '.join(paths)}", hint="give files, folders or globs of pictures")
    if not jobs:
        note(f"all {len(sources)} pictures are already in {out}")
        return
    inspector = load(model, device=device, dtype=dtype, threshold=threshold)
    tally, findings = Tally(), []
    drawn = out is not None and (overlay is not False or map_format != "none")
    results = _results(inspector, [source for _, source in jobs], batch_size, previews=drawn)
    folder = _outputs(out, overlay, map_format, resume, inspector.map_threshold)
    try:
        with folder as outputs, Bar(len(jobs), "inspecting", quiet=as_json) as bar:
            for (name, _), (finding, preview_HW3) in zip(jobs, results, strict=True):
                light = outputs.add(name, finding, preview_HW3) if outputs else replace(finding, significance_map=None)
                tally.add(light)
                if light.error is not None:
                    print_error(light.error.message, light.error.hint)
                if as_json:
                    print_json_line(light.to_json())
                else:
                    findings.append(light)
                bar.advance()
    except KeyboardInterrupt:
        _print_table(findings)
        _say_interrupted(tally, len(jobs), out)
        raise typer.Exit(130) from None
    finally:
        results.close()
    _print_table(findings)
    _say_done(tally, inspector.info, inspector.threshold, out)
    raise typer.Exit(tally.exit_code(fail_on_anomaly))


def _jobs(sources: list[Source], out: Path | None, resume: bool) -> list[tuple[str, Source]]:
    """(file stem, source) of each picture to do."""
    if out is None:
        return [("", source) for source in sources]
    from anomaly_ov.cli.outputs import finished_ids, unique_names

    finished = finished_ids(out) if resume else set()
    return [(n, s) for n, s in zip(unique_names(sources), sources, strict=True) if s.id not in finished]


def _results(
    inspector: Inspector, sources: list[Source], batch_size: int, *, previews: bool
) -> Generator[tuple[Finding, Any], None, None]:
    if previews:
        yield from inspector.stream_with_previews(sources, batch_size)
    else:
        yield from ((finding, None) for finding in inspector.stream(sources, batch_size))


def _outputs(
    out: Path | None, overlay: bool | None, map_format: str, resume: bool, map_threshold: float
) -> AbstractContextManager[Outputs | None]:
    if out is None:
        return nullcontext(None)
    from anomaly_ov.cli.outputs import Outputs

    wanted = overlay is not False
    return Outputs(out, overlay=wanted, map_format=map_format, map_threshold=map_threshold, append=resume)


def _print_table(findings: list[Finding]) -> None:
    if not findings:
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("picture", overflow="fold")
    table.add_column("score", no_wrap=True)
    table.add_column("anomalous", no_wrap=True)
    table.add_column("suspicion", no_wrap=True)
    table.add_column("regions", justify="right", no_wrap=True)
    for finding in findings:
        table.add_row(*_row(finding))
    stdout_console().print(table)


def _row(finding: Finding) -> tuple[Any, ...]:
    from rich.text import Text

    if finding.error is not None or finding.score is None:
        return Text(finding.id), Text("unreadable", "red"), Text("-"), Text("-"), Text("-")
    filled = round(finding.score * BAR_CELLS)
    style = "bold dark_orange" if finding.anomalous else "blue"
    bar = Text("█" * filled, style) + Text("░" * (BAR_CELLS - filled), "dim") + Text(f" {finding.score:.3f}")
    verdict = Text("yes", style) if finding.anomalous else Text("no")
    return Text(finding.id), bar, verdict, Text(finding.level or "-"), Text(str(len(finding.regions)))


def _say_done(tally: Tally, info: ModelInfo, threshold: Threshold, out: Path | None) -> None:
    seconds = time.perf_counter() - tally.started
    counts = f"{tally.done} picture{'s' * (tally.done != 1)}: {tally.anomalous} anomalous"
    if tally.unreadable:
        counts += f", {tally.unreadable} unreadable"
    note(f"{counts}; {seconds:.1f} s ({tally.done / seconds:.1f}/s), model {info.name}, {info.device} {info.dtype}")
    note(f"anomalous = score >= {threshold.value:.3f} ({threshold.source})")
    if out is not None:
        note(f"written to {out}")


def _say_interrupted(tally: Tally, total: int, out: Path | None) -> None:
    if out is None:
        print_error(f"interrupted: {tally.done} of {total} pictures done", "with --out DIR a run can be continued")
    else:
        where = out / "findings.jsonl"
        print_error(
            f"interrupted: {tally.done} of {total} pictures done, their records are in {where}",
            "the same command with --resume continues",
        )
