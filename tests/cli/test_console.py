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
