"""A picture as a CLIP sees it, and the way of its map back to the picture.

Two ways to fit a picture into the network's square, both bicubic by Pillow:

* ``squash``: all of it, whatever its shape. What AnomalyCLIP's released code does (518 x 518) and what public
  reimplementations of WinCLIP do (240 x 240): a map must cover the whole picture.
* ``crop``: short side to the square's, centre cut out, as CLIP itself was released (arXiv 2103.00020). What lies
  outside is not seen; the map there repeats its border.

Shapes: S side of the network's square, H W pixels, h w cells.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import ImageError
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.prepared import ms_since
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source
from anomaly_ov.images.views import capped_size
from anomaly_ov.records import ErrorInfo, ImageInfo
from anomaly_ov.scoring.anomaly_map import significance_map

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Fit = Literal["squash", "crop"]

MAP_CAP = 1024  # long side of maps, as for the expert's


@dataclass(frozen=True)
class FittedImage:
    """One picture of a run: its square, or the error that stopped it."""

    id: str
    image: ImageInfo
    pixels_SS3: Pixels | None
    error: ErrorInfo | None
    timing_ms: dict[str, float]


def show(source: Source, side: int, fit: Fit, limits: Limits) -> FittedImage:
    """The picture in a square of ``side`` pixels; one that cannot be read becomes a record of its error."""
    started = time.perf_counter()
    try:
        picture = source.read(limits)
    except ImageError as error:
        info = ErrorInfo(type(error).__name__, error.message, error.hint)
        named = str(source.item) if isinstance(source.item, (str, os.PathLike)) else source.id
        return FittedImage(source.id, ImageInfo(named), None, info, {"read": ms_since(started)})
    timing = {"read": ms_since(started)}
    started = time.perf_counter()
    pixels_SS3 = fitted(picture.pixels_HW3, side, fit)
    timing["views"] = ms_since(started)
    image = ImageInfo(picture.path, picture.width, picture.height, picture.sha256)
    return FittedImage(source.id, image, pixels_SS3, None, timing)


def fitted(pixels_HW3: Pixels, side: int, fit: Fit) -> Pixels:
    """(H, W, 3) uint8 to (side, side, 3)."""
    picture = Image.fromarray(pixels_HW3)
    if fit == "squash":
        return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
    resized_wh, (left, top) = _crop(picture.size, side)
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize(resized_wh, Image.Resampling.BICUBIC).crop(box))


def on_picture(map_hw: Floats, image_wh: tuple[int, int], side: int, fit: Fit) -> Floats:
    """A map of the square, 0..1, on the pixels of the picture (long side capped at ``MAP_CAP``), bilinearly."""
    width, height = capped_size(image_wh, MAP_CAP)
    x0, y0, x1, y1 = _seen((width, height), side, fit)
    seen_wh = (x1 - x0, y1 - y0)
    whole = Geometry(seen_wh, seen_wh, seen_wh, (0, 0, *seen_wh), (0, 0), side)
    seen_HW = significance_map(map_hw[None], whole)
    return np.pad(seen_HW, ((y0, height - y1), (x0, width - x1)), mode="edge")


def _seen(picture_wh: tuple[int, int], side: int, fit: Fit) -> tuple[int, int, int, int]:
    """Box of the picture that the square shows, in whole pixels."""
    if fit == "squash":
        return 0, 0, *picture_wh
    resized_wh, offset_xy = _crop(picture_wh, side)
    (x0, x1), (y0, y1) = (
        (round(start * own / resized), max(1, round((start + side) * own / resized)))
        for start, own, resized in zip(offset_xy, picture_wh, resized_wh, strict=True)
    )
    return min(x0, x1 - 1), min(y0, y1 - 1), x1, y1


def _crop(picture_wh: tuple[int, int], side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(size after the short side became ``side``, offset of the centre square in it)."""
    shortest = min(picture_wh)
    width, height = (side * length // shortest for length in picture_wh)
    return (width, height), ((width - side) // 2, (height - side) // 2)
