"""``anomaly-ov inspect``: pictures in, a table or JSON lines out, overlays and maps into a folder."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from anomaly_ov.cli import brain, contexts, spoken
from anomaly_ov.cli.console import Bar, bar_signs, note, print_error, print_json_line, stdout_console
from anomaly_ov.errors import UsageError
from anomaly_ov.images.messages import counted, printable
from anomaly_ov.records import Answer
from anomaly_ov.words.from_record import describe

if TYPE_CHECKING:
    from anomaly_ov.cli.outputs import Finished, Outputs
    from anomaly_ov.context.context import Context
    from anomaly_ov.images.sources import Source
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.records import Finding, Threshold
    from anomaly_ov.scoring.conformal import StoredThreshold

app = typer.Typer(add_completion=False)
BAR_CELLS = 12
NAMED, NAMED_FROM = 5, 9
"""So many of the most suspicious pictures are named at the end of a run of at least so many."""
EXPLAIN = "Explain in full what you found and what to do."


@dataclass
class Tally:
    """What a run found so far; decides the exit code."""

    done: int = 0
    anomalous: int = 0
    unreadable: int = 0
    explained: int = 0
    highest: list[tuple[float, str]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def add(self, finding: Finding) -> None:
        """Counts one finding."""
        self.done += 1
        self.anomalous += bool(finding.anomalous)
        self.unreadable += finding.error is not None
        self.explained += finding.answer is not None
        if finding.score is not None:
            # A stable order: of equal scores the earlier picture comes first.
            self.highest = sorted([*self.highest, (finding.score, finding.id)], key=lambda one: -one[0])[:NAMED]

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
    context: Annotated[
        list[str] | None,
        typer.Option(
            *contexts.OPTION,
            metavar="auto|none|folder|GOOD|FILE.ctx",
            help="What says what is normal: the pictures given among themselves (folder; auto if they are alike "
            "enough), pictures known to be good (their folder, a file, a quoted glob; repeatable), or a file made by "
            f"'context build'. A folder called auto is written ./auto. Default: {contexts.DEFAULT_CONTEXT}. "
            f"{contexts.OLD_NAME}",
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="0..1|FILE.json",
            help="Score from which a picture counts as anomalous, or a file made by 'calibrate' (which says with which "
            "context; without one --references is none unless given).",
        ),
    ] = None,
    fail_on_anomaly: Annotated[bool, typer.Option("--fail-on-anomaly", help="Exit 1 if any is anomalous.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pictures.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip pictures already in --out.")] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Explain each picture that is anomalous: by the language side, else from the record."
        ),
    ] = False,
) -> None:
    """Say how anomalous each picture is, and where.

    Exit codes: 0 done, 1 anomaly found (with --fail-on-anomaly), 2 usage, 3 some pictures unreadable, 4 weights
    missing, 5 device or memory, 130 interrupted.
    """
    if out is None and (overlay or map_format != "none" or resume):
        raise UsageError("--overlay, --map and --resume need a folder", hint="add --out DIR")
    from anomaly_ov.images.sources import expand
    from anomaly_ov.inspector import load

    limit_of_score = _threshold(threshold)
    wanted = _wanted_context(context, limit_of_score)
    given = expand(paths)
    sources = given[:limit]
    if not sources:
        raise UsageError(f"no pictures in {', '.join(paths)}", hint="give files, folders or globs of pictures")
    done = _finished(out) if resume else []
    if out is not None:
        contexts.require_same(wanted, out, done)
    inspector = load(model, device=device, dtype=dtype, threshold=limit_of_score)
    if out is not None and done:
        done = _still_true(out, done, sources, inspector, quiet=as_json)
    jobs = _jobs(sources, out, done, resume=resume)
    if not jobs:
        note(f"all {len(sources)} pictures are already in {out}")
        return
    contexts.require_enough(wanted, given)
    if explain and not brain.speaks(inspector):
        note(brain.FROM_RECORD)
    chosen = contexts.of_run(inspector, wanted, given, batch_size, out, done, quiet=as_json)
    tally, watch, findings = Tally(), contexts.Watch(chosen.context), []
    drawn = out is not None and (overlay is not False or map_format != "none")
    results = _results(inspector, [source for _, source in jobs], batch_size, chosen, previews=drawn, explain=explain)
    folder = _outputs(out, overlay, map_format, resume)
    try:
        with folder as outputs, Bar(len(jobs), "inspecting", quiet=as_json) as bar:
            if out is not None and not done:
                contexts.keep(out, chosen.context)
            for (name, _), (finding, preview_HW3) in zip(jobs, results, strict=True):
                light = replace(finding, significance_map=None)
                if outputs is not None:
                    light = outputs.add(name, finding, preview_HW3)
                tally.add(light)
                watch.add(light)
                if light.error is not None:
                    print_error(light.error.message, light.error.hint)
                if as_json:
                    print_json_line(light.to_json())
                else:
                    findings.append(light)
                bar.advance()
    except KeyboardInterrupt:
        _print_table(findings, chosen.context)
        _print_explanations(findings)
        _say_interrupted(tally, len(jobs), out)
        raise typer.Exit(130) from None
    finally:
        results.close()
    _print_table(findings, chosen.context)
    _print_explanations(findings)
    _say_done(tally, inspector, inspector.threshold_with(chosen.context), out)
    watch.say()
    _say_highest(tally)
    raise typer.Exit(tally.exit_code(fail_on_anomaly))


def _threshold(text: str | None) -> float | StoredThreshold | None:
    """What --threshold says; what is wrong with it is said as of any other option."""
    from anomaly_ov.scoring.conformal import wanted_threshold

    try:
        return wanted_threshold(text)
    except UsageError as error:
        raise UsageError(f"Invalid value for --threshold: {error.message}", hint=error.hint) from None


def _wanted_context(values: list[str] | None, threshold: float | StoredThreshold | None) -> contexts.Wanted:
    """What --references says; if nothing, then none beside a stored threshold, whose scores were made without one.

    Raises ``ThresholdMismatch`` where the two do not go together, before a context is made.
    """
    from anomaly_ov.scoring.conformal import StoredThreshold, ThresholdMismatch

    if not isinstance(threshold, StoredThreshold):
        return contexts.wanted(values or [contexts.DEFAULT_CONTEXT])
    wanted = contexts.wanted(values or ["none"])
    if (threshold.context is None) == (wanted.mode == "none"):
        return wanted
    made = "no context" if threshold.context is None else f"the context of {threshold.context.source}"
    raise ThresholdMismatch(
        f"the threshold in {threshold.path} was calibrated with {made}, --references here is {wanted.mode}",
        hint="leave out --references"
        if threshold.context is None
        else "give the same --references as when calibrating",
    )


def _finished(out: Path | None) -> list[Finished]:
    from anomaly_ov.cli.outputs import finished

    return [] if out is None else finished(out)


def _still_true(
    out: Path, done: list[Finished], sources: list[Source], inspector: Inspector, *, quiet: bool
) -> list[Finished]:
    """Those of an earlier run's findings that this run would find again; the others are taken out, and that is said.

    Raises ``UsageError`` where another model found them.
    """
    from anomaly_ov.cli.outputs import forget, place_of
    from anomaly_ov.context.build import digest_of
    from anomaly_ov.images.read import DEFAULT_LIMITS

    info, value = inspector.info, inspector.threshold.value
    other = next((one for one in done if one.model.get("revision") != info.revision), None)
    if other is not None:
        raise UsageError(
            f"{out} holds findings of model {printable(str(other.model.get('name')))}, revision "
            f"{printable(str(other.model.get('revision')))}; this is {info.name}, revision {info.revision}",
            hint="use another --out folder, or leave out --resume",
        )
    given = {place_of(source.id): source for source in sources}
    changed, another = set[str](), {one.id for one in done if one.threshold != value}
    with Bar(len(done), "comparing with the earlier run", quiet=quiet) as bar:
        for one in done:
            source = given.get(place_of(one.id))
            if source is not None and isinstance(source.item, str) and source.item != "-":
                # The record's digest is the file's, whatever the page.
                changed |= {one.id} if digest_of(replace(source, page=0), DEFAULT_LIMITS) != one.sha256 else set()
            bar.advance()
    if changed:
        note(f"{counted(len(changed), 'picture')} changed since the earlier run: looked at again")
    if another:
        note(f"{counted(len(another), 'finding')} had another threshold than {value:.3f}: looked at again")
    if changed or another:
        forget(out, changed | another)
    return [one for one in done if one.id not in changed | another]


def _jobs(sources: list[Source], out: Path | None, done: list[Finished], *, resume: bool) -> list[tuple[str, Source]]:
    """(file stem, source) of each picture to do."""
    if out is None:
        return [("", source) for source in sources]
    from anomaly_ov.cli.outputs import NAMES, names_in, place_of

    places = {place_of(one.id) for one in done}
    todo = [source for source in sources if place_of(source.id) not in places]
    if not resume:
        (out / NAMES).unlink(missing_ok=True)
    return list(zip(names_in(out, todo), todo, strict=True)) if todo else []


def _results(
    inspector: Inspector,
    sources: list[Source],
    batch_size: int,
    chosen: contexts.Chosen,
    *,
    previews: bool,
    explain: bool,
) -> Generator[tuple[Finding, Any], None, None]:
    speaks = explain and inspector.speaks
    results = inspector.stream_with_previews(sources, batch_size, chosen.context, previews=previews, talk=speaks)
    if speaks:
        results = brain.answered(inspector, results, EXPLAIN, batch_size, only_anomalous=True)
    elif explain:
        results = brain.told(results, lambda finding: Answer(describe(finding), None, "stop"), only_anomalous=True)
    for finding, preview in results:
        named = finding
        if chosen.context is None and chosen.reason:  # a record says why there is no context
            named = replace(finding, context=replace(finding.context, note=chosen.reason))
        yield named, preview


def _outputs(
    out: Path | None, overlay: bool | None, map_format: str, resume: bool
) -> AbstractContextManager[Outputs | None]:
    if out is None:
        return nullcontext(None)
    from anomaly_ov.cli.outputs import Outputs

    return Outputs(out, overlay=overlay is not False, map_format=map_format, append=resume)


def _print_table(findings: list[Finding], context: Context | None) -> None:
    if not findings:
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("picture", overflow="fold")
    table.add_column("score", no_wrap=True)
    if context is not None:
        table.add_column("context", justify="right", no_wrap=True)
    table.add_column("anomalous", no_wrap=True)
    table.add_column("suspicion", no_wrap=True)
    table.add_column("regions", justify="right", no_wrap=True)
    for finding in findings:
        picture, score, *rest = _row(finding)
        table.add_row(picture, score, *([_context_cell(finding)] if context is not None else []), *rest)
    stdout_console().print(table)


def _print_explanations(findings: list[Finding]) -> None:
    """Below the table, for whose columns they are too long."""
    for finding in findings:
        if finding.answer is not None:
            print(f"\n{printable(finding.id)}\n{spoken.paragraph(finding.answer)}")


def _row(finding: Finding) -> tuple[Any, ...]:
    from rich.text import Text

    if finding.error is not None or finding.score is None:
        return Text(finding.id), Text("unreadable", "red"), Text("-"), Text("-"), Text("-")
    filled = round(finding.score * BAR_CELLS)
    style = "bold dark_orange" if finding.anomalous else "blue"
    full, empty = bar_signs()
    bar = Text(full * filled, style) + Text(empty * (BAR_CELLS - filled), "dim") + Text(f" {finding.score:.3f}")
    verdict = Text("yes", style) if finding.anomalous else Text("no")
    return Text(finding.id), bar, verdict, Text(finding.level or "-"), Text(str(len(finding.regions)))


def _context_cell(finding: Finding) -> Any:
    """The context's part of the score."""
    from rich.text import Text

    return Text("-" if finding.score_context is None else f"{finding.score_context:.3f}")


def _say_done(tally: Tally, inspector: Inspector, threshold: Threshold, out: Path | None) -> None:
    info = inspector.info
    seconds = time.perf_counter() - tally.started
    counts = f"{counted(tally.done, 'picture')}: {tally.anomalous} anomalous"
    if tally.unreadable:
        counts += f", {tally.unreadable} unreadable"
    note(f"{counts}; {seconds:.1f} s ({tally.done / seconds:.1f}/s), model {info.name}, {info.device} {info.dtype}")
    note(f"anomalous = score >= {threshold.value:.3f} ({threshold.source})")
    if tally.explained:
        note(f"{tally.explained} explained" + (": explanations may be wrong" if inspector.speaks else ""))
    if out is not None:
        note(f"written to {out}")


def _say_highest(tally: Tally) -> None:
    """Where to look first, below a table too long to search."""
    if tally.done - tally.unreadable >= NAMED_FROM:
        named = ", ".join(f"{printable(name)} ({score:.3f})" for score, name in tally.highest)
        note(f"most suspicious: {named}")


def _say_interrupted(tally: Tally, total: int, out: Path | None) -> None:
    if out is None:
        print_error(f"interrupted: {tally.done} of {total} pictures done", "with --out DIR a run can be continued")
    else:
        where = out / "findings.jsonl"
        print_error(
            f"interrupted: {tally.done} of {total} pictures done, their records are in {where}",
            "the same command with --resume continues",
        )
