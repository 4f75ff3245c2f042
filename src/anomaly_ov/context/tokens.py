"""A picture as something that can be compared: unit tokens of its cells at two scales, and one vector for its look.

The base view shows the picture as a whole: its cells see what is around them, and whether a large part looks wrong.
The crops show it in detail, at its own resolution: a small defect fills a cell there. Neither does the other's work,
so both are compared, each with its like. A picture of one view has the same cells at both scales.

Legend: N views, h w cells of a view, Q cells of the base view that show picture, P cells of the crops that do, D width
of a token, L of a level, E of a descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.maps import significance_map
from anomaly_ov.models.token_maps import Floats, TokenMaps

A = TypeVar("A")
B = TypeVar("B")

SHOWN = 0.5
"""A cell counts when at least this share of it shows picture rather than padding."""

WHOLE_SHARE = 0.25
"""Of the base view in the map. Up to a quarter costs no pixel AUROC on the training sets (docs/log.md)."""


@dataclass(frozen=True)
class Scales(Generic[A]):
    """The same thing of the picture as a whole (base view) and in detail (crops)."""

    whole: A
    detail: A

    def map(self, change: Callable[[A], B]) -> Scales[B]:
        """``change`` applied to both."""
        return Scales(change(self.whole), change(self.detail))


@dataclass(frozen=True)
class PictureTokens:
    """``tokens``: unit vectors (Q, D) and (P, D), ``descriptor_E`` a unit vector, all float32.

    ``shown_Nhw``: where the cells lie. ``digest``: of the picture's bytes, by which copies are told. ``patch``: as in
    ``significance_map``.
    """

    tokens: Scales[Floats]
    descriptor_E: Floats
    shown_Nhw: npt.NDArray[np.bool_]
    geometry: Geometry
    digest: str
    patch: float | None = None

    def without_tokens(self) -> PictureTokens:
        """The same for later, without what fills memory."""
        # A slice of no rows would keep the whole array.
        return replace(self, tokens=self.tokens.map(lambda one_PD: np.empty((0, one_PD.shape[1]), np.float32)))

    def to_map(self, values: Scales[Floats]) -> Floats:
        """(H, W) float32 in 0..1 on the capped picture, from one value in 0..1 per cell: (Q,) and (P,).

        Of a picture of one view the cells have two values, which are averaged.
        """
        maps_Nhw = np.zeros(self.shown_Nhw.shape, np.float32)
        if len(maps_Nhw) > 1:
            maps_Nhw[:1][self.shown_Nhw[:1]] = values.whole
            maps_Nhw[1:][self.shown_Nhw[1:]] = values.detail
        else:
            maps_Nhw[self.shown_Nhw] = (values.whole + values.detail) / 2
        return significance_map(maps_Nhw, self.geometry, base_weight=WHOLE_SHARE, patch=self.patch)


def picture_tokens(
    levels_NPL: Sequence[Floats],
    grid_hw: tuple[int, int],
    geometry: Geometry,
    maps: TokenMaps,
    digest: str,
    patch: float | None = None,
) -> PictureTokens:
    """``levels_NPL``: the encoder's, of all views of one picture, base view first; cells row-major over ``grid_hw``."""
    share_Nhw = geometry.content_share(grid_hw, patch)
    shown_Nhw = share_Nhw >= SHOWN
    for views in (slice(0, 1), slice(1, None)):
        if shown_Nhw[views].size and not shown_Nhw[views].any():
            # A strip thinner than half a cell: the cells that show most of it.
            shown_Nhw[views] = share_Nhw[views] >= share_Nhw[views].max()
    tokens_NPD = maps.tokens(levels_NPL)
    shown_NP = shown_Nhw.reshape(len(shown_Nhw), -1)
    whole_QD = tokens_NPD[:1][shown_NP[:1]]
    detail_PD = tokens_NPD[1:][shown_NP[1:]] if geometry.views > 1 else whole_QD
    descriptor_E = maps.descriptor([level_NPL[:1] for level_NPL in levels_NPL])[0]
    return PictureTokens(Scales(whole_QD, detail_PD), descriptor_E, shown_Nhw, geometry, digest, patch)
