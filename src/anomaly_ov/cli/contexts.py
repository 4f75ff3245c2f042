"""What ``inspect --references`` means: from its values to a context, made or loaded, and the same one on ``--resume``.

A run with a context keeps it in ``--out`` as ``context.ctx``: a folder whose pictures change between two parts of a
run would otherwise judge them by different measures. ``--references out/context.ctx`` also serves other runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anomaly_ov.cli.console import Bar, note, print_error, warn
from anomaly_ov.context import is_context_file
from anomaly_ov.errors import ImageError, UsageError
from anomaly_ov.images.messages import counted, printable
from anomaly_ov.records import UNLIKE

if TYPE_CHECKING:
    from anomaly_ov.cli.outputs import Finished
    from anomaly_ov.context.context import Context
    from anomaly_ov.images.sources import Source
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.records import Finding

DEFAULT_CONTEXT = "auto"
OPTION = ("--references", "--context")  # the second is the name of 0.1, kept until 0.3
OLD_NAME = "--context is its old name, until 0.3."
KEPT = "context.ctx"
_KEYWORDS: tuple[Literal["none", "auto", "folder"], ...] = ("none", "auto", "folder")
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Wanted:
    """What --references asks for; ``paths``: the context file or the good pictures."""

    mode: Literal["none", "auto", "folder", "file", "references"]
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """The context in use, or None, and the reason where it was a choice (``auto``)."""

    context: Context | None
    reason: str = ""


def wanted(values: Sequence[str]) -> Wanted:
    """What the values of --references say. Raises ``UsageError`` where that is no context."""
    for keyword in _KEYWORDS:
        if keyword in values:
            if len(values) > 1:
                raise UsageError(
                    f"--references {keyword} stands alone, but {len(values)} values were given",
                    hint=f"a folder of that name is written ./{keyword}",
                )
            return Wanted(keyword)
    files = [value for value in values if is_context_file(value)]
    if files and len(values) > 1:
        raise UsageError(
            f"--references {printable(files[0])} stands alone, but {len(values)} values were given",
            hint="'anomaly-ov context add' adds pictures to a context file",
        )
    if "-" in values:
        raise UsageError(
            "--references does not read standard input",
            hint="build a context file: anomaly-ov context build - --out FILE.ctx",
        )
    require_existing(values, "--references", "give auto, folder, none, good pictures or their folder, or a .ctx file")
    return Wanted("file" if files else "references", tuple(values))


def require_existing(paths: Sequence[str], what: str, hint: str) -> None:
    """Raises ``UsageError`` for a path that is neither there nor a pattern: a typing error, not a picture."""
    for path in paths:
        if path != "-" and not os.path.lexists(path) and not _MAGIC.search(path):
            raise UsageError(f"{what}: there is no file or folder {printable(path)}", hint=hint)


def require_enough(wanted_: Wanted, sources: Sequence[Source]) -> None:
    """Raises ``UsageError`` where so few pictures have no context among themselves, before any is read."""
    if wanted_.mode != "folder":
        return
    from anomaly_ov.context.build import FEWEST_FOR_FOLDER

    if len(sources) < FEWEST_FOR_FOLDER:
        raise UsageError(
            f"--references folder compares the pictures of one run with each other and needs at least "
            f"{FEWEST_FOR_FOLDER}; here {'is 1' if len(sources) == 1 else f'are {len(sources)}'}",
            hint="give their whole folder, or good pictures with --references GOOD_FOLDER",
        )


def of_run(
    inspector: Inspector,
    wanted_: Wanted,
    sources: Sequence[Source],
    batch_size: int,
    out: Path | None,
    done: Sequence[Finished],
    *,
    quiet: bool,
) -> Chosen:
    """The context that ``wanted_`` asks for, the same as of the pictures ``done``; says on stderr which it is.

    Silent where ``auto`` has too few pictures to choose from.
    """
    if out is not None and done:
        chosen = choose_again(inspector, wanted_, out, done, batch_size, quiet=quiet)
    else:
        chosen = choose(inspector, wanted_, sources, batch_size, quiet=quiet)
    if not _of_course_alone(wanted_, sources):
        announce(chosen)
    return chosen


def _of_course_alone(wanted_: Wanted, sources: Sequence[Source]) -> bool:
    """Whether so few images are judged each by itself that nobody expects a context of them."""
    from anomaly_ov.context.build import FEWEST_FOR_AUTO

    return wanted_.mode == "auto" and len(sources) < FEWEST_FOR_AUTO


def choose(
    inspector: Inspector, wanted_: Wanted, sources: Sequence[Source], batch_size: int, *, quiet: bool = False
) -> Chosen:
    """The context that ``wanted_`` asks for; a folder's own is made of all ``sources``."""
    if wanted_.mode == "none":
        return Chosen(None)
    if wanted_.mode == "file":
        from anomaly_ov.context.context_file import load_context

        return Chosen(load_context(wanted_.paths[0], inspector.info.revision))
    if wanted_.mode == "references":
        return Chosen(good_references(inspector, wanted_.paths, batch_size, quiet=quiet)[0])
    with Bar(None, "looking at the folder", quiet=quiet or _of_course_alone(wanted_, sources)) as bar:
        if wanted_.mode == "folder":
            return Chosen(inspector.folder_context(list(sources), batch_size, bar.at))
        return Chosen(*inspector.auto_context(list(sources), batch_size, bar.at))


def good_references(
    inspector: Inspector, pictures: Sequence[Any], batch_size: int, *, quiet: bool = False
) -> tuple[Context, int]:
    """The context of good pictures (paths, or sources), and how many could not be read: each is named on stderr."""
    from anomaly_ov.images.sources import sources_of

    one = len(pictures) == 1 and isinstance(pictures[0], str)
    sources = list(sources_of(pictures[0] if one else list(pictures)))
    # A single path stays one: it names the context.
    named = pictures[0] if one and pictures[0] != "-" else sources
    with Bar(None, "reading good pictures", quiet=quiet) as bar:
        context = inspector.context(named, batch_size, bar.at)
    return context, _name_unreadable(sources, context)


def _name_unreadable(sources: Sequence[Source], context: Context) -> int:
    """Says on stderr which of the pictures that were drawn do not serve, and why."""
    from anomaly_ov.context import choose as choosing
    from anomaly_ov.context.build import MOST_REFERENCES, digest_of
    from anomaly_ov.images.read import DEFAULT_LIMITS

    digests = [digest_of(source, DEFAULT_LIMITS) for source in sources]
    missing = [i for i in choosing.drawn(digests, MOST_REFERENCES) if digests[i] not in context.bank.digests]
    for i in sorted(missing):
        try:
            sources[i].read()
        except ImageError as error:
            print_error(error.message, error.hint)
    return len(missing)


def require_same(wanted_: Wanted, out: Path, done: Sequence[Finished]) -> None:
    """Raises ``UsageError`` where --references asks for another kind of context than that of what is ``done``."""
    for one in done:
        kind = one.context["kind"]
        if wanted_.mode == "none":
            same = kind == "none" and not one.context["note"]
        elif wanted_.mode == "auto":
            same = kind == "folder" or (kind == "none" and bool(one.context["note"]))
        else:
            same = kind == wanted_.mode or (wanted_.mode == "file" and kind != "none")
        if not same:
            raise _another(out, one.context)


def choose_again(
    inspector: Inspector, wanted_: Wanted, out: Path, done: Sequence[Finished], batch_size: int, *, quiet: bool = False
) -> Chosen:
    """The very context that the pictures ``done`` were judged by; ``UsageError`` where --references says another."""
    used = done[0].context
    if used["kind"] == "none":
        return Chosen(None, used["note"] or "")
    if not (out / KEPT).is_file():
        raise UsageError(f"{out / KEPT}, the context of this run, is missing", hint="run again without --resume")
    from anomaly_ov.context.context_file import load_context

    kept = load_context(out / KEPT, inspector.info.revision)
    if wanted_.mode in ("auto", "folder"):
        return Chosen(kept, f"kept in {out / KEPT} since this run began")
    now = choose(inspector, wanted_, (), batch_size, quiet=quiet).context
    if now is None or (now.kind, now.bank.digests) != (kept.kind, kept.bank.digests):
        raise _another(out, used)
    return Chosen(kept)


def keep(out: Path, context: Context | None) -> None:
    """Leaves ``context`` in ``out`` for ``choose_again``, instead of that of an earlier run."""
    if context is None:
        (out / KEPT).unlink(missing_ok=True)
        return
    from anomaly_ov.context.context_file import save_context

    save_context(out / KEPT, context)


def _another(out: Path, used: dict[str, Any]) -> UsageError:
    described = f"{counted(used['references'], 'good picture')} from {printable(str(used['source']))}"
    if used["kind"] == "none":
        described = "--references auto, which chose none" if used["note"] else "no context"
    elif used["kind"] == "folder":
        described = "the folder as context"
    return UsageError(
        f"the pictures already in {out} were inspected with {described}, --references now says another",
        hint="give the same --references as before, or another --out folder",
    )


def announce(chosen: Chosen) -> None:
    """Says on stderr which context is in use, of what it is made, and why."""
    context = chosen.context
    if context is None:
        if chosen.reason:
            note(f"context: none; {chosen.reason}")
        return
    count, source = len(context.bank), printable(context.source)
    if context.kind == "references":
        text = f"{counted(count, 'good picture')} from {source}"
    else:
        text = f"the folder's own pictures, {count} references from {source}"
    note("; ".join([f"context: {text}", *([chosen.reason] if chosen.reason else []), *map(printable, context.notes)]))


class Watch:
    """Looks at the findings of a run for signs that the context is not what was meant; ``say`` tells."""

    def __init__(self, context: Context | None) -> None:
        self._good = context is not None and context.kind == "references"
        self._digests = frozenset(context.bank.digests) if context else frozenset()
        self._compared = self._unlike = self._own = 0

    def add(self, finding: Finding) -> None:
        """One more finding of the run."""
        if finding.context.distance is not None:
            self._compared += 1
            self._unlike += finding.context.note == UNLIKE
            self._own += finding.image.sha256 in self._digests

    def say(self) -> None:
        """Warnings on stderr, if there is cause."""
        count = self._compared
        if self._unlike * 2 > count:
            verb = "looks" if self._unlike == 1 else "look"
            told = f"{self._unlike} of {count} pictures {verb} like none of the references"
            warn(f"{told}: are these of the same object?")
        if self._good and self._own:
            verb = "is itself a reference" if self._own == 1 else "are themselves references"
            warn(
                f"{self._own} of {count} pictures {verb}, which says nothing about them; "
                "for pictures not known to be good use --references folder"
            )
