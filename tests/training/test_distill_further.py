"""Distillation that goes on from a model, and on smaller crops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from anomaly_ov.errors import CheckpointMismatch
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.training import runs
from anomaly_ov.training.checkpoint import RUN
from anomaly_ov.training.distill import DistillConfig
from anomaly_ov.training.loop import LoopConfig
from anomaly_ov.training.recipe import EncoderRecipe
from anomaly_ov.training.runs import train_encoder
from anomaly_ov.training.teacher import MobileNetEdgeTPU
from training_fixtures import encoder_config, labelled_folder

STILL = LoopConfig(steps=1, batch=2, workers=0, log_every=1, warmup_steps=1, learning_rate=0.0)
RECIPE = EncoderRecipe(
    "small", encoder_config(), DistillConfig(((), ("block7",)), statistics_crops=32), ("one",), STILL
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    labelled_folder(root / "one")
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(MobileNetEdgeTPU().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def start(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that began with other weights than the runs below would by themselves."""
    other = replace(RECIPE, loop=replace(STILL, seed=5))
    return train_encoder(other, data, teacher, tmp_path_factory.mktemp("start"))


def learnt(folder: Path) -> dict[str, Tensor]:
    """Weights of the encoder without the batch norms' running figures, which follow the crops at any rate."""
    return dict(AnomalyModel.from_pretrained(folder).encoder.named_parameters())


def test_a_run_begins_with_the_start_models_encoder(data: Path, teacher: Path, start: Path, tmp_path: Path) -> None:
    before = learnt(start)
    further = learnt(train_encoder(RECIPE, data, teacher, tmp_path / "further", start=start))
    fresh = learnt(train_encoder(RECIPE, data, teacher, tmp_path / "fresh"))
    assert all(torch.equal(before[name], further[name]) for name in before)  # both saved as fp16
    assert any(not torch.equal(before[name], fresh[name]) for name in before)
    recorded = [json.loads((tmp_path / name / RUN).read_text())["data"] for name in ("further", "fresh")]
    assert "start" in recorded[0]
    assert "start" not in recorded[1]


def test_another_start_is_another_run(data: Path, teacher: Path, start: Path, tmp_path: Path) -> None:
    train_encoder(RECIPE, data, teacher, tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"data\.start differ"):
        train_encoder(RECIPE, data, teacher, tmp_path, start=start)


def test_a_start_model_of_another_shape_is_refused_before_anything_is_written(
    data: Path, teacher: Path, small_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointMismatch, match=r"the encoder of .*small does not fit"):
        train_encoder(RECIPE, data, teacher, tmp_path / "run", start=small_folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("crop", "side"), [(None, 32), (48, 48)])
def test_crops_have_the_recipes_side(
    data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: int | None, side: int
) -> None:
    sides = []
    loop = runs.run

    def run(task: Any, *arguments: Any) -> Any:
        sides.append(tuple(task.samples()[0].shape))
        return loop(task, *arguments)

    monkeypatch.setattr(runs, "run", run)
    folder = train_encoder(replace(RECIPE, crop=crop), data, teacher, tmp_path)
    assert sides == [(side, side, 3)]
    assert AnomalyModel.from_pretrained(folder).config.views.base_size == 32  # of views, whatever it was trained on
