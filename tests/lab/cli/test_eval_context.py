"""``eval detect --context``, from the command line to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly_ov.cli.main import run
from training_fixtures import labelled_folder


@pytest.fixture
def measure(tmp_path: Path, small_folder: Path) -> list[str]:
    labelled_folder(tmp_path / "one")
    return ["eval", "detect", "--data", str(tmp_path / "one"), "--model", str(small_folder), "--markdown"]


def test_folder_and_references_are_measured_and_recorded(
    measure: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert run([*measure, *out, "--context", "folder"]) == 0
    assert "| one, folder (transductive) | 6 / 6 |" in capsys.readouterr().out
    folder = json.loads((tmp_path / "out/one/metrics.json").read_text())
    assert folder["context"]["transductive"] is True
    assert folder["main"]["scores"]["score_context"]["auroc"] is not None
    assert run([*measure, *out, "--context", "refs:2", "--draw", "5"]) == 0
    assert "| one, 2 references, draw 5 | 4 / 6 |" in capsys.readouterr().out
    drawn = json.loads((tmp_path / "out/one/metrics.json").read_text())
    assert (drawn["context"]["draw"], drawn["speed"]["scored"]) == (5, 10)
    assert run([*measure, *out, "--references", "none"]) == 0
    assert json.loads((tmp_path / "out/one/metrics.json").read_text())["context"] is None


@pytest.mark.parametrize("context", ["auto", "refs", "refs:", "refs:0", "refs:-1", "refs:x", "folder:2"])
def test_an_unknown_context_is_named(measure: list[str], context: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*measure, "--context", context]) == 2
    assert f"--references {context} is not known here" in capsys.readouterr().err


def test_too_few_normal_pictures_are_named(measure: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*measure, "--context", "refs:7"]) == 2
    assert "6 distinct normal pictures to draw 7 references from" in capsys.readouterr().err
