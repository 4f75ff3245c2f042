"""LLaVA-OneVision checkpoints of two or three layers in both layouts: stock models, ways to spoil them, comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from anomaly_ov.errors import AnomalyOVError
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.encoder import encoder_from_pretrained
from anomaly_ov.models.expert import Expert
from anomaly_ov.reasoning.convert import convert_llava
from anomaly_ov.reasoning.folder import Reasoner, load_reasoner
from anomaly_ov.reasoning.tokenizer import train_tokenizer

LEVELS = (1, 2)
ROWS = 340  # of the embeddings; the tokenizer's ids end before that
TEXT = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 1e6,
    "max_position_embeddings": 512,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}


@dataclass(frozen=True)
class Stock:
    """A stock model and the folders that hold it."""

    model: Any
    tokenizer: Any
    folder: Path
    siglip: Path
    expert: Path


def stock_model(tie: bool = False, rows: int = ROWS, head: bool = False) -> Any:
    """Random weights far from their defaults, so that none can be mistaken for a fresh one."""
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=head).to_dict(),
        text_config=Qwen2Config(**(TEXT | {"vocab_size": rows}), tie_word_embeddings=tie).to_dict(),
        image_token_index=rows - 1,
        tie_word_embeddings=tie,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.3)
    return model.eval()


def save_stock(root: Path) -> Stock:
    """In Hugging Face's layout as transformers writes it."""
    model = stock_model()
    model.save_pretrained(root / "llava")
    tokenizer = train_tokenizer(["the small scratch on the left side of the metal plate"], 320)
    tokenizer.save_pretrained(root / "llava")
    siglip = SiglipVisionModel(SiglipVisionConfig(**VISION))
    siglip.save_pretrained(root / "siglip")
    tower = encoder_from_pretrained(root / "siglip", LEVELS, 3)
    torch.manual_seed(1)
    torch.save(Expert(expert_for(tower, ExpertConfig())).state_dict(), root / "expert.pth")
    return Stock(model, tokenizer, root / "llava", root / "siglip", root / "expert.pth")


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    tensors = change(tensors_of(folder))
    save_file(
        {key: t.contiguous().clone() for key, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def rewrite_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def to_next(name: str) -> str:
    """transformers' saved name -> LLaVA-NeXT's."""
    for old, new in (
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("image_newline", "model.image_newline"),
        ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise AssertionError(name)


def to_new(name: str) -> str:
    """transformers' saved name -> what the module itself calls it."""
    for old, new in (("language_model.model.", "model.language_model."), ("language_model.lm_head.", "lm_head.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return f"model.{name}"


def make_next(folder: Path, model_type: str = "llava_qwen", **fields: Any) -> Path:
    """The folder in LLaVA-NeXT's layout."""
    rewrite(folder, lambda tensors: {to_next(name): tensor for name, tensor in tensors.items()})
    settings = {
        "model_type": model_type,
        "mm_vision_tower": "a/local/tower",
        "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "anyres_max_9",
    }
    (folder / "config.json").write_text(json.dumps(TEXT | settings | fields))
    return folder


def shard(folder: Path, count: int = 3) -> None:
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    listed = {}
    for index in range(count):
        name = f"model-{index + 1:05d}-of-{count:05d}.safetensors"
        part = dict(list(tensors.items())[index::count])
        save_file(part, folder / name, {"format": "pt"})
        listed |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))


def converted(stock: Stock, folder: Path, out: Path, **options: Any) -> Reasoner:
    path = folder / "config.json"
    final = 2 if path.is_file() and "llava_onevision" not in path.read_text() else 3
    defaults = {"expert": stock.expert, "dtype": "float32", "levels": LEVELS, "final": final}
    return load_reasoner(convert_llava(folder, out, **(defaults | options)))


def refused(stock: Stock, folder: Path, kind: type[AnomalyOVError], **options: Any) -> str:
    """The error's message; nothing may be left behind."""
    out = folder.parent / "refused"
    with pytest.raises(kind) as caught:
        converted(stock, folder, out, **options)
    assert not out.exists()
    assert not list(folder.parent.glob(".converting-*"))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value.message


def ids_of(tokenizer: Any) -> Tensor:
    return torch.tensor([tokenizer.encode("the small scratch on the left side, 12 of 40")])


def same_language(ours: Reasoner, stock: Stock, model: Any = None) -> None:
    """Logits of text and the projector's output equal the stock model's to the last bit."""
    model = stock.model if model is None else model
    ids = ids_of(stock.tokenizer)
    with torch.no_grad():
        assert torch.equal(ours.model(input_ids=ids).logits, model(input_ids=ids).logits)
        tokens = torch.randn(5, VISION["hidden_size"])
        projected = model.model.multi_modal_projector(tokens)
        assert torch.equal(ours.model.model.multi_modal_projector(tokens), projected)
    assert torch.equal(ours.model.model.image_newline, model.model.image_newline)


def same_tower(ours: Reasoner, stock: Stock, final: int, tower: Any = None) -> None:
    """Every hidden state that we keep equals the stock tower's."""
    tower = stock.model.model.vision_tower if tower is None else tower
    pixels = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True).hidden_states
        features = ours.model.model.detector.encoder(pixels)
    assert torch.allclose(features.final_NPD, states[final], atol=1e-5)
    for level, tokens in zip(LEVELS, features.levels_NPD, strict=True):
        assert torch.allclose(tokens, states[level], atol=1e-5)
