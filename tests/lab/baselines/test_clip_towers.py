"""The towers taken apart give what transformers' CLIP gives; folders that are none are named."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from anomaly_ov.errors import CheckpointMismatch, ConfigError, DeviceError, WeightsError
from anomaly_ov_lab.baselines.clip_towers import ClipTowers, Prompts, load_towers, probabilities


@pytest.fixture
def model(clip_folder: Path) -> Any:
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(clip_folder).eval()


def unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def test_pictures_as_transformers(towers: ClipTowers, model: Any, pixels_b3ss: torch.Tensor) -> None:
    expected = unit(model.get_image_features(pixels_b3ss).pooler_output)
    found = towers.project(towers.run(towers.embed(pixels_b3ss))[:, 0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_sentences_as_transformers(towers: ClipTowers, model: Any) -> None:
    texts = ["a photo of a cat.", "damaged", "x" * 500]
    tokens = towers.tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    expected = unit(model.get_text_features(**tokens).pooler_output)
    torch.testing.assert_close(towers.sentences(texts), expected, rtol=0, atol=1e-5)


def test_states_are_means_of_directions(towers: ClipTowers) -> None:
    states = towers.states(Prompts(("a cat.", "one dog."), ("broken",)))
    cat, dog, broken = towers.sentences(["a cat.", "one dog.", "broken"])
    torch.testing.assert_close(states[0], unit(cat + dog), rtol=0, atol=1e-6)
    torch.testing.assert_close(states[1], broken, rtol=0, atol=1e-6)


def test_another_size_resamples_positions(towers: ClipTowers) -> None:
    torch.manual_seed(0)
    positions = towers.vision.embeddings.position_embedding.weight
    flat = torch.zeros(1, 3, 48, 48)
    embedded = towers.embed(flat)
    assert embedded.shape == (1, 37, 32)
    grid = positions[1:].T.reshape(1, 32, 4, 4)
    resampled = torch.nn.functional.interpolate(grid, (6, 6), mode="bilinear", align_corners=False)
    expected = towers.vision.pre_layrnorm(resampled.flatten(2).transpose(1, 2))
    torch.testing.assert_close(embedded[:, 1:], expected, rtol=0, atol=1e-5)


def test_probability_is_a_softmax_with_temperature() -> None:
    """Golden: cosines 0.3 (normal) and 0.37 (anomalous) at 0.07 differ by one unit: 1 / (1 + 1 / e)."""
    states = torch.eye(2)[None]
    feature = torch.tensor([[0.3, 0.37]])
    assert float(probabilities(feature, states, 0.07)) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    many = torch.rand(2, 5, 3)
    states = torch.rand(2, 2, 3)
    expected = (torch.einsum("bpe,bke->bpk", many, states) / 0.01).softmax(dim=-1)[..., 1]
    torch.testing.assert_close(probabilities(many, states, 0.01), expected, rtol=0, atol=1e-5)


def test_temperature_is_the_clips_own(towers: ClipTowers, model: Any) -> None:
    assert towers.temperature == pytest.approx(1 / float(model.logit_scale.exp()))


def test_statistics_of_the_folder(clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    settings = {"image_mean": [0.5, 0.25, 0], "image_std": [0.5, 1, 2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    found = load_towers(folder, "cpu").normalise(white)
    assert found.shape == (1, 3, 32, 32)
    torch.testing.assert_close(found[0, :, 3, 7], torch.tensor([1, 0.75, 0.5]))
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"image_std": [0, 1, 1]}))
    with pytest.raises(ConfigError, match="image_mean and image_std"):
        load_towers(folder, "cpu")


def test_weights_must_be_all_there(clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"head.weight": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointMismatch, match=r"holds unexpected weights: 1, such as head\.weight"):
        load_towers(folder, "cpu")
    old = tensors | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(old, folder / "model.safetensors", {"format": "pt"})
    load_towers(folder, "cpu")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointMismatch, match=r"lacks weights: 1, such as visual_projection\.weight"):
        load_towers(folder, "cpu")


def test_what_is_no_clip(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/config.json").write_text('{"name": "tiny"}')
    with pytest.raises(WeightsError, match=r"its config\.json names no model_type"):
        load_towers(tmp_path / "ours")
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        load_towers(tmp_path, "cpu")
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot load the CLIP"):
        load_towers(folder, "cpu")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="it holds a 'bert'"):
        load_towers(folder, "cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        load_towers(folder, "cpu")
    with pytest.raises(DeviceError):
        load_towers(clip_folder, "cuda:63")


def test_revisions_tell_weights_apart(clip_folder: Path, other_clip_folder: Path) -> None:
    first, again, other = (load_towers(one, "cpu").revision for one in (clip_folder, clip_folder, other_clip_folder))
    assert first == again != other
