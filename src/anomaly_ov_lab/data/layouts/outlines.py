"""COCO's ``segmentation`` values drawn as masks: polygons, plain and compressed run lengths.

Polygons are filled with their border, by Pillow; on the border this may differ by a pixel from other tools. Lists come
from anyone: sizes are checked before anything is allocated, and what is no outline is a ``DataError``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from anomaly_ov.errors import DataError
from anomaly_ov.scoring.regions import rle_decode

MAX_PIXELS = 200_000_000
_FAR = 1e6
"""Pillow takes 32-bit coordinates; no picture that is drawn here is this long."""
_HINT = "a list of polygons [x0, y0, x1, y1, x2, y2, ...] or run lengths {size, counts}"


def draw(
    segmentations: Iterable[Any], image_wh: tuple[int, int], left_out: Callable[[str], None] | None = None
) -> npt.NDArray[np.bool_] | None:
    """(H, W) union of the outlines of a picture of (width, height) ``image_wh``; parts outside it are cut off.

    What is no outline is told to ``left_out`` and the others are drawn, None if there is none; without it, and for an
    impossible size, it is a ``DataError``.
    """
    width, height = image_wh
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise DataError(f"outlines for a picture of {width} x {height}", hint=f"1 to {MAX_PIXELS} pixels are drawn")
    canvas = Image.new("1", image_wh)
    pen = ImageDraw.Draw(canvas)
    runs_HW = np.zeros((height, width), dtype=bool)
    count = 0
    for part in (part for segmentation in segmentations for part in _parts(segmentation)):
        try:
            if isinstance(part, dict):
                runs_HW |= _runs(part, (height, width))
            else:
                pen.polygon(_polygon(part), fill=1)
            count += 1
        except DataError as error:
            if left_out is None:
                raise
            left_out(error.message)
    return np.asarray(canvas, dtype=bool) | runs_HW if count else None


def _parts(segmentation: Any) -> Iterator[Any]:
    """Its polygons one by one, or what else it is."""
    several = isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], list)
    yield from segmentation if several else [segmentation]


def _polygon(values: Any) -> list[tuple[float, float]]:
    if not isinstance(values, list):
        raise DataError(f"an outline is {type(values).__name__}", hint=_HINT)
    if not all(isinstance(v, (int, float)) and abs(v) <= _FAR for v in values):
        raise DataError("an outline has coordinates that are no numbers in range", hint=_HINT)
    if len(values) < 6 or len(values) % 2:
        raise DataError(f"an outline has {len(values)} coordinates", hint=_HINT)
    return list(zip(values[::2], values[1::2], strict=True))


def _runs(rle: dict[str, Any], image_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    if rle.get("size") != list(image_hw):
        raise DataError(
            f"run lengths of size {rle.get('size')!r:.40} for a picture of {list(image_hw)} (height, width)", hint=_HINT
        )
    counts = rle.get("counts")
    return rle_decode({"size": rle["size"], "counts": _uncompressed(counts) if isinstance(counts, str) else counts})


def _uncompressed(text: str) -> list[int]:
    """COCO's compressed counts as plain ones.

    Each number is written in groups of five bits, lowest first, one character (48 + group) each; bit 32 says that more
    follow, bit 16 of the last is the sign. From the fourth on, it is the difference to the number two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 35:
            raise DataError("compressed run lengths are damaged", hint=_HINT)
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError("compressed run lengths are cut short", hint=_HINT)
    return counts
