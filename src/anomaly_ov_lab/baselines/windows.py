"""WinCLIP's windows of patches: which patches each holds, and how window scores become a map.

Closed forms: a grid of h x w has (h - k + 1)(w - k + 1) windows of k x k at stride 1 (15 x 15: 196 for k = 2, 169 for
k = 3); the harmonic mean of n scores is n / sum(1 / score).

Shapes: B pictures, W windows, P = h w patches, k side of a window in patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anomaly_ov.errors import ConfigError


def window_patches(grid_hw: tuple[int, int], size: int) -> Tensor:
    """(W, k k) int64: row-major patch indices of every k x k window at stride 1, windows row-major too.

    Raises ``ConfigError`` for a window that does not fit into the grid.
    """
    rows, columns = grid_hw
    if not 1 <= size <= min(rows, columns):
        raise ConfigError(f"a window of {size} x {size} patches does not fit into {rows} x {columns}", hint="lower it")
    indices_hw = torch.arange(rows * columns).reshape(rows, columns)
    return indices_hw.unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size * size)


def harmonic_map(scores_BW: Tensor, windows_Wk: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """(B, h, w): at each patch the harmonic mean of the scores, in 0..1, of all windows over it (WinCLIP, equation 3).

    A score of 0 makes the mean 0.
    """
    rows, columns = grid_hw
    inside_WP = torch.zeros(len(windows_Wk), rows * columns, dtype=scores_BW.dtype, device=scores_BW.device)
    inside_WP.scatter_(1, windows_Wk.to(scores_BW.device), 1)
    tiny = torch.finfo(scores_BW.dtype).tiny  # 0 x infinity would be no number
    inverse_BP = (1 / scores_BW.clamp_min(tiny)) @ inside_WP
    return (inside_WP.sum(dim=0) / inverse_BP).reshape(-1, rows, columns)


def harmonic_mean(values_NBhw: Tensor) -> Tensor:
    """(B, h, w): the harmonic mean over the first axis, of values in 0..1; 0 where one of them is 0."""
    tiny = torch.finfo(values_NBhw.dtype).tiny
    return len(values_NBhw) / (1 / values_NBhw.clamp_min(tiny)).sum(dim=0)
