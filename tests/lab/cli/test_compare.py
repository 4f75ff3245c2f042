from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly_ov.cli.main import run
from run_fixtures import Pictures, write_run


def _pictures(shift: float) -> Pictures:
    return {
        f"{category}/{index}.png": (category, index % 2, min(1.0, 0.3 + 0.03 * index + shift * (index % 2)))
        for category in ("x", "y")
        for index in range(12)
    }


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    pixels = {"auroc": 0.75, "average_precision": 0.5, "f1_max": 0.5, "pro": 0.25, "max_fpr": 0.3}
    a = write_run(tmp_path / "a", _pictures(0.3), "first", main={"pixels": pixels})
    b = write_run(tmp_path / "b", _pictures(0), "second", main={"pixels": pixels | {"pro": 0.5}})
    return ["compare", str(a), str(b), "--draws", "100"]


def test_the_table_names_both_runs_and_shows_mean_and_classes(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(runs) == 0
    shown = capsys.readouterr().out
    assert "A: first 1 (float32), threshold 0.5 (fitted for first), no context" in shown
    assert "B: second 1 (float32)" in shown
    assert "24 common pictures" in shown
    assert any(line.strip().startswith("mean of 2 classes") for line in shown.replace("│", " ").splitlines())
    for text in ("x (6 / 6)", "y (6 / 6)", "pooled (12 / 12)", "balanced accuracy", "pixel PRO", "-25.0"):
        assert text in shown


def test_json_is_one_record_per_set(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*runs, "--json", "--score", "score_raw"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert record["schema"] == "anomaly-ov.comparison/1"
    assert record["score"] == "score_raw"
    assert record["mean"]["metrics"]["auroc"]["difference"] > 0
    assert record["mean"]["metrics"]["auroc"]["p_value"] <= 1


def test_what_is_left_out_is_said(tmp_path: Path, runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fewer = {id_: values for id_, values in _pictures(0).items() if id_ != "x/0.png"}
    write_run(tmp_path / "b", fewer, "second")
    assert run(runs) == 0
    assert "set: only in A: 1 (x/0.png)" in capsys.readouterr().err


def test_mistakes_are_one_line(tmp_path: Path, runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*runs, "--score", "best"]) == 2
    assert "--score best is not known here" in capsys.readouterr().err
    other = write_run(tmp_path / "c", _pictures(0), dataset="other")
    assert run(["compare", runs[1], str(other)]) == 2
    assert "different data sets" in capsys.readouterr().err
    assert run(["compare", runs[1], str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_classes_of_one_label_are_not_counted_into_the_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = _pictures(0.2) | {"z/0.png": ("z", 0, 0.1)}
    runs = [str(write_run(tmp_path / name, pictures, name)) for name in ("a", "b")]
    assert run(["compare", *runs, "--draws", "100"]) == 0
    assert "mean of 2 classes" in " ".join(capsys.readouterr().out.split())
