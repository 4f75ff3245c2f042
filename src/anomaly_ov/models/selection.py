"""Which patches the visual token selector picked, as a map in picture pixels: a layer to look at, not a score.

The selector turns each view into four tokens, each a weighted mean of the view's patches (``selector``). A patch's
share is the mean of its four weights; over a view the shares add up to 1. They are blended over the views with the
geometry of the significance map and shown on an absolute scale: with r = share / (1 / P), that is how many times its
even share a patch has got, the value is r / (r + ``HALF``). Weights spread evenly give ``EVEN`` everywhere.

Legend: N views, P = h * w patches, D width, Q = 4 quadrants, H W pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.maps import significance_map
from anomaly_ov.models.selector import Selector

HALF = 9.0
"""A patch that has nine times its even share is shown as 0.5."""
EVEN = 1 / (1 + HALF)
"""What patches that all count the same are shown as: 0.1."""


def selection_map(
    selector: Selector,
    tokens_NPD: Tensor,
    map_Nhw: npt.NDArray[np.floating],
    geometry: Geometry,
    patch: float | None = None,
) -> npt.NDArray[np.float32]:
    """(H, W) float32 in 0..1 on the pixels of the significance map; ``EVEN`` where patches have their even share.

    ``tokens_NPD``: the encoder's final features. ``map_Nhw``: the expert's probabilities. ``patch``: as in
    ``significance_map``, which raises for views that are not those of ``geometry``.
    """
    share_NP = patch_shares(selector, tokens_NPD, map_Nhw).cpu().numpy()
    even = 1 / share_NP.shape[1]
    ratio_HW = significance_map(share_NP.reshape(map_Nhw.shape), geometry, patch=patch) / even
    shown_HW: npt.NDArray[np.float32] = (ratio_HW / (ratio_HW + HALF)).astype(np.float32)
    return shown_HW


def patch_shares(selector: Selector, tokens_NPD: Tensor, map_Nhw: npt.NDArray[np.floating]) -> Tensor:
    """(N, P) float32: each patch's share in its view's four tokens; every row adds up to 1."""
    tokens_NPD = tokens_NPD.float()
    map_NP = torch.from_numpy(np.asarray(map_Nhw, np.float32)).flatten(1).to(tokens_NPD.device)
    log_map_NP = map_NP.clamp_min(torch.finfo(torch.float32).tiny).log()
    with torch.inference_mode(), torch.autocast(tokens_NPD.device.type, enabled=False):
        return selector.weights(tokens_NPD, log_map_NP).mean(1)
