"""``anomaly-ov calibrate``: a threshold with a guarantee from good pictures, a file for ``inspect --threshold``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly_ov.cli import contexts
from anomaly_ov.cli.console import Bar, note, print_error, stdout_console
from anomaly_ov.errors import DataError, UsageError, WeightsError
from anomaly_ov.images.messages import counted, printable

if TYPE_CHECKING:
    from anomaly_ov.context.context import Context
    from anomaly_ov.images.sources import Source
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.scoring.conformal import Rate, StoredThreshold

app = typer.Typer(add_completion=False)


@dataclass
class Scored:
    """Pictures by the digest of their bytes, copies once, and their scores as they come."""

    sources: dict[str, Source]
    left_out: dict[str, int]
    scores: list[float] = field(default_factory=list)


@app.command()
def calibrate(
    good: Annotated[list[str], typer.Argument(metavar="GOOD...", help="Good pictures: files, folders, globs, or -.")],
    max_false_alarms: Annotated[
        float, typer.Option("--max-false-alarms", help="Share of good pictures that may be flagged, such as 0.01.")
    ],
    bad: Annotated[
        list[str] | None,
        typer.Option("--bad", metavar="BAD", help="Anomalous pictures, to say how many would be found; repeatable."),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a model folder.")] = "tiny",
    context: Annotated[
        list[str] | None,
        typer.Option(
            *contexts.OPTION,
            metavar="none|GOOD|FILE.ctx",
            help="What says what is normal, as it will in 'inspect': other good pictures, or a file made by 'context "
            f"build'; their copies among GOOD do not count. Default: none. {contexts.OLD_NAME}",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write. Default: threshold.json in the model's folder; needed for shipped models."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Most pictures per forward pass.")] = 8,
) -> None:
    """Find the threshold that flags at most so many good pictures, and say how sure that is.

    The promise (split conformal): of new good pictures like these, drawn like these, at most that share scores as high.
    Pictures of one part, or neighbours in a film, are not independent: give one of each.

    Exit code 3: written, but some of the pictures could not be read.
    """
    from anomaly_ov.images.sources import expand
    from anomaly_ov.inspector import load
    from anomaly_ov.scoring.conformal import fewest, load_threshold, require_enough, save_threshold

    fewest(max_false_alarms)  # says now what is wrong with it
    wanted = _wanted_context(context or ["none"])
    target = _target(out, model)
    _require_there([*good, *(bad or [])])
    goods = _distinct(expand(good))
    bads = _distinct(expand(bad)) if bad else None
    _require_apart(goods, bads)
    require_enough(len(goods.sources), max_false_alarms)
    inspector = load(model, device, dtype)
    if not inspector.info.revision:
        raise WeightsError(f"the model {model} has no revision to tell its scores by", hint="save the model again")
    used = contexts.choose(inspector, wanted, (), batch_size).context
    _leave_out_references(goods, used)
    require_enough(len(goods.sources), max_false_alarms)
    unreadable = _score(inspector, goods, batch_size, used, "good pictures")
    unreadable += 0 if bads is None else _score(inspector, bads, batch_size, used, "bad pictures")
    stored = _stored(inspector, goods, bads, max_false_alarms, used)
    save_threshold(target, stored)
    _print_table(load_threshold(target), unreadable)
    used_as = {"--model": [model], "--dtype": [dtype], "--threshold": [str(target)], "--references": context or []}
    note(f"use it: anomaly-ov inspect PICTURES{_options(used_as)}")
    raise typer.Exit(3 if unreadable else 0)


def _wanted_context(values: list[str]) -> contexts.Wanted:
    wanted = contexts.wanted(values)
    if wanted.mode in ("folder", "auto"):
        raise UsageError(
            f"--references {wanted.mode} has no threshold of its own: a folder's scores depend on its other pictures, "
            "so those of one folder promise nothing for another",
            hint="give good pictures or a .ctx file as context, or none",
        )
    return wanted


def _target(out: Path | None, model: str) -> Path:
    """Where to write; said before anything is scored. Nothing is written into the package."""
    from anomaly_ov.models.hub import available, resolve
    from anomaly_ov.scoring.conformal import DEFAULT_NAME

    if out is None:
        folder = resolve(model)
        if any(folder.resolve() == one.folder.resolve() for one in available()):
            raise UsageError(
                f"{model} lies inside the installed package, where nothing is written",
                hint=f"say where: --out {DEFAULT_NAME}",
            )
        return folder / DEFAULT_NAME
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else "lies in no folder that is there"
        raise UsageError(f"--out {printable(str(out))} {what}", hint=f"name a file, such as {DEFAULT_NAME}")
    return out


def _require_there(inputs: Sequence[str]) -> None:
    """A name that is mistyped is no picture that cannot be read."""
    for name in inputs:
        if name != "-" and not has_magic(name) and not os.path.lexists(name):
            raise UsageError(f"there is no {printable(name)}", hint="check the spelling and the folder you are in")


def _distinct(sources: Sequence[Source]) -> Scored:
    from anomaly_ov.context.build import digest_of
    from anomaly_ov.images.read import DEFAULT_LIMITS

    found: dict[str, Source] = {}
    for source in sources:
        found.setdefault(digest_of(source, DEFAULT_LIMITS), source)
    return Scored(found, {"copies": len(sources) - len(found), "references": 0, "unreadable": 0})


def _require_apart(goods: Scored, bads: Scored | None) -> None:
    both = [] if bads is None else [source.id for digest, source in goods.sources.items() if digest in bads.sources]
    if both:
        raise DataError(
            f"{len(both)} pictures are among the good and the bad ones, {printable(both[0])} the first",
            hint="keep each picture in one of the two",
        )


def _leave_out_references(goods: Scored, context: Context | None) -> None:
    """A reference is no new picture: the context was made to fit it."""
    if context is None:
        return
    references = goods.sources.keys() & set(context.bank.digests)
    for digest in references:
        del goods.sources[digest]
    goods.left_out["references"] = len(references)


def _score(inspector: Inspector, pictures: Scored, batch_size: int, context: Context | None, what: str) -> int:
    """Fills in the scores; how many pictures could not be read, each named on stderr."""
    sources = list(pictures.sources.values())
    with Bar(len(sources), f"scoring {what}") as bar:
        for finding in inspector.stream(sources, batch_size, context):
            if finding.error is not None:
                print_error(finding.error.message, finding.error.hint)
                pictures.left_out["unreadable"] += 1
            elif finding.score is not None:
                pictures.scores.append(finding.score)
            bar.advance()
    return pictures.left_out["unreadable"]


def _stored(
    inspector: Inspector, goods: Scored, bads: Scored | None, max_false_alarms: float, context: Context | None
) -> StoredThreshold:
    from anomaly_ov.provenance import provenance
    from anomaly_ov.scoring import conformal

    found = conformal.conformal(goods.scores, max_false_alarms)
    info = inspector.info
    return conformal.StoredThreshold(
        value=found.value,
        max_false_alarms=max_false_alarms,
        n=found.n,
        k=found.k,
        expected_false_alarms=found.expected,
        upper_false_alarms=found.upper(),
        model=conformal.ScoredBy(info.name, info.revision, info.dtype, inspector.scoring),
        context=conformal.scored_with(context),
        recall=None if bads is None else _recall(bads, found.value),
        left_out=goods.left_out,
        scores_sha256=conformal.scores_digest(goods.scores),
        provenance=provenance(None),
    )


def _recall(bads: Scored, threshold: float) -> Rate:
    from anomaly_ov.scoring.conformal import Rate, binomial_interval

    hits = sum(score >= threshold for score in bads.scores)
    return Rate(len(bads.scores), hits, *binomial_interval(hits, len(bads.scores)))


def _print_table(stored: StoredThreshold, unreadable: int) -> None:
    from rich.table import Table
    from rich.text import Text

    left_out = ", ".join(f"{count} {reason}" for reason, count in stored.left_out.items() if count)
    rows = [
        ("threshold", f"anomalous = score >= {stored.value:.6g}"),
        ("found on", f"{stored.n} distinct good pictures{f'; left out: {left_out}' if left_out else ''}"),
        ("promise", f"at most {_percent(stored.max_false_alarms)} of new good pictures like these are flagged"),
        (
            "how sure",
            f"that holds on average over such calibrations; of this one expect {_percent(stored.expected_false_alarms)}"
            f", and below {_percent(stored.upper_false_alarms)} with 95 % certainty",
        ),
    ]
    if stored.recall is not None:
        one = stored.recall
        rows.append(
            (
                "bad pictures",
                f"{one.hits} of {one.n} found: recall {_percent(one.hits / one.n)} "
                f"[{_percent(one.low)}, {_percent(one.high)}]"
                if one.n
                else "none could be read",
            )
        )
    if stored.context is not None:
        rows.append(("context", f"{counted(stored.context.references, 'good picture')} from {stored.context.source}"))
    rows.append(("model", f"{stored.model.name} {stored.model.revision}, {stored.model.dtype}"))
    rows.append(("written to", stored.path))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, Text(printable(value)))
    stdout_console().print(table)
    if unreadable:
        note(f"{unreadable} pictures could not be read")


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _options(values: dict[str, list[str]]) -> str:
    """As they are typed in a shell, without those that are the default."""
    given = ((name, value) for name, of in values.items() for value in of if (name, value) != ("--dtype", "auto"))
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given)
