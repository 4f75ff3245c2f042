"""What an engine gives for a picture's views: features, maps, scores and tokens as NumPy arrays. No torch.

Legend: N views, P = h * w patches of a view, D width of the final feature, Q = 4 selected tokens of a view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """``models.features.Features`` as arrays: tokens of N views, float32, row-major over ``grid_hw``.

    ``final_NPD``: the last feature. ``levels_NPD``: one array per level, shallow to deep; widths may differ.
    """

    final_NPD: Floats
    levels_NPD: tuple[Floats, ...]
    grid_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.final_NPD)

    def views(self, start: int, end: int) -> FeatureArrays:
        """Those of the views from ``start`` up to ``end``; shares their memory."""
        levels_NPD = tuple(level[start:end] for level in self.levels_NPD)
        return FeatureArrays(self.final_NPD[start:end], levels_NPD, self.grid_hw)


@dataclass(frozen=True, eq=False)
class ExpertPart:
    """What the expert says about one picture, all float32.

    ``map_Nhw``: probabilities per view, base view first. ``score_raw``: the head's, in 0..1. ``local_NQD``: the
    selected tokens of each view. ``global_D``: the picture's token.
    """

    map_Nhw: Floats
    score_raw: float
    local_NQD: Floats
    global_D: Floats


@dataclass(frozen=True, eq=False)
class PictureArrays:
    """``models.runner.PictureOutput`` as arrays: an ``ExpertPart`` and the time in ms that the picture took.

    ``features``: of its views; None unless asked for.
    """

    map_Nhw: Floats
    score_raw: float
    ms: float
    features: FeatureArrays | None
    local_NQD: Floats
    global_D: Floats
