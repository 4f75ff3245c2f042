"""``train projection`` and ``train encoder --start``, from the command line to their files and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from anomaly_ov.cli.main import run
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.training import projection_fit
from anomaly_ov.training.teacher import MobileNetEdgeTPU
from training_fixtures import ENCODER, labelled_folder

PROJECTION = {"name": "made", "folders": ["one"], "parts": [{"levels": [0, 1], "taps": ["block7"]}], "crops": 16}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    labelled_folder(tmp_path / "data/one")
    return tmp_path / "data"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(PROJECTION))
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(MobileNetEdgeTPU().state_dict(), path)
    return path


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "projection", "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--recipe", "--data", "--model", "--teacher", "--out", "--test", "--device"):
        assert option in said


def test_a_projection_is_fitted_and_said_to_stderr(
    data: Path,
    recipe: Path,
    teacher: Path,
    small_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(projection_fit, "HELD_OUT", 16)
    out = tmp_path / "out"
    common = ["train", "projection", "--recipe", str(recipe), "--data", str(data), "--teacher", str(teacher)]
    assert run([*common, "--model", str(small_folder), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    (share,) = json.loads((out / "projection.json").read_text())["explained"]
    # A long path may be wrapped anywhere, by whole words.
    assert f"explained on other crops: {share:.3f}" in " ".join(said.err.split())
    assert [part.width for part in AnomalyModel.from_pretrained(out).config.projection] == [48]


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"--recipe": None}, 2, "Missing option"),
        ({"--model": None}, 2, "Missing option"),
        ({"--teacher": None}, 2, "Missing option"),
        ({"--steps": "3"}, 2, "--steps"),
        ({"--recipe": "none.yaml"}, 2, "none.yaml"),
        ({"--model": "colossal"}, 4, "no model called 'colossal'"),
        ({"--teacher": "none.safetensors"}, 4, "no teacher weights"),
        ({"--data": "nowhere"}, 2, "no pictures in nowhere"),
        ({"--device": "cuda:99"}, 5, "cuda:99"),
    ],
    ids=lambda value: " ".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else "",
)
def test_wrong_arguments_end_in_one_line(
    data: Path,
    recipe: Path,
    teacher: Path,
    small_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str | None],
    code: int,
    said: str,
) -> None:
    options: dict[str, str | None] = {
        "--recipe": str(recipe),
        "--data": str(data),
        "--model": str(small_folder),
        "--teacher": str(teacher),
        "--out": str(tmp_path / "out"),
    }
    given = [word for pair in (options | changed).items() if pair[1] is not None for word in pair]
    assert run(["train", "projection", *map(str, given)]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("start", "code", "said"), [("colossal", 4, "no model called 'colossal'"), ("small", 4, "does not fit")]
)
def test_a_wrong_start_model_ends_in_one_line(
    data: Path,
    teacher: Path,
    small_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    start: str,
    code: int,
    said: str,
) -> None:
    path = tmp_path / "encoder.yaml"
    values = {"name": "e", "folders": ["one"], "encoder": ENCODER, "distill": {"taps": [[], ["block7"]]}}
    path.write_text(yaml.safe_dump(values))
    common = ["--recipe", str(path), "--data", str(data), "--teacher", str(teacher), "--out", str(tmp_path / "out")]
    begin = str(small_folder) if start == "small" else start
    assert run(["train", "encoder", *common, "--start", begin]) == code
    assert said in capsys.readouterr().err
