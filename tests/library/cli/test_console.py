"""The progress bar: only on a terminal, and told its total while under way."""

from __future__ import annotations

import io
import sys

import pytest

from anomaly_ov.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "shown"), [(Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)]
)
def test_bar_learns_its_total_under_way(
    stream: type[io.StringIO], quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "BAR_AFTER_S", -1)
    monkeypatch.setattr(sys, "stderr", stream())
    with console.Bar(None, "looking", quiet=quiet) as bar:
        bar.at(1, 12)
        bar.at(3, 12)
    assert ("looking" in sys.stderr.getvalue()) is shown  # type: ignore[attr-defined]
    assert ("3/12" in sys.stderr.getvalue()) is shown  # type: ignore[attr-defined]


def test_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn("two\nlines")
    assert capsys.readouterr() == ("", "warning: two lines\n")


def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("one\x1b[31m\ntwo é")
    console.print_error("no \x1b]0;title\x07", "look \x9b1m")
    console.warn("odd \u202e name \udcff")
    assert capsys.readouterr().err.splitlines() == [
        "one\\x1b[31m",
        "two é",
        "error: no \\x1b]0;title\\x07",
        "hint: look \\x9b1m",
        "warning: odd \\u202e name \\udcff",
    ]
