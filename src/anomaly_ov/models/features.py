"""What an encoder hands to the expert."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Tokens of N views. P = h * w patches, row-major over ``grid_hw``; all tensors of one dtype and device.

    ``final_NPD``: the last feature, read by look-back, the selector and the head.
    ``levels_NPD``: one tensor per level, shallow to deep; widths may differ between levels (convolutional encoders).
    """

    final_NPD: Tensor
    levels_NPD: tuple[Tensor, ...]
    grid_hw: tuple[int, int]
