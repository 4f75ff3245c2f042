"""A map as a grey PNG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def grey_png(map_HW: npt.NDArray[np.floating]) -> bytes:
    """At the map's own size, 8 bits, 0..255 for 0..1."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.clip(map_HW, 0, 1) * 255).astype(np.uint8)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
