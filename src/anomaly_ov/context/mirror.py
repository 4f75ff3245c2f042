"""The image against its own mirror image: what breaks a symmetry that the rest of the image keeps is suspicious.

A brain, a bottle from above, a stamped part look like their mirror image; a tile or a leaf does not. Of the three
mirror images (left-right, up-down, both: a half turn) the two best are looked at, and only where the pixels agree
roughly; what they say counts the more the more symmetric the image turns out to be. Symmetry is a property of the
single image, known before any label. The mirrored *pixels* pass the encoder: mirrored features of a network are not
the features of a mirrored image.

Legend: h w cells of the base view, D token width, F mirror images that were looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.scoring.cells import Floats

Pixels = npt.NDArray[np.uint8]
Flip = tuple[bool, bool]
FLIPS: tuple[Flip, ...] = ((False, True), (True, False), (True, True))
"""(up-down, left-right)."""

ALIKE = 0.4
"""Correlation of the shrunk grey image with its mirror image from which that is worth a forward pass: objects that are
symmetric but a little turned, shifted or unevenly lit lie far below 1 (docs/log.md)."""

MOST = 2
"""Mirror images that are looked at, those that correlate best; a third never helped."""

SIDE = 32
SYMMETRIC, ASYMMETRIC = 0.5, 1.0
"""Median mirror distance over median own-patch distance: from the first down the mirror counts most, from the second up
not at all."""


def worth_mirroring(base_HW3: Pixels) -> tuple[Flip, ...]:
    """Which mirror images of a base view (H, W, 3) to look at."""
    grey = np.asarray(Image.fromarray(base_HW3).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    centred = grey - grey.mean()
    energy = float((centred**2).sum())
    if energy < 1e-6 * grey.size:
        return ()  # a blank image: nothing to mirror
    alike = {flip: float((centred * flipped(centred, flip)).sum()) / energy for flip in FLIPS}
    best = sorted(FLIPS, key=lambda flip: -alike[flip])[:MOST]
    return tuple(flip for flip in best if alike[flip] >= ALIKE)


def flipped(values: npt.NDArray[np.generic], flip: Flip) -> npt.NDArray[np.generic]:
    """An array of rows and columns mirrored."""
    rows, columns = (slice(None, None, -1 if turned else 1) for turned in flip)
    return values[rows, columns]


def mirror_distance(tokens_hwD: Floats, mirrored_FhwD: Floats) -> Floats:
    """(h, w) float32, 0..2: 1 - cosine to the most similar of the 3 x 3 cells at the same place of the mirror image,
    of the mirror image that is nearest as a whole (smallest median).

    ``mirrored_FhwD``: unit tokens of the mirrored pixels, on their own grid.
    """
    distances_Fhw = np.stack([_around(tokens_hwD, mirrored_hwD) for mirrored_hwD in mirrored_FhwD])
    best = int(np.median(distances_Fhw.reshape(len(distances_Fhw), -1), axis=1).argmin())
    return np.asarray(distances_Fhw[best], np.float32)


def symmetry(own: Floats, mirror: Floats) -> float:
    """0..1: how much the mirror image counts, from the distances of the same cells."""
    ratio = float(np.median(mirror)) / max(float(np.median(own)), 1e-6)
    return min(max((ASYMMETRIC - ratio) / (ASYMMETRIC - SYMMETRIC), 0.0), 1.0)


def _around(tokens_hwD: Floats, mirrored_hwD: Floats) -> Floats:
    h, w = tokens_hwD.shape[:2]
    padded = np.pad(mirrored_hwD, ((1, 1), (1, 1), (0, 0)), mode="edge")
    similar_hw = np.full((h, w), -2, np.float32)
    for dy, dx in np.ndindex(3, 3):
        shifted = padded[dy : dy + h, dx : dx + w]
        np.maximum(similar_hw, np.einsum("hwd,hwd->hw", tokens_hwD, shifted), out=similar_hw)
    return np.maximum(1 - similar_hw, np.float32(0))


def mirrored_views(base_HW3: Pixels, flips: Sequence[Flip]) -> Pixels:
    """(F, H, W, 3) uint8: the base view mirrored each way."""
    return np.stack([np.ascontiguousarray(flipped(base_HW3, flip)) for flip in flips]).astype(np.uint8, copy=False)
