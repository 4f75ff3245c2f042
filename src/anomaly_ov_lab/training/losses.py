"""Losses of stage 1: balanced BCE on the image score (the paper's), and an optional loss on masked maps."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

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
