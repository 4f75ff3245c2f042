"""open_clip's layout converted: the same outputs as a plain forward pass over the original tensors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anomaly_ov.errors import CheckpointMismatch, UsageError, WeightsError
from anomaly_ov_lab.baselines.clip_towers import ClipTowers, load_towers
from anomaly_ov_lab.baselines.open_clip import (
    ARCHITECTURES,
    Architecture,
    clip_config,
    convert_open_clip,
    expected_shapes,
)

Tensors = dict[str, torch.Tensor]


def sizes(activation: str = "gelu") -> Architecture:
    """Two vision blocks of width 24, three of text of width 16, heads 8 wide; 80 tokens in the small tokenizer."""
    return Architecture("small", 20, 32, 8, 24, 2, 16, 3, activation, vocabulary=80, sentence=77, head_width=8)


@pytest.fixture
def tensors() -> Tensors:
    generator = torch.Generator().manual_seed(6)
    shapes = expected_shapes(sizes())
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def block(
    tensors: Tensors, name: str, tokens: torch.Tensor, mask: torch.Tensor | None, activation: str
) -> torch.Tensor:
    width = tokens.shape[-1]
    attention = nn.MultiheadAttention(width, width // 8, batch_first=True).eval()
    own = {
        key.removeprefix(f"{name}.attn."): value for key, value in tensors.items() if key.startswith(f"{name}.attn.")
    }
    attention.load_state_dict(own)

    def norm(x: torch.Tensor, which: str) -> torch.Tensor:
        return nn.functional.layer_norm(x, (width,), tensors[f"{name}.{which}.weight"], tensors[f"{name}.{which}.bias"])

    def linear(x: torch.Tensor, which: str) -> torch.Tensor:
        return x @ tensors[f"{name}.mlp.{which}.weight"].T + tensors[f"{name}.mlp.{which}.bias"]

    normed = norm(tokens, "ln_1")
    tokens = tokens + attention(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
    wide = linear(norm(tokens, "ln_2"), "c_fc")
    wide = wide * torch.sigmoid(1.702 * wide) if activation == "quick_gelu" else wide / 2 * (1 + (wide / 2**0.5).erf())
    return tokens + linear(wide, "c_proj")


def norm_of(tensors: Tensors, name: str, tokens: torch.Tensor) -> torch.Tensor:
    return nn.functional.layer_norm(tokens, tokens.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def picture_features(tensors: Tensors, pixels: torch.Tensor, activation: str) -> torch.Tensor:
    patches = nn.functional.conv2d(pixels, tensors["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    first = tensors["visual.class_embedding"].expand(len(pixels), 1, -1)
    tokens = torch.cat([first, patches], dim=1) + tensors["visual.positional_embedding"]
    tokens = norm_of(tensors, "visual.ln_pre", tokens)
    for index in range(2):
        tokens = block(tensors, f"visual.transformer.resblocks.{index}", tokens, None, activation)
    return norm_of(tensors, "visual.ln_post", tokens[:, 0]) @ tensors["visual.proj"]


def text_features(tensors: Tensors, tokens: torch.Tensor, activation: str) -> torch.Tensor:
    """Padded with 0, read at the highest token number, as open_clip does."""
    hidden = tensors["token_embedding.weight"][tokens] + tensors["positional_embedding"]
    mask = torch.full((77, 77), float("-inf")).triu(1)
    for index in range(3):
        hidden = block(tensors, f"transformer.resblocks.{index}", hidden, mask, activation)
    hidden = norm_of(tensors, "ln_final", hidden)
    return hidden[torch.arange(len(tokens)), tokens.argmax(dim=-1)] @ tensors["text_projection"]


def same_outputs(towers: ClipTowers, tensors: Tensors, activation: str) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    expected = picture_features(tensors, pixels, activation)
    found = towers.project(towers.run(towers.embed(pixels))[:, 0])
    torch.testing.assert_close(found, expected / expected.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5)
    texts = ["a photo of a cat.", "damaged"]
    tokens = torch.zeros(2, 77, dtype=torch.long)
    for row, text in enumerate(texts):
        ids = towers.tokenizer(text)["input_ids"]
        tokens[row, : len(ids)] = torch.tensor(ids)
    expected = text_features(tensors, tokens, activation)
    torch.testing.assert_close(
        towers.sentences(texts), expected / expected.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5
    )
    assert towers.temperature == pytest.approx(math.exp(-float(tensors["logit_scale"])))


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_same_outputs_as_the_original(tensors: Tensors, clip_folder: Path, tmp_path: Path, activation: str) -> None:
    torch.save(tensors, tmp_path / "weights.pt")
    out = convert_open_clip(tmp_path / "weights.pt", tmp_path / "clip", clip_folder, sizes(activation))
    same_outputs(load_towers(out, "cpu"), tensors, activation)


def test_other_ways_to_save(tensors: Tensors, clip_folder: Path, tmp_path: Path) -> None:
    """safetensors; a training checkpoint in half precision whose names begin with "module."."""
    save_file(tensors, tmp_path / "weights.safetensors")
    half = {f"module.{name}": tensor.half() for name, tensor in tensors.items()}
    torch.save({"epoch": 3, "state_dict": half}, tmp_path / "epoch.pt")
    out = convert_open_clip(tmp_path / "weights.safetensors", tmp_path / "clip", clip_folder, sizes())
    same_outputs(load_towers(out, "cpu"), tensors, "gelu")
    out = convert_open_clip(tmp_path / "epoch.pt", tmp_path / "clip", clip_folder, sizes())
    rounded = {name: tensor.half().float() for name, tensor in tensors.items()}
    same_outputs(load_towers(out, "cpu"), rounded, "gelu")


def test_the_published_architecture() -> None:
    """208.38 million numbers as open_clip's model profile counts them, 14 and 10 heads of 64, exact GELU."""
    wanted = ARCHITECTURES["ViT-B-16-plus-240"]
    shapes = expected_shapes(wanted)
    assert sum(math.prod(shape) for shape in shapes.values()) / 1e6 == pytest.approx(208.38, abs=0.005)
    assert shapes["visual.positional_embedding"] == (226, 896)
    assert shapes["visual.transformer.resblocks.11.attn.in_proj_weight"] == (2688, 896)
    assert shapes["text_projection"] == (640, 640)
    config = clip_config(wanted)
    assert config["vision_config"]["num_attention_heads"] == 14
    assert config["text_config"]["num_attention_heads"] == 10
    assert config["text_config"]["eos_token_id"] == 49407
    assert config["vision_config"]["hidden_act"] == config["text_config"]["hidden_act"] == "gelu"
    for name, millions in (("ViT-B-16", 149.62), ("ViT-L-14-336", 427.94)):
        numbers = sum(math.prod(shape) for shape in expected_shapes(ARCHITECTURES[name]).values())
        assert numbers / 1e6 == pytest.approx(millions, abs=0.005)


def test_misfits_are_named(tensors: Tensors, clip_folder: Path, tmp_path: Path) -> None:
    def refused(changed: Tensors, message: str) -> None:
        torch.save(changed, tmp_path / "weights.pt")
        with pytest.raises(CheckpointMismatch, match=message):
            convert_open_clip(tmp_path / "weights.pt", tmp_path / "clip", clip_folder, sizes())
        assert not (tmp_path / "clip").exists()

    name = "visual.transformer.resblocks.1.attn.in_proj_bias"
    refused({key: value for key, value in tensors.items() if key != name}, f"1 missing: {name}")
    refused(tensors | {"visual.head": torch.zeros(3)}, r"1 unexpected: visual\.head")
    refused(tensors | {"visual.proj": tensors["visual.proj"].T}, r"visual\.proj is \[20, 24\], must be \[24, 20\]")
    refused(tensors | {"visual.proj": tensors["visual.proj"] / 0}, "not finite, such as visual.proj")


def test_the_tokenizer_must_fit(tensors: Tensors, clip_folder: Path, tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="no tokenizer in"):
        convert_open_clip(tmp_path / "weights.pt", tmp_path / "clip", tmp_path, sizes())
    with pytest.raises(CheckpointMismatch, match="knows 80 tokens, the weights 49408"):
        convert_open_clip(tmp_path / "weights.pt", tmp_path / "clip", clip_folder)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot load the tokenizer"):
        convert_open_clip(tmp_path / "weights.pt", tmp_path / "clip", tmp_path / "texts", sizes())


def test_what_cannot_be_written(tensors: Tensors, clip_folder: Path, tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="unknown architecture 'RN50'"):
        convert_open_clip(tmp_path / "weights.pt", tmp_path / "clip", clip_folder, "RN50")
    with pytest.raises(UsageError, match="is a file"):
        convert_open_clip(tmp_path / "weights.pt", tmp_path / "weights.pt", clip_folder, sizes())
