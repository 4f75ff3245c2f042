"""``anomaly-ov context``: keep what good pictures say is normal in a file, add newly confirmed ones, show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomaly_ov.cli.console import note, stdout_console
from anomaly_ov.cli.contexts import good_references, require_existing
from anomaly_ov.context import SUFFIX, is_context_file
from anomaly_ov.errors import UsageError
from anomaly_ov.images.messages import counted, printable

if TYPE_CHECKING:
    from anomaly_ov.context.context import Context

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Keep what good pictures say is normal in a file.")

Good = Annotated[list[str], typer.Argument(metavar="GOOD...", help="Good pictures: files, folders, globs, or -.")]
Model = Annotated[str, typer.Option(help="Name of a shipped model, or a model folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Most pictures per forward pass.")]


@app.command()
def build(
    good: Good,
    out: Annotated[Path, typer.Option(help="The context file to write, NAME.ctx.")],
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = 8,
) -> None:
    """Make a context file of pictures known to be good, one to hundreds, for 'inspect --references'.

    Exit code 3: written, but some of the pictures could not be read.
    """
    _require_writable(out)
    _require_pictures(good)
    from anomaly_ov.context.context_file import save_context
    from anomaly_ov.inspector import load

    context, unreadable = good_references(load(model, device, dtype), good, batch_size)
    save_context(out, context)
    note(f"{_summary(context)}; written to {out}")
    raise typer.Exit(3 if unreadable else 0)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.ctx", help="The context file to extend.")],
    good: Good,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = 8,
) -> None:
    """Add newly confirmed good pictures to a context file; it is replaced as a whole or not at all.

    Exit code 3: written, but some of the pictures could not be read.
    """
    _require_pictures(good)
    from anomaly_ov.context.build import digest_of
    from anomaly_ov.context.context_file import extended, load_context, require_references, save_context
    from anomaly_ov.images.read import DEFAULT_LIMITS
    from anomaly_ov.images.sources import expand
    from anomaly_ov.inspector import load

    inspector = load(model, device, dtype)
    old = load_context(file, inspector.info.revision)
    require_references(old)
    sources = expand(good)
    unknown = [source for source in sources if digest_of(source, DEFAULT_LIMITS) not in old.bank.digests]
    if not unknown:
        note(f"all {len(sources)} pictures are already in {file}; nothing was changed")
        return
    new, unreadable = good_references(inspector, unknown, batch_size)
    context = extended(old, new)
    save_context(file, context)
    note(f"{_summary(context)}; {'; '.join(context.notes)}; written to {file}")
    raise typer.Exit(3 if unreadable else 0)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE.ctx", help="A context file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what a context file holds and which model it belongs to."""
    from anomaly_ov.context.context_file import load_context

    facts = _facts(load_context(file), file)
    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        _print_table(facts)


def _require_writable(out: Path) -> None:
    """What can be said before all pictures are read is said now."""
    if not is_context_file(str(out)):
        raise UsageError(
            f"--out {printable(str(out))} must be a file whose name ends in {SUFFIX}",
            hint=f"'inspect --references' tells context files by it; for example --out {out.stem or 'part'}{SUFFIX}",
        )
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {printable(str(out.parent))} for --out", hint="make it first")


def _require_pictures(good: list[str]) -> None:
    files = [path for path in good if is_context_file(path)]
    if files:
        raise UsageError(f"{printable(files[0])} is a context file, not a picture", hint="name good pictures")
    require_existing(good, "good pictures", "name files or folders of pictures known to be good")


def _summary(context: Context) -> str:
    count = len(context.bank)
    kinds = f" of {context.bank.kinds} kinds" if context.bank.kinds > 1 else ""
    return f"{counted(count, 'good picture')}{kinds}"


def _facts(context: Context, file: Path) -> dict[str, Any]:
    bank = context.bank
    sizes = bank.tokens.map(lambda tokens_RTD: tokens_RTD.shape[1])
    groups = [
        {
            "references": len(bank.members(kind)),
            "measured": one.count,
            "usual_suspicion": round(one.value, 4) if one.count else None,
            "spread": round(one.spread, 4) if one.count > 1 else None,
        }
        for kind, one in enumerate(context.usual)
    ]
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        "kind": context.kind,
        "source": context.source,
        "model_revision": context.revision,
        "references": len(bank),
        "tokens_each": {"whole": sizes.whole, "detail": sizes.detail},
        "token_width": bank.tokens.whole.shape[2],
        "groups": groups,
        "notes": list(context.notes),
    }


def _print_table(facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    each = " + ".join(f"{count} ({scale})" for scale, count in facts["tokens_each"].items())
    rows = [
        ("file", f"{facts['file']} ({facts['bytes'] / 1e6:.2f} MB)"),
        ("kind", {"folder": "folder (its own pictures)", "references": "good references"}[facts["kind"]]),
        ("source", facts["source"]),
        ("model revision", facts["model_revision"]),
        ("references", f"{facts['references']}, {each} tokens of {facts['token_width']} values each"),
    ]
    for number, group in enumerate(facts["groups"]):
        name = "usual" if len(facts["groups"]) == 1 else f"usual, kind {number}"
        shown = "not known from one picture"  # there was nothing to compare it with
        if group["measured"]:
            spread = "" if group["spread"] is None else f" +- {group['spread']:.2f}"
            shown = f"suspicion {group['usual_suspicion']:.2f}{spread}, each compared with the others"
        rows.append((name, shown if len(facts["groups"]) == 1 else f"{shown}, {group['references']} references"))
    rows.extend(("note", text) for text in facts["notes"])
    for label, value in rows:
        table.add_row(label, Text(printable(value)))
    stdout_console().print(table)
