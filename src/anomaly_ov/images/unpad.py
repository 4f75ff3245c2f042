"""Which tokens of a picture's crops the language model reads, padding cut away.

Follows the released token layout (docs/reference-implementation.md, section 6): the crops' tokens lie stitched on one
grid; rows or columns that show only padding are dropped; a grid holding more tokens than ``MAX_VIEWS`` views (by over
1.1 in side) is reduced. ``reasoning.layout`` places the tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from anomaly_ov.images.geometry import Geometry

MAX_VIEWS = 9
REDUCE_ABOVE = 1.1
QUERIES_SIDE = 2


@dataclass(frozen=True)
class Unpadded:
    """Stitched crop tokens of one picture, all (rows, columns).

    ``feature_hw``: before; ``offset_hw``: rows and columns cut on either side; ``unpadded_hw``: what is left;
    ``reduced_hw``: the grid it is then reduced to, bilinearly, or None when it fits.
    """

    feature_hw: tuple[int, int]
    offset_hw: tuple[int, int]
    unpadded_hw: tuple[int, int]
    reduced_hw: tuple[int, int] | None

    @property
    def final_hw(self) -> tuple[int, int]:
        """The grid that is read, one newline after each of its rows."""
        return self.reduced_hw or self.unpadded_hw


def unpad(geometry: Geometry, patches_hw: tuple[int, int], max_views: int = MAX_VIEWS) -> Unpadded:
    """Which of the stitched crop tokens are read; ``patches_hw`` = (rows, columns) of tokens per view.

    Sizes are floored as in the released code, which keeps up to one row or column of padding on either side.
    """
    columns, rows = geometry.grid_wh
    if not columns:
        raise ValueError("this picture has no crops to unpad")
    height, width = rows * patches_hw[0], columns * patches_hw[1]
    image_w, image_h = geometry.capped_wh
    if image_w / image_h > width / height:
        cut_h, cut_w = (height - int(image_h * (width / image_w))) // 2, 0
    else:
        cut_h, cut_w = 0, (width - int(image_w * (height / image_h))) // 2
    left_h, left_w = height - 2 * cut_h, width - 2 * cut_w
    times = math.sqrt(left_h * left_w / (max_views * patches_hw[0] * patches_hw[1]))
    reduced = (int(left_h // times), int(left_w // times)) if times > REDUCE_ABOVE else None
    return Unpadded((height, width), (cut_h, cut_w), (left_h, left_w), reduced)
