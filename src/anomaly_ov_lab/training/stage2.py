"""Stage 2: instruction tuning. The projector and the language model learn to answer; the detector stays frozen.

Loss: next-token cross-entropy over the ids that the label mask keeps (docs/reference-implementation.md, section 8),
equal to that of the stock model. Only where an id is learnt are logits computed, and of many such places only a part at
a time: over all places of one sequence of 32768 ids and a vocabulary of 152k they would take 20 GB.

Legend: B samples, T ids, S learnt ids, E width of the language model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from anomaly_ov.errors import MissingExtra
from anomaly_ov.reasoning.model import AnomalyOV
from anomaly_ov.reasoning.processor import IGNORED, Encoded, Processor

LOGITS_AT_ONCE = 2048
"""Places whose logits are held at one time: 1.2 GB in float32 at a vocabulary of 152k."""


@dataclass(frozen=True)
class Stage2Config:
    """``train``: ``full`` = projector and language model with embeddings, head and newline (the paper), ``lora`` =
    adapters of ``lora_rank`` on the language model's linear maps plus the projector, ``projector`` = that alone.
    """

    train: Literal["full", "lora", "projector"] = "full"
    lora_rank: int = 64
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise ValueError("lora_rank must be >= 1")


class Stage2:
    """The task of ``training.loop`` for instruction tuning; ``samples`` are encoded conversations with views."""

    def __init__(
        self,
        model: AnomalyOV,
        processor: Processor,
        config: Stage2Config,
        samples: Dataset[Encoded],
        device: str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self.module: AnomalyOV = prepare(model, config).to(self._device).train()
        self.samples, self.collate = samples, processor.collate

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {"loss": token_loss(self.module, {name: value.to(self._device) for name, value in batch.items()})}

    def weigh(self, batch: Any) -> float:
        """Ids that the batch teaches."""
        return float((batch["labels"][:, 1:] != IGNORED).sum())

    def blocks(self) -> Sequence[nn.Module]:
        """The language model's layers."""
        return list(self.module.model.language_model.layers)


def token_loss(model: AnomalyOV, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy over the batch's learnt ids, float32; 0 if there are none."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if "pixel_values" not in inputs:
        embeds_BTE = model.get_input_embeddings()(inputs.pop("input_ids"))
        inputs["inputs_embeds"] = embeds_BTE + _nothing(model).to(embeds_BTE.dtype)
    hidden_BTE = model.model(**inputs, use_cache=False)[0]
    target_BT = batch["labels"][:, 1:]
    learnt_BT = target_BT != IGNORED
    hidden_SE, target_S = hidden_BTE[:, :-1][learnt_BT], target_BT[learnt_BT]
    total = hidden_BTE.new_zeros((), dtype=torch.float32)
    for start in range(0, max(1, len(target_S)), LOGITS_AT_ONCE):
        part = slice(start, start + LOGITS_AT_ONCE)
        if len(target_S) <= LOGITS_AT_ONCE:
            total = total + _entropy(model.lm_head, hidden_SE[part], target_S[part])
        else:  # logits of a part are computed again for its gradients rather than kept
            one = checkpoint(_entropy, model.lm_head, hidden_SE[part], target_S[part], use_reentrant=False)
            assert isinstance(one, Tensor)
            total = total + one
    mean: Tensor = total / max(1, len(target_S))
    return mean


def _entropy(head: nn.Module, hidden_SE: Tensor, target_S: Tensor) -> Tensor:
    logits_SV: Tensor = head(hidden_SE).float()
    return F.cross_entropy(logits_SV, target_S, reduction="sum")


def _nothing(model: AnomalyOV) -> Tensor:
    """0, but made by what reads pictures. Added to text alone, it makes gradients flow to the same places as with
    pictures: processes that train together wait for each other there, and another one's pass may hold pictures."""
    parts = model.model
    features_1D = parts.image_newline.new_zeros(1, model.config.vision_config.hidden_size)
    total: Tensor = parts.multi_modal_projector(features_1D).sum() + parts.image_newline.sum()
    if parts.annotation is not None:
        total = total + parts.annotation(features_1D.new_zeros(1, 3)).sum()
    return 0.0 * total


def prepare(model: AnomalyOV, config: Stage2Config) -> AnomalyOV:
    """Frees what learns and freezes the rest; hangs adapters on the language model for ``lora``."""
    model.requires_grad_(config.train == "full")
    if config.gradient_checkpointing:
        newer = hasattr(model, "activation_checkpointing_enable")  # the other name is deprecated
        enable = model.activation_checkpointing_enable if newer else model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if config.train == "full":
        return model
    for part in (model.model.multi_modal_projector, model.model.annotation):
        if part is not None:
            part.requires_grad_(True)
    model.model.image_newline.requires_grad_(True)
    if config.train == "lora":
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise MissingExtra("peft", "lab") from None
        settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_rank, target_modules="all-linear")
        inject_adapter_in_model(settings, model.model.language_model)
    return model
