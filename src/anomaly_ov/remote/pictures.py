"""Pictures as a remote model is sent them: shrunk, cropped or marked, then as a data URL.

A crop is cut from the picture at its own resolution, so that it shows more than the shrunk picture does.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from anomaly_ov.records import Region

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

MAX_PNG_BYTES = 2**20
JPEG_QUALITY = 92
MIN_CROP_SIDE = 336  # smaller crops are enlarged to this long side, at most MAX_ENLARGE times
MAX_ENLARGE = 8
MARGIN = 0.3  # of the box's longer side, around it
MIN_SHARE = 0.1  # of the picture's shorter side: what a crop shows at least, so that it can be recognised
MARK, RIM = (255, 255, 255), (24, 24, 27)


def shrunk(pixels_HW3: Pixels, side: int) -> Image.Image:
    """The picture with its long side at most ``side`` pixels; never enlarged."""
    height, width = pixels_HW3.shape[:2]
    image = Image.fromarray(pixels_HW3)
    scale = side / max(width, height)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def crop_box(box: Box, image_wh: tuple[int, int]) -> Box:
    """``box`` (x0, y0, x1, y1; ends exclusive) with a margin, made square as far as the picture allows."""
    longest = max(box[2] - box[0], box[3] - box[1])
    wanted = max(round(longest * (1 + 2 * MARGIN)), round(min(image_wh) * MIN_SHARE), 1)
    (x0, x1), (y0, y1) = (_span(box[axis], box[axis + 2], wanted, image_wh[axis]) for axis in (0, 1))
    return x0, y0, x1, y1


def _span(start: int, end: int, wanted: int, length: int) -> tuple[int, int]:
    """``wanted`` pixels around the middle of start..end, moved to lie within 0..length."""
    wanted = min(wanted, length)
    first = min(max((start + end - wanted) // 2, 0), length - wanted)
    return first, first + wanted


def cropped(pixels_HW3: Pixels, box: Box, side: int) -> Image.Image:
    """What lies in ``box``, at most ``side`` pixels long; a small crop is enlarged."""
    x0, y0, x1, y1 = box
    crop = shrunk(np.ascontiguousarray(pixels_HW3[y0:y1, x0:x1]), side)
    scale = min(min(MIN_CROP_SIDE, side) / max(crop.size), MAX_ENLARGE)
    if scale <= 1:
        return crop
    return crop.resize((round(crop.width * scale), round(crop.height * scale)), Image.Resampling.BICUBIC)


def outlined(image: Image.Image, regions: tuple[Region, ...], image_wh: tuple[int, int]) -> Image.Image:
    """``image``, a scaled picture of size ``image_wh``, with a white, dark-rimmed box around each region."""
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    scale_xy = image.width / image_wh[0], image.height / image_wh[1]
    width = max(1, round(max(image.size) / 400))
    for region in regions:
        x0, y0, x1, y1 = (round(value * scale_xy[axis % 2]) for axis, value in enumerate(region.box))
        # A box never vanishes by scaling: it is at least one pixel wide and high.
        corners = (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0))
        for grow, colour in ((2 * width, RIM), (width, MARK)):
            rim = (corners[0] - grow, corners[1] - grow, corners[2] + grow, corners[3] + grow)
            draw.rectangle(rim, outline=colour, width=width)
    return marked


def data_url(image: Image.Image) -> str:
    """``image`` as PNG, or as JPEG without colour subsampling where a PNG would exceed ``MAX_PNG_BYTES``."""
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG", compress_level=6)
    if buffer.tell() > MAX_PNG_BYTES:
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
