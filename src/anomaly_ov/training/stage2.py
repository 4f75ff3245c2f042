"""Stage 2: instruction tuning. The projector and the language model learn to answer; the detector stays frozen.

Loss: next-token cross-entropy over the ids that the label mask keeps (reference, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from anomaly_ov.errors import MissingExtra
from anomaly_ov.models.reasoning.model import AnomalyOV
from anomaly_ov.models.reasoning.processor import Encoded, Processor


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
        self._processor, self._samples, self._device = processor, samples, torch.device(device)
        self.module: nn.Module = prepare(model, config).to(self._device).train()

    def samples(self) -> Dataset[Encoded]:
        return self._samples

    def collate(self, items: list[Encoded]) -> dict[str, Tensor]:
        return self._processor.collate(items)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        inputs = {name: value.to(self._device) for name, value in batch.items()}
        return {"loss": self.module(**inputs, use_cache=False).loss}


def prepare(model: AnomalyOV, config: Stage2Config) -> AnomalyOV:
    """Frees what learns and freezes the rest; hangs adapters on the language model for ``lora``."""
    model.requires_grad_(config.train == "full")
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
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
            raise MissingExtra("peft", "train") from None
        settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_rank, target_modules="all-linear")
        inject_adapter_in_model(settings, model.model.language_model)
    return model
