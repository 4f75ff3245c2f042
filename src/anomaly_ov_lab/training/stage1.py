"""Stage 1: the expert learns to score. Two tasks share its loss, and differ in where features come from.

``LiveStage1``: views pass the encoder in every step; the encoder may learn too, fully or by LoRA.
``CachedStage1``: the paper's setting, a frozen encoder; features of every view of a picture come from the disk.

Loss: balanced BCE on the image score plus ``map_loss_weight`` x map loss on pictures with masks (0 = the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from anomaly_ov.errors import MissingExtra
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.expert import Expert, ExpertOutput
from anomaly_ov.models.features import Features
from anomaly_ov_lab.training import defect_samples, multi_view_samples
from anomaly_ov_lab.training.defect_samples import DefectSample


@dataclass(frozen=True)
class Stage1Config:
    """What learns and from which loss. ``lora_rank`` counts only with ``train_encoder: lora``."""

    train_encoder: Literal["none", "full", "lora"] = "none"
    lora_rank: int = 8
    score_loss_weight: float = 1.0
    map_loss_weight: float = 0.0
    map_loss: MapLoss = "focal-dice"

    def __post_init__(self) -> None:
        if min(self.score_loss_weight, self.map_loss_weight) < 0 or self.lora_rank < 1:
            raise ValueError("loss weights must be >= 0 and lora_rank >= 1")


def stage1_losses(output: ExpertOutput, label_B: Tensor, target_Nhw: Tensor, config: Stage1Config) -> dict[str, Tensor]:
    """The terms of stage 1's loss and their weighted sum under ``"loss"``."""
    score = balanced_bce(output.logit_B, label_B)
    parts = {"score_loss": score}
    total = config.score_loss_weight * score
    if config.map_loss_weight > 0:
        parts["map_loss"] = map_loss(output.map_Nhw, target_Nhw, config.map_loss)
        total = total + config.map_loss_weight * parts["map_loss"]
    return {"loss": total} | parts


class EncoderAndExpert(nn.Module):
    """Both networks under the names that a model folder uses."""

    def __init__(self, encoder: Encoder, expert: Expert) -> None:
        super().__init__()
        self.encoder = encoder
        self.expert = expert


class LiveStage1:
    """Every sample is one picture seen in one view (uint8), encoded in the step."""

    def __init__(
        self,
        encoder: Encoder,
        expert: Expert,
        config: Stage1Config,
        samples: Dataset[DefectSample],
        device: str = "cpu",
    ) -> None:
        self._config, self._device = config, torch.device(device)
        prepare_encoder(encoder, config)
        self.module = EncoderAndExpert(encoder, expert.train()).to(self._device)
        self.samples, self.collate = samples, defect_samples.collate

    def losses(self, batch: Any) -> dict[str, Tensor]:
        view_NHW3, label_B, target_Nhw = (part.to(self._device) for part in batch)
        encoder = self.module.encoder
        with torch.set_grad_enabled(self._config.train_encoder != "none" and torch.is_grad_enabled()):
            features = encoder(encoder.normalise(view_NHW3))
        output = self.module.expert(features, [1] * len(label_B))
        return stage1_losses(output, label_B, target_Nhw, self._config)


class CachedStage1:
    """Every sample is the cached features of all views of one picture."""

    def __init__(self, expert: Expert, config: Stage1Config, samples: Dataset[Any], device: str = "cpu") -> None:
        self._config, self._device = config, torch.device(device)
        self.module = expert.to(self._device).train()
        self.samples, self.collate = samples, multi_view_samples.collate

    def losses(self, batch: Any) -> dict[str, Tensor]:
        features = move(batch.features, self._device)
        output = self.module(features, batch.views_per_image)
        return stage1_losses(output, batch.label_B.to(self._device), batch.target_Nhw.to(self._device), self._config)


def move(features: Features, device: torch.device) -> Features:
    """Features in float32 on ``device``."""
    levels: Sequence[Tensor] = [level.to(device).float() for level in features.levels_NPD]
    return Features(features.final_NPD.to(device).float(), tuple(levels), features.grid_hw)


def prepare_encoder(encoder: Encoder, config: Stage1Config) -> None:
    """Freezes the encoder, frees it, or hangs LoRA adapters on its linear maps, as ``train_encoder`` says."""
    encoder.requires_grad_(config.train_encoder == "full")
    encoder.train(config.train_encoder == "full")  # batch norms of a frozen encoder must not follow the batches
    if config.train_encoder == "lora":
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise MissingExtra("peft", "lab") from None
        linear = [name for name, module in encoder.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        inject_adapter_in_model(
            LoraConfig(r=config.lora_rank, lora_alpha=config.lora_rank, target_modules=linear), encoder
        )


def merge_lora(encoder: nn.Module) -> None:
    """Folds LoRA adapters into the weights they sit on, so that the encoder saves as an ordinary one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(encoder.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = encoder.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())


MapLoss = Literal["bce-dice", "focal-dice"]
EPSILON = 1e-4
"""Probabilities are kept this far from 0 and 1, so that a confidently wrong cell has a bounded gradient."""


def balanced_bce(logit_B: Tensor, label_B: Tensor) -> Tensor:
    """Binary cross-entropy in which the two classes of the batch weigh the same; a missing class weighs nothing."""
    loss_B = F.binary_cross_entropy_with_logits(logit_B.float(), label_B.float(), reduction="none")
    positive_B = label_B.float()
    means = [(loss_B * w).sum() / w.sum().clamp_min(1) for w in (positive_B, 1 - positive_B)]
    present = (positive_B.sum() > 0).float() + ((1 - positive_B).sum() > 0).float()
    return (means[0] + means[1]) / present.clamp_min(1)


def map_loss(map_Nhw: Tensor, target_Nhw: Tensor, kind: MapLoss) -> Tensor:
    """Loss of probability maps against soft targets in 0..1; views whose target is NaN (no mask) are left out.

    BCE or focal (gamma 2) per cell plus Dice over all known cells. 0 if no view has a mask.
    """
    known_Nhw = ~torch.isnan(target_Nhw)
    weight = known_Nhw.float()
    target = torch.where(known_Nhw, target_Nhw, 0.0)
    probability = map_Nhw.float().clamp(EPSILON, 1 - EPSILON)
    cell = -(target * probability.log() + (1 - target) * (1 - probability).log())
    if kind == "focal-dice":
        cell = cell * (target - probability).abs().square() * 4
    per_cell = (cell * weight).sum() / weight.sum().clamp_min(1)
    overlap = 2 * (probability * target * weight).sum()
    total = ((probability + target) * weight).sum()
    dice = 1 - (overlap + 1) / (total + 1)
    return per_cell + torch.where(weight.sum() > 0, dice, 0.0)
