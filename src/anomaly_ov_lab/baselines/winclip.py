"""WinCLIP, zero-shot (Jeong et al., CVPR 2023, arXiv 2303.14814, sections 4.1 and 4.2). WinCLIP+ is not here.

1. Two text vectors from the compositional ensemble; P(anomalous) of a feature is the softmax over both of
   cosine / temperature.
2. Score of the picture: that of its class token.
3. Windows of 2 x 2 and of 3 x 3 patches, stride 1: the class token and the patches of one window alone go through the
   transformer; the window's feature is its class token's. At each patch the scores of all windows over it are averaged
   harmonically (equation 3), which favours normality.
4. Map: the harmonic mean of both scales and of the picture's own score.

The published backbone is ViT-B-16-plus-240 of open_clip (``open_clip`` converts it), so a 15 x 15 grid. Left open by
the paper: the temperature (0.07 in the public reimplementations; it changes maps, not the ranking of pictures) and
whether sentences are normalised before they are averaged (here they are, as CLIP does).

A grid of h x w has (h - k + 1)(w - k + 1) windows of side k at stride 1 (15 x 15: 196 for k = 2, 169 for k = 3); the
harmonic mean of n scores is n / sum(1 / score).

Shapes: B pictures, T tokens, P = h w patches, W windows, k patches of a window, D width, E joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anomaly_ov.errors import ConfigError
from anomaly_ov_lab.baselines.clip_towers import ClipTowers, compositional, probabilities
from anomaly_ov_lab.baselines.detector import ClipScores, revision_of
from anomaly_ov_lab.baselines.pictures import Fit

TOKENS_PER_FORWARD = 2**15
"""Bounds memory: one picture of 15 x 15 patches has 2,670 tokens in windows."""


@dataclass(frozen=True)
class WinClipConfig:
    """``windows``: sides in patches. ``temperature`` > 0. ``fit``: see ``pictures``."""

    windows: tuple[int, ...] = (2, 3)
    temperature: float = 0.07
    fit: Fit = "squash"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError("temperature must be > 0")
        if any(size < 1 for size in self.windows):
            raise ValueError("windows must be at least one patch wide")


class WinClipJudge:
    """WinCLIP without references, a ``detector.ClipMethod``. Raises ``ConfigError`` if a window exceeds the grid."""

    name, smoothing = "winclip", 0.0

    def __init__(self, towers: ClipTowers, config: WinClipConfig | None = None) -> None:
        self.towers, self.config = towers, config or WinClipConfig()
        self.revision = revision_of(towers.revision, self.config)
        self.side, self.fit = towers.side, self.config.fit
        cells = towers.side // towers.patch
        self._grid_hw = (cells, cells)
        self._windows = [window_patches(self._grid_hw, size).to(towers.device) for size in self.config.windows]

    def judge(self, pixels_B3SS: Tensor, objects: Sequence[str]) -> ClipScores:
        """Scores and maps, see the module's text."""
        tokens_BTD = self.towers.embed(pixels_B3SS)
        states_B2E = torch.stack([self.towers.states(compositional(name)) for name in objects])
        class_BE = self.towers.project(self.towers.run(tokens_BTD)[:, 0])
        scores_B = probabilities(class_BE, states_B2E, self.config.temperature)
        scales = [scores_B[:, None, None].expand(-1, *self._grid_hw)]
        for windows_Wk in self._windows:
            features_BWE = self.window_features(tokens_BTD, windows_Wk)
            scores_BW = probabilities(features_BWE, states_B2E, self.config.temperature)
            scales.append(harmonic_map(scores_BW, windows_Wk, self._grid_hw))
        return ClipScores(scores_B, harmonic_mean(torch.stack(scales)))

    def window_features(self, tokens_BTD: Tensor, windows_Wk: Tensor) -> Tensor:
        """(B, W, E): the class token's feature with one window's patches alone; all windows of one size at once."""
        width = tokens_BTD.shape[-1]
        count, size = len(windows_Wk), windows_Wk.shape[1] + 1
        class_BWD = tokens_BTD[:, :1].expand(-1, count, -1)
        patches_BWkD = tokens_BTD[:, 1:][:, windows_Wk]
        sequences_NkD = torch.cat([class_BWD[:, :, None], patches_BWkD], dim=2).reshape(-1, size, width)
        parts = torch.split(sequences_NkD, max(1, TOKENS_PER_FORWARD // size))
        class_ND = torch.cat([self.towers.run(part_nkD)[:, 0] for part_nkD in parts])
        return self.towers.project(class_ND).reshape(len(tokens_BTD), count, -1)


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
