"""What the verbs share on the terminal: one-line errors, notes and a progress bar on stderr, JSON lines on stdout."""

from __future__ import annotations

import io
import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

BAR_AFTER_S = 2.0
BLOCKS, SIGNS = ("█", "░"), ("#", ".")
"""Filled and empty part of a bar in a table; signs where the terminal's encoding has no blocks."""

PIPE_WIDTH = 160


def prepare_streams() -> None:
    """From now on what an encoding cannot hold is written as an escape: a name, or a terminal from before Unicode, ends
    no run.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def bar_signs() -> tuple[str, str]:
    """Filled and empty cell of a bar on stdout."""
    try:
        "".join(BLOCKS).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return SIGNS
    return BLOCKS


def print_error(message: str, hint: str) -> None:
    """``error: ...`` and, when there is a next step, ``hint: ...``, each on one line of stderr."""
    print(f"error: {_plain(' '.join(message.split()))}", file=sys.stderr)
    if hint:
        print(f"hint: {_plain(' '.join(hint.split()))}", file=sys.stderr)


def warn(message: str) -> None:
    """``warning: ...`` on stderr: the run is done, but its result may not be what was meant."""
    print(f"warning: {_plain(' '.join(message.split()))}", file=sys.stderr)


def note(message: str) -> None:
    """A line for the person watching, on stderr."""
    print("\n".join(map(_plain, message.split("\n"))), file=sys.stderr)


def _plain(line: str) -> str:
    """What cannot be printed, escaped: names come from files, and must not steer the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def print_json_line(values: dict[str, Any]) -> None:
    """One record, one line of stdout, at once; pure ASCII where stdout is not UTF-8."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    sys.stdout.write(json.dumps(values, ensure_ascii=ascii_only, allow_nan=False) + "\n")
    sys.stdout.flush()


def stdout_console() -> Console:
    """A rich console on stdout; wide when piped, so that nothing is cut for want of a terminal."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            """A reader that has seen enough is no error; rich would exit with 1 here."""
            raise BrokenPipeError

    return PipeConsole() if sys.stdout.isatty() else PipeConsole(width=PIPE_WIDTH)


class Bar:
    """A progress bar with rate and time left on stderr, shown only on a terminal and once two seconds have passed."""

    def __init__(self, total: int | None, what: str, *, quiet: bool = False) -> None:
        self._total, self._what = total, what
        self._wanted = sys.stderr.isatty() and not quiet
        self._started, self._done = time.monotonic(), 0
        self._progress: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self) -> None:
        """One more is done."""
        self.at(self._done + 1, self._total)

    def at(self, done: int, total: int | None) -> None:
        """So many of so many are done; for work whose extent is known only once it is under way."""
        self._done, self._total = done, total
        if self._progress is None and self._wanted and time.monotonic() - self._started > BAR_AFTER_S:
            self._show()
        if self._progress is not None:
            elapsed = time.monotonic() - self._started
            self._progress.update(self._task, completed=done, total=total, rate=f"{done / elapsed:.1f}/s")

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
        self._progress = Progress(
            *columns,
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what is printed meanwhile into a file must stay there
        )
        self._task = self._progress.add_task(self._what, total=self._total, completed=self._done, rate="")
        self._progress.start()
