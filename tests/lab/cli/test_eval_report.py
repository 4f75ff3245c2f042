"""``eval detect --out``: the report beside the figures; a run that was stopped says how to go on and does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.cli.main import run
from anomaly_ov.inspector import Inspector
from training_fixtures import labelled_folder


@pytest.fixture
def measure(tmp_path: Path, small_folder: Path) -> list[str]:
    labelled_folder(tmp_path / "one")
    command = ["eval", "detect", "--data", str(tmp_path / "one"), "--model", str(small_folder), "--markdown"]
    return [*command, "--batch-size", "1", "--device", "cpu"]


def test_table_and_page_lie_beside_the_figures(
    measure: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*measure, "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert str(tmp_path / "out/one/report.html") in captured.err
    assert "| one | 6 / 6 |" in (tmp_path / "out/one/report.md").read_text()
    page = (tmp_path / "out/one/report.html").read_text()
    assert "small, revision test" in page
    assert page.count("<img") == 24


def _stopping_after(pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Inspector.stream

    def stopped(self: Inspector, *args: Any, **options: Any) -> Iterator[Any]:
        for count, finding in enumerate(whole(self, *args, **options)):
            if count == pictures:
                raise KeyboardInterrupt
            yield finding

    monkeypatch.setattr(Inspector, "stream", stopped)


def test_a_stopped_run_says_how_to_go_on_and_scores_nothing_twice(
    measure: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        _stopping_after(5, patch)
        assert run([*measure, "--out", str(out)]) == 130
    error = capsys.readouterr().err
    assert f"error: interrupted while measuring one: 5 pictures scored, kept in {out / 'one/per_image.jsonl'}" in error
    assert "hint: the same command goes on from there" in error
    assert not (out / "one/metrics.json").exists()
    assert run([*measure, "--out", str(out)]) == 0
    assert json.loads((out / "one/metrics.json").read_text())["speed"]["scored"] == 7


def test_without_a_folder_it_says_what_would_have_helped(
    measure: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopping_after(1, monkeypatch)
    assert run(measure) == 130
    assert "hint: with --out DIR a run can be continued" in capsys.readouterr().err
