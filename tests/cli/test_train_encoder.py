"""``train encoder`` by block and end to end, from the command line to the line it ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from anomaly_ov.cli.main import run
from anomaly_ov.training.blockwise import HELD_OUT
from anomaly_ov.training.teacher import MobileNetEdgeTPU
from training_fixtures import ENCODER, labelled_folder

LOOP = {"steps": 1, "batch": 2, "workers": 0}
SHALLOW = ENCODER | {"backbone": {"model_type": "mobilenet_edgetpu", "depths": [1, 1, 1, 1, 1, 1]}}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    labelled_folder(tmp_path / "data/one")
    torch.manual_seed(0)
    save_file(MobileNetEdgeTPU().state_dict(), tmp_path / "teacher.safetensors")
    paths = {"--recipe": "recipe.yaml", "--data": "data", "--teacher": "teacher.safetensors", "--out": "out"}
    return ["train", "encoder", *(str(part) for name, path in paths.items() for part in (name, tmp_path / path))]


def write(folder: Path, encoder: dict[str, Any], distill: dict[str, Any]) -> None:
    values = {"name": "e", "folders": ["one"], "encoder": encoder, "loop": LOOP}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values | {"distill": {"statistics_crops": 4} | distill}))


@pytest.mark.parametrize("method", ["blockwise", "whole"])
def test_what_is_left_unexplained_is_said_and_kept(
    command: list[str], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, SHALLOW, {"method": method})
    assert run(command) == 0
    said = capsys.readouterr()
    assert said.out == ""
    shares = json.loads((tmp_path / "out" / HELD_OUT).read_text())["unexplained"]
    figures = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    assert list(shares) == ["stage1", "stage2"]
    # A long path may be wrapped anywhere, by whole words.
    assert f"left unexplained on other crops: {figures}" in " ".join(said.err.split())


def test_other_methods_say_where_the_model_is(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ENCODER, {"taps": [[], ["block7"]]})
    assert run(command) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "model written to" in said
    assert "unexplained" not in said
    assert not (tmp_path / "out" / HELD_OUT).exists()


def test_a_network_of_another_kind_is_refused_in_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ENCODER, {"method": "whole"})
    assert run(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "model_type = 'resnet'" in said
    assert "mobilenet_edgetpu" in said
