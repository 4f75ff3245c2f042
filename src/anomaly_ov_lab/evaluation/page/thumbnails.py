"""Small pictures for a report's page, as data in the page itself: a picture as it is, and under its map.

The defect's mask, where the set has one, is outlined. A picture that is gone, changed or unreadable has none.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

from anomaly_ov.errors import DataError, ImageError
from anomaly_ov.images.overlay import coloured
from anomaly_ov.images.read import Limits, read
from anomaly_ov_lab.data.samples import read_mask

SIDE = 224
QUALITY = 82
MAX_PIXELS = 60_000_000
OUTLINE, RIM = (255, 255, 255), (24, 24, 27)


@dataclass(frozen=True)
class Thumbnail:
    """``picture`` and ``map``: data URLs, None where there is none; ``problem`` says why the picture is missing."""

    picture: str | None
    map: str | None
    width: int
    height: int
    problem: str = ""


def thumbnail(
    path: Path, sha256: str | None, map_HW: npt.NDArray[np.float32] | None, mask: Path | None = None
) -> Thumbnail:
    """``sha256``: of the bytes that were scored; another file under that name is not shown."""
    try:
        picture = read(path, Limits(max_pixels=MAX_PIXELS))
    except ImageError as error:
        return Thumbnail(None, None, SIDE, SIDE, "the picture is gone" if not path.is_file() else error.message)
    if sha256 is not None and picture.sha256 != sha256:
        return Thumbnail(None, None, SIDE, SIDE, "the file is no longer the one that was scored")
    small = Image.fromarray(picture.pixels_HW3)
    small.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    if max(small.size) < SIDE:  # small pictures are shown as large as the others
        scale = SIDE / max(small.size)
        size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
        small = small.resize(size, Image.Resampling.BICUBIC)
    shown = small if mask is None else _outlined(small, mask)
    under = None if map_HW is None else _data_url(coloured(small, map_HW))
    return Thumbnail(_data_url(shown), under, small.width, small.height)


def _outlined(small: Image.Image, mask: Path) -> Image.Image:
    """The picture with the border of its mask; without, if the mask cannot be read (the run's notes say so)."""
    try:
        mask_HW = read_mask(mask)
    except DataError:
        return small
    # Shrunk by area, so that a defect thinner than a pixel is not lost.
    truth = Image.fromarray(mask_HW.astype(np.uint8) * 255).resize(small.size, Image.Resampling.BOX)
    truth = truth.point(lambda value: 255 if value else 0)
    line = ImageChops.subtract(truth.filter(ImageFilter.MaxFilter(3)), truth)
    rim = ImageChops.subtract(truth.filter(ImageFilter.MaxFilter(5)), truth)
    shown = small.copy()
    shown.paste(RIM, mask=rim)
    shown.paste(OUTLINE, mask=line)
    return shown


def _data_url(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
