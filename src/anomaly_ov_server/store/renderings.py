"""The small files that a finding leaves behind: thumbnail, preview and map, made from what scoring has decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov_server.store.folder import Folder

THUMBNAIL_SIDE, PREVIEW_SIDE = 256, 1600
THUMBNAIL_QUALITY, PREVIEW_QUALITY = 78, 85
WEBP_EFFORT = 1  # 0..6; more costs several times the time for a tenth of the bytes


def write_renderings(
    folder: Folder,
    item: str,
    context: str,
    digest: str,
    preview_HW3: npt.NDArray[np.uint8] | None,
    map_HW: npt.NDArray[np.float32] | None,
) -> bool:
    """Writes what there is; whether that includes a map. ``map_HW``: 0..1; ``digest``: of the picture's page."""
    if preview_HW3 is not None:
        for path, data in _pictures(folder, digest, preview_HW3):
            folder.write(path, data)
    if map_HW is None:
        return False
    folder.write(folder.map(item, context), grey_png(map_HW))
    return True


def _pictures(folder: Folder, digest: str, preview_HW3: npt.NDArray[np.uint8]) -> Iterator[tuple[Path, bytes]]:
    """Those of the two that are not there from an earlier finding."""
    sizes = (
        (folder.preview(digest), PREVIEW_SIDE, PREVIEW_QUALITY),
        (folder.thumbnail(digest), THUMBNAIL_SIDE, THUMBNAIL_QUALITY),
    )
    for path, side, quality in sizes:
        if not path.is_file():
            yield path, _webp(preview_HW3, side, quality)


def _webp(pixels_HW3: npt.NDArray[np.uint8], side: int, quality: int) -> bytes:
    image = Image.fromarray(pixels_HW3)
    scale = side / max(image.size)
    if scale < 1:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=WEBP_EFFORT)
    return buffer.getvalue()


def grey_png(map_HW: npt.NDArray[np.floating]) -> bytes:
    """A map as a grey PNG at its own size, 8 bits, 0..255 for 0..1."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.clip(map_HW, 0, 1) * 255).astype(np.uint8)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
