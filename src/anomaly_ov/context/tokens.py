"""An image as something that can be compared: unit tokens of its cells at two scales, and one vector for its look.

Legend: N views, h w cells of a view, Q cells of the base view that show image, P cells of the crops that do, F mirror
images of the base view, D width of a token, E of a descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from anomaly_ov.context.mirror import mirror_distance, symmetry
from anomaly_ov.context.own_patches import own_patch_distance
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.models.token_maps import descriptors, unit_tokens
from anomaly_ov.scoring.cells import Cells, Floats, Scales
from anomaly_ov.scoring.evidence import log_distance

MIRROR_SHARE = 0.7
"""What the mirror image counts where the image is symmetric; its other patches have the rest."""


@dataclass(frozen=True)
class ImageTokens:
    """``tokens``: unit vectors (Q, D) and (P, D), ``descriptor_E`` a unit vector, all float32.

    ``own``: logarithm of each cell's distance to the image's own other patches and mirror image, (Q,) and (P,); zeros
    where that is switched off. ``digest``: of the image's bytes, by which copies are told. ``symmetry``: 0..1, how
    much the image is like its mirror image.
    """

    tokens: Scales[Floats]
    own: Scales[Floats]
    descriptor_E: Floats
    cells: Cells
    digest: str
    symmetry: float = 0.0

    def without_tokens(self) -> ImageTokens:
        """The same for later, without what fills memory."""
        # A slice of no rows would keep the whole array.
        return replace(self, tokens=self.tokens.map(lambda one_PD: np.empty((0, one_PD.shape[1]), np.float32)))


def image_tokens(
    levels_NPL: Sequence[Floats],
    grid_hw: tuple[int, int],
    geometry: Geometry,
    digest: str,
    *,
    patch: float | None = None,
    own_patches: bool = True,
    mirrored_FPL: Sequence[Floats] = (),
) -> ImageTokens:
    """``levels_NPL``: the encoder's, of all views of one image, base view first; cells row-major over ``grid_hw``.

    ``mirrored_FPL``: the same of the mirrored base views that were looked at, if any.
    """
    cells = Cells.of(geometry, grid_hw, patch)
    tokens_NPD = unit_tokens(levels_NPL)
    shape = (*grid_hw, tokens_NPD.shape[-1])
    tokens = cells.split(tokens_NPD.reshape(-1, *shape))
    own, symmetric = tokens.map(lambda one_PD: np.zeros(len(one_PD), np.float32)), 0.0
    if own_patches:
        distance = own_patch_distances(tokens, cells)
        own = distance.map(log_distance)
        if len(mirrored_FPL):
            mirrored_FhwD = unit_tokens(mirrored_FPL).reshape(-1, *shape)
            mirror_Q = mirror_distance(tokens_NPD[0].reshape(shape), mirrored_FhwD)[cells.shown_Nhw[0]]
            symmetric = symmetry(distance.whole, mirror_Q)
            own = _with_mirror(own, log_distance(mirror_Q), MIRROR_SHARE * symmetric, cells)
    return ImageTokens(tokens, own, descriptors([level[:1] for level in levels_NPL])[0], cells, digest, symmetric)


def own_patch_distances(tokens: Scales[Floats], cells: Cells) -> Scales[Floats]:
    """(Q,) and (P,): of each cell to the most similar other cell of its scale; all crops are one scale."""
    return Scales(
        own_patch_distance(tokens.whole, np.argwhere(cells.shown_Nhw[0])),
        own_patch_distance(tokens.detail, cells.stitched()),
    )


def _with_mirror(own: Scales[Floats], mirror_Q: Floats, share: float, cells: Cells) -> Scales[Floats]:
    """Both as one logarithm: a mean in which the mirror image weighs ``share``. It was looked at as a whole only; what
    it changes there it changes in the crops too.
    """
    change_Q = np.float32(share) * (mirror_Q - own.whole)
    return Scales(own.whole + change_Q, own.detail + cells.beneath(change_Q))
