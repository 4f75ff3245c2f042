"""Complete models with random weights, small enough to run in milliseconds: a detector, and one that talks."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anomaly_ov.images.views import ViewsConfig, anyres, multi_image
from anomaly_ov.models.config import EncoderConfig, ExpertConfig, ModeConfig, ModelConfig, ScoringConfig
from anomaly_ov.models.model import AnomalyModel

if TYPE_CHECKING:
    from anomaly_ov.reasoning.folder import Reasoner
    from anomaly_ov.reasoning.processor import Encoded

SIDE, CELLS = 32, 4
USUAL = {
    "alone": ModeConfig(usual=-2.5, spread=0.5, usual_spread=0.5, source="small, alone"),
    "few": ModeConfig(own=0.5, matched=1.0, usual=-6.5, spread=1.0, usual_spread=1.0, source="small, few"),
    "references": ModeConfig(own=0.5, matched=1.0, usual=-6.5, spread=1.0, usual_spread=1.0, source="small, many"),
    "folder": ModeConfig(usual=-10.0, spread=1.0, usual_spread=1.0, source="small, folder"),
}
"""Figures of pictures as the small model sees them, so that scores lie neither at 0 nor at 1."""


def small_config(**scoring: object) -> ModelConfig:
    """A residual network of two stages on 32 x 32 views, a 4 x 4 grid, at most 3 x 3 crops."""
    network = {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
    }
    grid = (CELLS, CELLS)
    return ModelConfig(
        name="small",
        revision="test",
        encoder=EncoderConfig(backbone=network, levels=(1, 2), final=2, image_size=SIDE, grid_hw=grid),
        expert=ExpertConfig(width=16, hidden=8, grid_hw=grid, levels=2, level_widths=(8, 16)),
        views=ViewsConfig(base_size=SIDE, grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2, 3)), cap=96),
        scoring=ScoringConfig(**USUAL | scoring),  # type: ignore[arg-type]
    )


def small_model(seed: int = 0, **scoring: object) -> AnomalyModel:
    """The same weights for the same seed; ``scoring``: fields of ``ScoringConfig``."""
    torch.manual_seed(seed)
    return with_random_weights(AnomalyModel(small_config(**scoring)))


def with_random_weights(model: AnomalyModel) -> AnomalyModel:
    """In eval mode. Convolutions keep what differs between places, so that patches are told apart."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            convolution = name.startswith("encoder") and parameter.ndim == 4
            parameter.normal_(0, parameter[0].numel() ** -0.5 if convolution else 0.2)
            if name.startswith("encoder") and parameter.ndim == 1 and name.endswith("weight"):
                parameter.fill_(1)
    return model.eval()


def save_small_model(folder: Path, **scoring: object) -> Path:
    """A model folder as ``load`` takes it."""
    small_model(**scoring).save_pretrained(folder)
    return folder


@cache
def _small_tokenizer() -> Any:
    from anomaly_ov.reasoning.tokenizer import train_tokenizer

    texts = ("Is there a defect?", "Yes, a scratch.", "No.", "Where is it?", "You are a helpful assistant.")
    return train_tokenizer(texts * 20, 400)


def small_reasoner(seed: int = 0, *, decoder: str = "qwen2", **config: Any) -> Reasoner:
    """``small_model`` with a two-layer ``decoder`` of width 32 and a tokenizer of its own, in eval mode.

    The same weights for the same seed; ``config``: fields of ``AnomalyOVConfig``. Tied embeddings, annotation on.
    """
    from anomaly_ov.reasoning.config import AnomalyOVConfig, prompt_ids_of
    from anomaly_ov.reasoning.folder import Reasoner
    from anomaly_ov.reasoning.model import AnomalyOV
    from anomaly_ov.reasoning.processor import IMAGE_MARKER, Processor

    tokenizer = deepcopy(_small_tokenizer())
    language = {
        "model_type": decoder,
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    fields = {
        "text_config": language,
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 16},
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE_MARKER),
        "prompt_ids": prompt_ids_of(tokenizer),
        "annotate": True,
    }
    detector = small_model(seed)
    torch.manual_seed(seed)
    model = AnomalyOV(AnomalyOVConfig(**fields | config), detector)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that every input token moves the logits
            parameter.normal_(1 if parameter.ndim == 1 else 0, 0.2)
    return Reasoner(model.eval(), Processor(tokenizer, model.config, detector.encoder.grid_hw))


def small_decoder(folder: Path) -> Path:
    """A Llama of random weights in a folder of its own, with a tokenizer that knows no image."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from anomaly_ov.models.talk_model import Shape, config_of

    tokenizer = deepcopy(_small_tokenizer())
    torch.manual_seed(3)
    shape = Shape(len(tokenizer), 32, 2, 4, 2, 48, 2048)
    LlamaForCausalLM(LlamaConfig(**config_of(shape, "float32"))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.glob("tokenizer*.json"):
        path.write_text(path.read_text().replace("<image>", "<other>"))
    return folder


def _picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def said(
    reasoner: Reasoner,
    sizes: Sequence[tuple[int, int]] = (),
    answer: str | None = "Yes, a scratch.",
    question: str = "Is there a defect?",
    seed: int = 0,
    **options: Any,
) -> Encoded:
    """One question about pictures of these (width, height), with crops if there is one; open without an answer."""
    assert reasoner.model.model.detector is not None
    config = reasoner.model.model.detector.config.views
    pixels = [_picture(*size, seed + index) for index, size in enumerate(sizes)]
    views = [anyres(pixels[0], config)] if len(pixels) == 1 else multi_image(pixels, config)
    messages = [("user", "<image>\n" * len(sizes) + question)]
    if answer is not None:
        messages.append(("assistant", answer))
    return reasoner.processor.encode(messages, views, open_answer=answer is None, **options)
