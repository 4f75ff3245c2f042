"""Released checkpoints: what fits is loaded key by key; what is wrong, torn or hostile is a named error."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import golden_fixtures as golden
from anomaly_ov.configuration import parse
from anomaly_ov.errors import CheckpointMismatch, ConfigError, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.models.config import RELEASED_SCORING, ExpertConfig
from anomaly_ov.models.convert import convert, convert_model, load_released_expert
from anomaly_ov.models.encoder import encoder_from_pretrained
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.features import Features
from anomaly_ov.models.model import AnomalyModel

SMALL = ExpertConfig(width=6, hidden=4, grid_hw=(3, 3), levels=2)


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Expert(SMALL).state_dict()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pretrained_expert.pth"


def same(expert: Expert, state: dict[str, Tensor]) -> bool:
    loaded = expert.state_dict()
    return list(loaded) == list(state) and all(torch.equal(loaded[key], state[key].float()) for key in state)


def test_the_released_names_and_shapes_load_into_the_default_expert(path: Path) -> None:
    released = {name: torch.full(shape, 0.5) for name, shape in golden.released_shapes().items()}
    torch.save(released, path)
    assert same(load_released_expert(path), released)


@pytest.mark.parametrize("prefix", ["", "module.", "model.anomaly_encoder.", "positive_embedding."])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_prefixes_nesting_and_both_file_formats_are_read(
    path: Path, state: dict[str, Tensor], prefix: str, nested: bool, zipped: bool
) -> None:
    named = {prefix + key: value for key, value in state.items()}
    torch.save({"state_dict": named, "epoch": 2} if nested else named, path, _use_new_zipfile_serialization=zipped)
    assert same(load_released_expert(path, SMALL), state)


def test_a_loaded_expert_runs_and_trains_without_touching_the_file_or_the_seed(
    path: Path, state: dict[str, Tensor]
) -> None:
    torch.save({key: value.bfloat16() for key, value in state.items()}, path)
    before = torch.get_rng_state()
    expert = load_released_expert(path, SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    content = path.read_bytes()
    tokens = torch.randn(1, 9, 6)
    expert(Features(tokens, (tokens, tokens), (3, 3)), (1,)).logit_B.sum().backward()
    with torch.no_grad():
        for parameter in expert.parameters():
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    assert path.read_bytes() == content


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversion_keeps_values_types_and_origin(path: Path, state: dict[str, Tensor], dtype: torch.dtype) -> None:
    stored = {key: value.to(dtype) for key, value in state.items()}
    torch.save({"module." + key: value for key, value in stored.items()}, path)
    written = convert(path, path.parent / "new" / "folder", SMALL)
    assert written == path.parent / "new" / "folder" / "expert.safetensors"
    with safe_open(written, "pt") as file:
        metadata = file.metadata()
        assert {key: file.get_tensor(key).dtype for key in file.keys()} == dict.fromkeys(stored, dtype)  # noqa: SIM118
    assert metadata["source"] == "pretrained_expert.pth"
    assert len(metadata["source_sha256"]) == 64
    assert parse(ExpertConfig, json.loads(metadata["config"])) == SMALL
    assert same(load_released_expert(written, SMALL), stored)
    assert convert(written, path.parent / "again.safetensors", SMALL) == path.parent / "again.safetensors"
    assert [entry.name for entry in written.parent.iterdir()] == ["expert.safetensors"]


# A whole model


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    """A checkpoint of a SigLIP vision tower as wide as ``SMALL``, 3 x 3 patches."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(1)
    config = SiglipVisionConfig(
        hidden_size=6, num_attention_heads=1, intermediate_size=8, num_hidden_layers=4, image_size=12, patch_size=4
    )
    SiglipVisionModel(config).save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


def test_expert_and_encoder_become_one_model(path: Path, state: dict[str, Tensor], siglip: Path) -> None:
    torch.save(state, path)
    folder = convert_model(path, path.parent / "model", siglip, SMALL, levels=(1, 2), final=3)
    model = AnomalyModel.from_pretrained(folder)
    assert (model.config.name, model.config.views.base_size) == ("model", 12)
    assert model.config.scoring == RELEASED_SCORING, "the card says that the score is the head's own"
    assert same(model.expert, state)
    pixels_NHW3 = torch.randint(0, 256, (3, 12, 12, 3), dtype=torch.uint8)
    encoder = encoder_from_pretrained(siglip, (1, 2), 3)
    with torch.no_grad():
        features = encoder(encoder.normalise(pixels_NHW3))
        expected = load_released_expert(path, SMALL)(features, (3,)).score_B
        torch.testing.assert_close(model(pixels_NHW3, (3,)).score_B, expected)
    card = (folder / "README.md").read_text()
    assert "pretrained_expert.pth" in card
    assert str(siglip) in card


def test_an_encoder_of_another_width_is_named_with_the_experts(path: Path, siglip: Path) -> None:
    wide = ExpertConfig(width=7, hidden=4, grid_hw=(3, 3), levels=2)
    torch.save(Expert(wide).state_dict(), path)
    with pytest.raises(ConfigError, match=r"expert\.width is 7, the encoder gives 6"):
        convert_model(path, path.parent / "model", siglip, wide, levels=(1, 2), final=3)
    assert not (path.parent / "model").exists()


def test_a_model_is_no_single_file(path: Path, siglip: Path) -> None:
    path.touch()
    for out in (path, path.parent / "model.safetensors"):
        with pytest.raises(UsageError, match="is no folder"):
            convert_model(path, out, siglip, SMALL)


# What does not fit


def test_missing_and_unexpected_keys_are_named(path: Path, state: dict[str, Tensor]) -> None:
    del state["positive_embedding"]
    state["vision_tower.weight"] = torch.zeros(2)
    torch.save(state, path)
    with pytest.raises(CheckpointMismatch, match=r"1 missing: positive_embedding; 1 unexpected: vision_tower.weight"):
        load_released_expert(path, SMALL)


def test_long_lists_are_cut_after_the_first_names(path: Path) -> None:
    torch.save({}, path)
    with pytest.raises(CheckpointMismatch, match=r"24 missing: positive_embedding, negative_embedding, [^,]+, \.\.\."):
        load_released_expert(path, SMALL)


def test_a_prefix_is_stripped_once_and_not_where_it_would_hide_a_clash(path: Path, state: dict[str, Tensor]) -> None:
    clash = {**{"module." + key: value for key, value in state.items()}, "positive_embedding": torch.ones(1, 4)}
    torch.save(clash, path)
    with pytest.raises(CheckpointMismatch, match=r"missing: .*unexpected: module\."):
        load_released_expert(path, SMALL)


def test_other_shapes_are_named_with_both(path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, path)
    with pytest.raises(CheckpointMismatch, match=r"pooling_layer.0.weight is \(1, 9\), not \(1, 12\)"):
        load_released_expert(path, ExpertConfig(width=6, hidden=4, grid_hw=(3, 4), levels=2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(path: Path, state: dict[str, Tensor], value: float) -> None:
    state["final_predictor.2.bias"].fill_(value)
    torch.save(state, path)
    with pytest.raises(CheckpointMismatch, match=r"1 not finite: final_predictor.2.bias"):
        load_released_expert(path, SMALL)


def test_integers_are_refused(path: Path, state: dict[str, Tensor]) -> None:
    state["final_predictor.2.bias"] = torch.zeros(1, dtype=torch.int64)
    torch.save(state, path)
    with pytest.raises(CheckpointMismatch, match=r"not floating point: final_predictor.2.bias is torch.int64"):
        load_released_expert(path, SMALL)


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"positive_embedding": 3},
        {1: torch.zeros(1)},
        {"positive_embedding": torch.zeros(1, 4).to_sparse()},
        {"positive_embedding": torch.zeros(1, 4, device="meta")},
    ],
    ids=["list", "number", "key", "sparse", "meta"],
)
def test_anything_but_named_plain_tensors_is_refused(path: Path, content: Any) -> None:
    torch.save(content, path)
    with pytest.raises(CheckpointMismatch):
        load_released_expert(path, SMALL)


# What is torn, hostile or huge


class Attack:
    """A pickle that would create the file named in it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(path: Path, state: dict[str, Tensor], zipped: bool) -> None:
    target = path.parent / "owned"
    torch.save({**state, "extra": Attack(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpoint, match="more than plain tensors"):
        load_released_expert(path, SMALL)
    path.write_bytes(pickle.dumps(Attack(target), protocol=2))
    with pytest.raises(UnsafeCheckpoint):
        convert(path, path.parent / "out.safetensors", SMALL)
    assert not target.exists()
    assert not (path.parent / "out.safetensors").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_anywhere_is_refused(path: Path, state: dict[str, Tensor], zipped: bool) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in (0, 1, 3, 4, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(UnsafeCheckpoint, match=r"pretrained_expert\.pth") as caught:
            load_released_expert(path, SMALL)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"PK\x03\x04" + bytes(500), b"\x80\x02." * 9])
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UnsafeCheckpoint):
        load_released_expert(path, SMALL)


def test_a_torn_safetensors_file_is_refused(path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, path)
    written = convert(path, path.parent / "expert.safetensors", SMALL)
    written.write_bytes(written.read_bytes()[:-7])
    with pytest.raises(UnsafeCheckpoint, match="no complete safetensors file"):
        load_released_expert(written, SMALL)


def test_large_files_are_refused_before_they_are_opened(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: takes no room
    with pytest.raises(WeightsError, match="2147483648 bytes, more than"):
        load_released_expert(path, SMALL)


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    assert path.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="more than the 100000"):
        load_released_expert(path, SMALL, max_bytes=100_000)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no checkpoint file at .*pretrained_expert.pth"):
        load_released_expert(path)
