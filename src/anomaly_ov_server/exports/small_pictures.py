"""Pictures of a report as data in its file: small WebP within a limit of bytes, and the map as a layer to lay over it.

The layer is the map's colours with their opacity, as in ``images.overlay``; the page greys the picture below it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.images.colours import palette
from anomaly_ov.images.overlay import OPACITY_POWER, STRONGEST

QUALITIES = (72, 55, 40, 25, 10)
LAYER_SIDE, LAYER_QUALITY = 80, 60


@dataclass(frozen=True)
class Size:
    """``side``: of the long side, pixels. ``bytes``: at most."""

    side: int
    bytes: int


SMALL, LARGE = Size(240, 5 * 2**10), Size(640, 20 * 2**10)


def small_picture(path: Path | None, size: Size) -> str | None:
    """Data URL of the picture at ``path`` (WebP) within ``size``; None where it is gone."""
    if path is None:
        return None
    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data), formats=("WEBP",)) as image:
            if max(image.size) <= size.side and len(data) <= size.bytes:
                return _data_url(data)
            small = image.convert("RGB")
    except OSError:
        return None
    side = size.side
    qualities = QUALITIES if len(data) <= 1.6 * size.bytes else QUALITIES[1:]
    while True:
        small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
        for quality in qualities:
            encoded = _webp(small, quality)
            if len(encoded) <= size.bytes:
                return _data_url(encoded)
        side //= 2  # ends: a picture of a few pixels is a few bytes


def map_layer(map_HW: npt.NDArray[np.float32]) -> str:
    """Data URL of the map's colours, transparent where it is low; ``map_HW``: 0..1."""
    image = Image.fromarray(np.ascontiguousarray(map_HW, np.float32))
    scale = min(1.0, LAYER_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    value_HW = np.clip(np.asarray(image.resize(size, Image.Resampling.BOX)), 0, 1)
    layer_HW4 = np.empty((*value_HW.shape, 4), np.uint8)
    layer_HW4[..., :3] = palette()[np.rint(value_HW * 255).astype(np.uint8)]
    layer_HW4[..., 3] = np.rint(255 * STRONGEST * value_HW**OPACITY_POWER)
    return _data_url(_webp(Image.fromarray(layer_HW4), LAYER_QUALITY))


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue()


def _data_url(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
