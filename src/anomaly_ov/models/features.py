"""What an encoder hands to the expert."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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

    def level_arrays(self) -> tuple[npt.NDArray[np.float32], ...]:
        """The levels in float32 on the host, for ``token_maps``; what lies there already is not copied."""
        return tuple(level.detach().float().cpu().numpy() for level in self.levels_NPD)
