"""The views of a picture: the whole of it squashed to a square, then AnyRes crops of an enlarged copy.

Follows the released pre-processing pixel for pixel (docs/reference-implementation.md, section 2): of the allowed grids
the one that keeps the most picture area and then wastes the least canvas; bicubic resize with the aspect kept; black
padding. The cap on the long side is a step before that. Normalisation is the encoder's work, not done here.

Shapes: N views, H W pixels. All sizes are (width, height) and all boxes (x0, y0, x1, y1) with x1, y1 exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.geometry import Box, Geometry, Size

ALL_GRIDS: tuple[tuple[int, int], ...] = tuple((columns, rows) for columns in range(1, 7) for rows in range(1, 7))
MAX_CANVAS_PIXELS = 200_000_000
SQUARE_GREY = 127

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ViewsConfig:
    """How a picture is cut into views; the default is the released setting
    (docs/reference-implementation.md, section 2).

    ``base_size``: side of every view in pixels. ``grids``: allowed (columns, rows) of crops; of equally good ones the
    first wins. ``cap``: longest side, in pixels, that a picture is shrunk to first; None = never. ``single_crop``:
    whether a picture that fits one crop gets it beside the base view, though it shows the same (as released); False
    halves the work for small pictures.
    """

    base_size: int = 384
    grids: tuple[tuple[int, int], ...] = ALL_GRIDS
    cap: int | None = 1024
    single_crop: bool = True

    def __post_init__(self) -> None:
        if self.base_size < 1:
            raise ValueError("base_size must be >= 1")
        if not self.grids or any(len(grid) != 2 or min(grid) < 1 for grid in self.grids):
            raise ValueError("grids must name at least one (columns, rows), both >= 1")
        if any(self.base_size**2 * columns * rows > MAX_CANVAS_PIXELS for columns, rows in self.grids):
            raise ValueError(f"base_size^2 x columns x rows must be <= {MAX_CANVAS_PIXELS} pixels for each of grids")
        if self.cap is not None and self.cap < 1:
            raise ValueError("cap must be >= 1, or null for none")


@dataclass(frozen=True, eq=False)
class Views:
    """``pixels_NHW3``: one contiguous array, base view first, then crops row by row. ``geometry``: the way back."""

    pixels_NHW3: Pixels
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.pixels_NHW3)


def anyres(pixels_HW3: Pixels, config: ViewsConfig) -> Views:
    """Base view and crops of one picture (H, W, 3) uint8 RGB. Raises UsageError for any other array."""
    picture, image_wh = _capped(pixels_HW3, config.cap)
    base, geometry = config.base_size, anyres_geometry(image_wh, config)
    pixels_NHW3 = np.zeros((geometry.views, base, base, 3), np.uint8)
    pixels_NHW3[0] = _resized(picture, (base, base))
    if geometry.views == 1:
        return Views(pixels_NHW3, geometry)
    x0, y0, x1, y1 = geometry.content_box
    content_HW3 = _resized(picture, (x1 - x0, y1 - y0))
    _tile(content_HW3, geometry.content_box, geometry.grid_wh[0], pixels_NHW3[1:])
    return Views(pixels_NHW3, geometry)


def anyres_geometry(image_wh: Size, config: ViewsConfig) -> Geometry:
    """How ``anyres`` cuts a picture of this size."""
    base, capped_wh = config.base_size, capped_size(image_wh, config.cap)
    columns, rows = best_grid(capped_wh, base, config.grids)
    if (columns, rows) == (1, 1) and not config.single_crop:
        return Geometry(image_wh, capped_wh, capped_wh, (0, 0, *capped_wh), (0, 0), base)
    canvas_wh = (columns * base, rows * base)
    return Geometry(image_wh, capped_wh, canvas_wh, fit_box(capped_wh, canvas_wh), (columns, rows), base)


def multi_image(pixels: Sequence[Pixels], config: ViewsConfig) -> list[Views]:
    """One view per picture, as several pictures shown together get it (e.g. renderings of a 3-D object).

    Each picture, (H, W, 3) uint8 RGB, is centred on a square of grey 127 and squashed to the base size; no crops.
    """
    return [_squared(one_HW3, config) for one_HW3 in pixels]


def best_grid(image_wh: Size, base_size: int, grids: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(columns, rows) whose canvas keeps the most picture area, then wastes the least of itself.

    Enlarging keeps no more than the picture has. Sizes are floored as in the released code, so a strip that shrinks
    below one pixel keeps nothing anywhere and ends on the smallest canvas.
    """
    width, height = image_wh

    def merit(grid: tuple[int, int]) -> tuple[int, int]:
        canvas_w, canvas_h = grid[0] * base_size, grid[1] * base_size
        scale = min(canvas_w / width, canvas_h / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - canvas_w * canvas_h

    return max(grids, key=merit)


def fit_box(image_wh: Size, canvas_wh: Size) -> Box:
    """Where a picture resized with its aspect kept lies on a canvas, centred; never thinner than a pixel."""
    (width, height), (canvas_w, canvas_h) = image_wh, canvas_wh
    scale_x, scale_y = canvas_w / width, canvas_h / height
    if scale_x < scale_y:
        new_w, new_h = canvas_w, min(math.ceil(height * scale_x), canvas_h)
    else:
        new_w, new_h = min(math.ceil(width * scale_y), canvas_w), canvas_h
    x0, y0 = (canvas_w - new_w) // 2, (canvas_h - new_h) // 2
    return x0, y0, x0 + new_w, y0 + new_h


def capped_size(image_wh: Size, cap: int | None) -> Size:
    """Size after the cap: the long side becomes ``cap``, the short side is floored but stays at least one pixel."""
    longest = max(image_wh)
    if cap is None or longest <= cap:
        return image_wh
    # Whole-number arithmetic: a float ratio may floor an exact result one pixel too low.
    return max(1, image_wh[0] * cap // longest), max(1, image_wh[1] * cap // longest)


def _capped(pixels_HW3: Pixels, cap: int | None) -> tuple[Image.Image, Size]:
    """The picture after the cap, and its own size."""
    if pixels_HW3.dtype != np.uint8 or pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3 or not pixels_HW3.size:
        raise UsageError(
            f"views need a picture of shape (H, W, 3) and type uint8, got {pixels_HW3.shape} {pixels_HW3.dtype}",
            hint="read the picture with anomaly_ov.images.read first",
        )
    picture = Image.fromarray(pixels_HW3)
    image_wh = picture.size
    capped_wh = capped_size(image_wh, cap)
    return (picture if capped_wh == image_wh else picture.resize(capped_wh, Image.Resampling.BICUBIC)), image_wh


def _resized(picture: Image.Image, size_wh: Size) -> Pixels:
    resized = picture if picture.size == size_wh else picture.resize(size_wh, Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _tile(content_HW3: Pixels, box: Box, columns: int, crops_NHW3: Pixels) -> None:
    """Copies the content, placed at ``box`` of the canvas, into the crops that it touches."""
    base = crops_NHW3.shape[1]
    x0, y0, x1, y1 = box
    for index, crop_HW3 in enumerate(crops_NHW3):
        row, column = divmod(index, columns)
        left, top = column * base, row * base
        from_x, to_x = max(left, x0), min(left + base, x1)
        from_y, to_y = max(top, y0), min(top + base, y1)
        if from_x < to_x and from_y < to_y:
            part_HW3 = content_HW3[from_y - y0 : to_y - y0, from_x - x0 : to_x - x0]
            crop_HW3[from_y - top : to_y - top, from_x - left : to_x - left] = part_HW3


def multi_image_geometry(image_wh: Size, config: ViewsConfig) -> Geometry:
    """How ``multi_image`` shows a picture of this size."""
    width, height = capped_size(image_wh, config.cap)
    side = max(width, height)
    x0, y0 = (side - width) // 2, (side - height) // 2
    content_box = (x0, y0, x0 + width, y0 + height)
    return Geometry(image_wh, (width, height), (side, side), content_box, (0, 0), config.base_size)


def _squared(pixels_HW3: Pixels, config: ViewsConfig) -> Views:
    picture, image_wh = _capped(pixels_HW3, config.cap)
    geometry = multi_image_geometry(image_wh, config)
    square = Image.new("RGB", geometry.canvas_wh, (SQUARE_GREY,) * 3)
    square.paste(picture, geometry.content_box[:2])
    pixels_NHW3 = np.empty((1, config.base_size, config.base_size, 3), np.uint8)
    pixels_NHW3[0] = _resized(square, (config.base_size, config.base_size))
    return Views(pixels_NHW3, geometry)
