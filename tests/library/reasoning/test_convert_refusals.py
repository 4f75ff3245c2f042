"""LLaVA-OneVision checkpoints that cannot be converted whole: an error that says what is lost, and nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Config, SiglipVisionConfig, SiglipVisionModel

from anomaly_ov.errors import CheckpointMismatch, ConfigError, UnsafeCheckpoint, UsageError, WeightsError
from llava_fixtures import (
    ROWS,
    TEXT,
    VISION,
    Stock,
    converted,
    make_next,
    refused,
    rewrite,
    rewrite_config,
    same_language,
    shard,
    stock_model,
)


def test_a_head_saved_beside_what_it_is_tied_to_must_be_the_same(stock: Stock, tmp_path: Path) -> None:
    folder, key = tmp_path / "tied", "language_model.model.embed_tokens.weight"
    stock_model(tie=True).save_pretrained(folder)
    stock.tokenizer.save_pretrained(folder)
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors[key]})
    converted(stock, folder, tmp_path / "out")
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors[key] * 2})
    assert "lm_head.weight is not language_model" in refused(stock, folder, CheckpointMismatch)


def test_only_what_the_tower_never_reads_may_be_left_over(stock: Stock, folder: Path, tmp_path: Path) -> None:
    make_next(folder)
    names = [f"head.{n}" for n in ("probe", "mlp.fc1.weight")] + ["post_layernorm.weight", "embeddings.position_ids"]
    prefix = "model.vision_tower.vision_tower.vision_model."
    extra = {prefix + name: torch.ones(2) for name in names}
    extra["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    rewrite(folder, lambda tensors: tensors | extra)
    same_language(converted(stock, folder, tmp_path / "out", encoder=stock.siglip), stock)
    rewrite(folder, lambda tensors: tensors | {f"{prefix}encoder.layers.3.mlp.fc1.bias": torch.ones(24)})
    said = refused(stock, folder, CheckpointMismatch, encoder=stock.siglip)
    assert "1 unexpected: " + prefix + "encoder.layers.3.mlp.fc1.bias" in said


MISSING = {
    "one tensor": (
        lambda n: "layers.1.mlp.up_proj" not in n,
        "1 of 26 of the language model: model.language",
    ),
    "head": (lambda n: "lm_head" not in n, "all 1 of the language model's head"),
    "newline": (lambda n: n != "image_newline", "all 1 of the image newline"),
    "projector": (lambda n: "projector" not in n, "all 4 of the projector"),
    "half the tower": (lambda n: "tower.encoder.layers.2" not in n, "16 of 51 of the vision tower"),
    "tower": (lambda n: "tower" not in n, "all 51 of the vision tower"),
    "language model": (lambda n: "language_model.model" not in n, "all 26 of the language model"),
    "all but the projector": (lambda n: "projector" in n, "all 26 of the language model"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_named(stock: Stock, folder: Path, what: str) -> None:
    keep, expected = MISSING[what]
    rewrite(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if keep(name)})
    assert expected in refused(stock, folder, CheckpointMismatch)


def test_all_that_is_wrong_is_named_at_once(stock: Stock, folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors["image_newline"] = torch.ones(31)
        tensors["multi_modal_projector.linear_1.bias"] = torch.ones(32, dtype=torch.int8)
        tensors["model.multi_modal_projector.linear_2.bias"] = torch.ones(32)
        tensors["language_model.model.layers.0.mlp.extra"] = torch.ones(3)
        return tensors

    rewrite(folder, spoil)
    said = refused(stock, folder, CheckpointMismatch)
    assert "1 unexpected: language_model.model.layers.0.mlp.extra" in said
    assert "1 there twice: model.multi_modal_projector.linear_2.bias and multi_modal_projector.linear_2.bias" in said
    assert "1 of another shape: image_newline is [31], must be [32]" in said
    assert "1 not floating point: multi_modal_projector.linear_1.bias is I8" in said


def test_shapes_are_refused_before_anything_is_read(
    stock: Stock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly_ov.reasoning.checkpoint.Checkpoint.read", lambda *a: pytest.fail("was read"))
    rewrite_config(folder, text_config=Qwen2Config(**(TEXT | {"vocab_size": ROWS + 1})).to_dict())
    said = refused(stock, folder, CheckpointMismatch)
    assert f"embed_tokens.weight is [{ROWS}, 32], must be [{ROWS + 1}, 32]" in said


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin", "mm_projector.bin"])
@pytest.mark.parametrize("beside", ["nothing", "a configuration", "a whole model"])
def test_adapters_are_never_dropped(stock: Stock, folder: Path, file: str, beside: str) -> None:
    if beside != "a whole model":
        (folder / "model.safetensors").unlink()
    if beside == "nothing":
        (folder / "config.json").unlink()
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({key: torch.ones(4, 32)}, folder / file)
    said = refused(stock, folder, WeightsError)
    if file.endswith(".bin"):
        assert file in said or "config.json is missing" in said
    elif beside == "a whole model":
        assert f"1 unexpected: {key}" in said
    else:
        assert "language model" in said
        assert "missing" in said


def test_a_tuned_tower_is_not_replaced(stock: Stock, folder: Path) -> None:
    make_next(folder, mm_tunable_parts="mm_vision_tower,mm_mlp_adapter,mm_language_model")
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "vision_tower" not in name})
    assert "vision tower, which was tuned" in refused(stock, folder, CheckpointMismatch, encoder=stock.siglip)


def test_shards(stock: Stock, folder: Path, tmp_path: Path) -> None:
    shard(folder)
    same_language(converted(stock, folder, tmp_path / "out"), stock)
    second, index = folder / "model-00002-of-00003.safetensors", folder / "model.safetensors.index.json"
    content, listed = second.read_bytes(), index.read_text()
    second.write_bytes(content[: len(content) // 2])
    assert second.name in refused(stock, folder, UnsafeCheckpoint)
    second.unlink()
    assert f"1 of 3 shards are missing ({second.name})" in refused(stock, folder, WeightsError)
    index.unlink()
    assert "missing" in refused(stock, folder, CheckpointMismatch)
    second.write_bytes(content)
    index.write_text(listed.replace(second.name, "../" + second.name))
    assert "not files beside it" in refused(stock, folder, UnsafeCheckpoint)
    index.write_text(listed.replace('"image_newline"', '"image_newlines"'))
    assert "lack what model.safetensors.index.json lists: image_newlines" in refused(stock, folder, CheckpointMismatch)
    index.write_text(listed)
    shutil.copy(folder / "model-00001-of-00003.safetensors", second)
    assert "is in both model-0000" in refused(stock, folder, CheckpointMismatch)
    index.write_text("[]")
    assert "no index of shards" in refused(stock, folder, UnsafeCheckpoint)


def test_a_truncated_file_and_no_file(stock: Stock, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "no complete safetensors file" in refused(stock, folder, UnsafeCheckpoint)
    path.unlink()
    assert "no weights" in refused(stock, folder, WeightsError)


@pytest.mark.parametrize(("value", "dtype", "expected"), [
    (float("nan"), "float32", "image_newline holds values that are not finite"),
    (1e9, "float16", "float16 cannot hold image_newline"),
])  # fmt: skip
def test_values_must_be_finite(stock: Stock, folder: Path, value: float, dtype: str, expected: str) -> None:
    rewrite(folder, lambda tensors: tensors | {"image_newline": torch.full((32,), value)})
    assert expected in refused(stock, folder, CheckpointMismatch, dtype=dtype)


@pytest.mark.parametrize(("fields", "expected"), [
    ({"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}, "model_type = 'llava' is no LLaVA-OneVision"),
    ({"text_config": None}, "text_config is missing"),
    ({"text_config": TEXT | {"model_type": "qwen2", "hidden_size": 10**9}}, "hidden_size = 1000000000 is out of range"),
    ({"text_config": TEXT | {"model_type": "no-such"}}, "refuses it"),
    ({"vision_feature_layer": [-1, -2]}, "vision_feature_layer = [-1, -2]"),
    ({"vision_feature_layer": -2}, "reads hidden state 2 of the vision tower, not 3"),
    ({"vision_feature_select_strategy": "default"}, "strategy 'default'"),
])  # fmt: skip
def test_a_configuration_that_cannot_be_followed(
    stock: Stock, folder: Path, fields: dict[str, Any], expected: str
) -> None:
    rewrite_config(folder, **fields)
    assert expected in refused(stock, folder, ConfigError)


@pytest.mark.parametrize(("fields", "expected"), [
    ({"mm_projector_type": "linear"}, "mm_projector_type = 'linear'"),
    ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type = 'flat'"),
    ({"mm_resampler_type": "qformer"}, "mm_resampler_type = 'qformer'"),
    ({"mm_hidden_size": 1152}, "mm_hidden_size = 1152, but the vision tower's width is 16"),
    ({"vocab_size": 0}, "vocab_size = 0 is out of range"),
    ({"num_attention_heads": "many"}, "num_attention_heads = 'many' is out of range"),
])  # fmt: skip
def test_a_llava_next_configuration_that_cannot_be_followed(
    stock: Stock, folder: Path, fields: dict[str, Any], expected: str
) -> None:
    make_next(folder, **fields)
    assert expected in refused(stock, folder, ConfigError, encoder=stock.siglip)


def test_the_released_tower_is_known_and_another_must_be_named(stock: Stock, folder: Path) -> None:
    make_next(folder)
    assert "mm_vision_tower = 'a/local/tower' does not say" in refused(stock, folder, ConfigError)
    make_next_config = {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_hidden_size": 1152}
    rewrite_config(folder, **make_next_config)
    said = refused(stock, folder, CheckpointMismatch, levels=None, final=26)
    assert "of the vision tower: tower.encoder.layers.3." in said
    assert "patch_embedding.weight is [16, 3, 7, 7], must be [1152, 3, 14, 14]" in said


def test_sources_that_are_none_or_one_too_many(stock: Stock, folder: Path, tmp_path: Path) -> None:
    assert "has no anomaly expert" in refused(stock, folder, UsageError, expert=None)
    assert "no checkpoint file" in refused(stock, folder, WeightsError, expert=tmp_path / "none.pth")
    assert "has a vision tower of its own" in refused(stock, folder, UsageError, encoder=stock.siglip)
    assert "dtype = 'int8' is unknown" in refused(stock, folder, UsageError, dtype="int8")
    wide = tmp_path / "wide"
    SiglipVisionModel(SiglipVisionConfig(**(VISION | {"hidden_size": 32}))).save_pretrained(wide)
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "vision_tower" not in name})
    assert "32 wide, the projector of" in refused(stock, folder, ConfigError, encoder=wide)
    assert "cannot load the encoder" in refused(stock, folder, WeightsError, encoder=tmp_path / "nowhere")
