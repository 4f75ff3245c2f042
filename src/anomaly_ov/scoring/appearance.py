"""How a region looks beside its own surroundings: measured on the base view, so that the record can say it in words.

``contrast``: mean red, green and blue of the region minus those of a ring around it, of which other suspicious pixels
are left out. ``elongation``: long axis over short axis of the ellipse with the mask's second moments, in image pixels.

Legend: H, W of the map; h, w of one region's box with the ring.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from anomaly_ov.images.geometry import Geometry

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Contrast = tuple[float, float, float]

RING_SHARE, LEAST_RING = 0.03, 3
"""Width of the ring: of the longer side of the map, and at least in map pixels."""
MOST_ELONGATED = 1000.0


def shown_at(view_HW3: Pixels, geometry: Geometry, map_hw: tuple[int, int]) -> Pixels:
    """The image as the base view shows it, without padding, at the map's size: (H, W, 3)."""
    box = tuple(round(side) for side in geometry.content_in_view(0))
    picture = Image.fromarray(view_HW3).crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)))
    return np.asarray(picture.resize((map_hw[1], map_hw[0]), Image.Resampling.BILINEAR))


def contrast_of(shown_HW3: Pixels, mask_hw: Mask, suspicious_HW: Mask, corner_yx: tuple[int, int]) -> Contrast | None:
    """-1..1 each. ``mask_hw``: the region in its box, whose top left lies at ``corner_yx`` of the map;
    ``suspicious_HW``: all regions. None where nothing around it is inconspicuous.
    """
    height, width = suspicious_HW.shape
    ring = max(LEAST_RING, round(RING_SHARE * max(height, width)))
    (top, left), (h, w) = corner_yx, mask_hw.shape
    around = slice(max(0, top - ring), top + h + ring), slice(max(0, left - ring), left + w + ring)
    inside_hw = np.zeros(suspicious_HW[around].shape, bool)
    y, x = top - around[0].start, left - around[1].start
    inside_hw[y : y + h, x : x + w] = mask_hw
    near_hw = ndimage.maximum_filter(inside_hw.view(np.uint8), 2 * ring + 1).astype(bool) & ~suspicious_HW[around]
    if not near_hw.any():
        return None
    pixels_hw3 = shown_HW3[around]
    red, green, blue = (pixels_hw3[inside_hw].mean(0) - pixels_hw3[near_hw].mean(0)) / 255
    return round(float(red), 4), round(float(green), 4), round(float(blue), 4)


def elongation_of(mask_hw: Mask, scale_yx: tuple[float, float]) -> float:
    """1 (round) or more; ``scale_yx``: image pixels of a map pixel. A pixel counts as the square that it is."""
    rows, columns = np.nonzero(mask_hw)
    y, x = rows * scale_yx[0], columns * scale_yx[1]
    spread_22 = np.cov(np.stack([y, x]), bias=True) + np.diag([scale_yx[0] ** 2, scale_yx[1] ** 2]) / 12
    short, long = np.sqrt(np.maximum(np.linalg.eigvalsh(spread_22), 1e-12))
    return round(min(float(long / short), MOST_ELONGATED), 3)
