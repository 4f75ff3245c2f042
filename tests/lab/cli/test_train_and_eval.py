"""The training and measuring verbs, from the command line to their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from anomaly_ov.cli.main import run
from training_fixtures import labelled_folder

LOOP = {"steps": 2, "batch": 2, "workers": 0, "log_every": 1, "warmup_steps": 1}
VIEWS = {"base_size": 32, "grids": [[1, 1], [2, 1]], "cap": 64}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, name in enumerate(("one", "two")):
        labelled_folder(tmp_path / "data" / name, seed=seed)
    return tmp_path / "data"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    values = {"name": "made", "sets": ["one", "two"], "views": VIEWS, "expert": {"hidden": 8}, "loop": LOOP}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.slow
def test_from_leave_one_out_to_measured_model(
    data: Path, recipe: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--recipe", str(recipe), "--data", str(data), "--start", str(small_folder)]
    common += ["--cache", str(tmp_path / "cache")]
    assert run(["train", "leave-one-out", *common, "--out", str(tmp_path / "loso")]) == 0
    assert run(["train", "expert", *common, "--out", str(tmp_path / "final")]) == 0
    fit = ["train", "scoring", *common[:4], "--model", str(tmp_path / "final" / "model")]
    assert run([*fit, "--folds", str(tmp_path / "loso"), "--out", str(tmp_path / "fitted")]) == 0
    capsys.readouterr()
    model, summary = tmp_path / "fitted" / "model", tmp_path / "summary.json"
    measure = ["eval", "detect", "--data", str(data / "one"), "--model", str(model), "--summary", str(summary)]
    assert run([*measure, "--markdown"]) == 0
    assert "| one | 6 / 6 |" in capsys.readouterr().out
    (figures,) = json.loads(summary.read_text())
    assert figures["model"]["name"] == "made"
    assert figures["threshold_source"].startswith("20% false alarms on 2 training sets")
    assert figures["main"]["pixels"]["images"] == 12


def test_train_expert_refuses_test_pictures_among_its_own(
    data: Path, recipe: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"--recipe {recipe} --data {data} --start {small_folder} --out {tmp_path / 'x'}".split()
    assert run(["train", "expert", *arguments, "--test", str(data / "one")]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "expert"], 2, "Missing option"),
        (["train", "expert", "--recipe", "none.yaml", "--data", ".", "--start", "s", "--out", "o"], 2, "none.yaml"),
        (["eval", "detect", "--data", "nowhere"], 2, "no data set at nowhere"),
        (["eval", "detect", "--data", "nowhere", "--batch-size", "0"], 2, "batch-size"),
        (["eval", "detect", "--data", "nowhere", "--summary", "no/such/folder.json"], 2, "no folder no/such"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    assert said in capsys.readouterr().err


def test_what_training_says_goes_to_stderr(
    data: Path, recipe: Path, small_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = f"--recipe {recipe} --data {data} --start {small_folder} --out {tmp_path / 'x'}".split()
    assert run(["train", "expert", *arguments]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "model written to" in said.err


def test_an_absent_device_has_its_own_exit_code(
    data: Path, recipe: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", str(data), "--out", str(tmp_path / "x")]
    expert = ["train", "expert", "--recipe", str(recipe), "--start", str(small_folder), *common]
    assert run([*expert, "--device", "cuda:99"]) == 5
    assert "cuda:99" in capsys.readouterr().err


def test_two_sets_of_one_name_do_not_share_a_folder(
    data: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_folder(tmp_path / "other/one")
    measure = ["eval", "detect", "--data", str(data / "one"), "--data", str(tmp_path / "other/one")]
    assert run([*measure, "--model", str(small_folder), "--out", str(tmp_path / "x")]) == 2
    assert "two sets of one name" in capsys.readouterr().err
