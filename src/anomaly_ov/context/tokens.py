"""A picture as something that can be compared: one unit token per patch that shows picture, and one for its look.

Tokens come from the crops, which show the picture at its own resolution (from the only view where there are none);
the descriptor comes from the base view, which shows the whole.

Legend: N views, h w cells of a view, P cells that show picture, D width of a token, E of a descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.maps import significance_map
from anomaly_ov.models.features import Features
from anomaly_ov.models.projection import Projection

SHOWN = 0.5
"""A cell counts when at least this share of it shows picture rather than padding."""


@dataclass(frozen=True)
class PictureTokens:
    """``tokens_PD`` unit vectors, ``descriptor_E`` a unit vector, both float32; ``shown_Nhw``: where the P cells lie.

    ``digest``: of the picture's bytes, by which copies are told. ``patch``: as in ``significance_map``.
    """

    tokens_PD: Tensor
    descriptor_E: Tensor
    shown_Nhw: npt.NDArray[np.bool_]
    geometry: Geometry
    digest: str
    patch: float | None = None

    def without_tokens(self) -> PictureTokens:
        """The same for later, without what fills memory."""
        return replace(self, tokens_PD=self.tokens_PD.new_empty(0, self.tokens_PD.shape[1]))  # a slice keeps it all

    def to_map(self, values_P: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(H, W) float32 in 0..1 on the capped picture, from one value in 0..1 per cell."""
        maps_Nhw = np.zeros(self.shown_Nhw.shape, np.float32)
        maps_Nhw[self.shown_Nhw] = values_P
        return significance_map(maps_Nhw, self.geometry, base_weight=0.0, patch=self.patch)


def picture_tokens(
    features: Features, geometry: Geometry, projection: Projection, digest: str, patch: float | None = None
) -> PictureTokens:
    """``features`` of all views of one picture, base view first; what is kept lies on the features' device."""
    share_Nhw = geometry.content_share(features.grid_hw, patch)
    shown_Nhw = share_Nhw >= SHOWN
    if geometry.views > 1:
        shown_Nhw[0] = False
    if not shown_Nhw.any():  # a strip thinner than half a cell: the cells that show most of it
        share_Nhw[0] *= geometry.views == 1
        shown_Nhw = share_Nhw >= share_Nhw.max()
    tokens_NPD = projection(features)
    shown = torch.from_numpy(shown_Nhw.reshape(len(shown_Nhw), -1)).to(tokens_NPD.device)
    base = Features(features.final_NPD[:1], tuple(level[:1] for level in features.levels_NPD), features.grid_hw)
    return PictureTokens(tokens_NPD[shown], projection.descriptor(base)[0], shown_Nhw, geometry, digest, patch)
