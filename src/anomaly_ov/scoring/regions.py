"""Suspicious regions of a significance map, in pixels of the picture, and run-length masks in COCO's plain form.

A region is a connected piece (corners count) of the map at or above a threshold. Where a cap made the map smaller
than the picture, every map pixel stands for the block of picture pixels whose centres are nearest to it; boxes, areas
and masks are exact for those blocks, yet computed from the map's runs alone, so a 12-megapixel picture costs no
more than its cap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomaly_ov.errors import DataError, UsageError
from anomaly_ov.records import Region
from anomaly_ov.scoring.appearance import contrast_of, elongation_of

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

MIN_AREA_FRACTION = 1e-4
MAX_RLE_PIXELS = 200_000_000
MOST_DESCRIBED = 8
ALL_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class _Pieces:
    """Per label: peak and mean over map pixels, area in picture pixels, and (y0, y1, x0, x1) in map pixels."""

    peaks: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    areas: Ints
    places: Ints


def regions(
    map_HW: npt.NDArray[np.float32],
    threshold: float,
    image_wh: tuple[int, int],
    min_area_fraction: float = MIN_AREA_FRACTION,
    limit: int = 64,
    shown: Callable[[], npt.NDArray[np.uint8]] | None = None,
) -> tuple[Region, ...]:
    """Connected pieces of ``map_HW >= threshold``, highest peak first, at most ``limit`` of them.

    ``map_HW``: (H, W) in 0..1, no larger than the picture of (width, height) ``image_wh``. Pieces smaller than
    ``min_area_fraction`` of the picture are left out, but never the one with the highest peak: a picture whose map
    reaches the threshold has a region. ``score`` is a region's peak, ``score_mean`` its mean over map
    pixels; box, area and mask are in picture pixels. ``shown``: gives the picture at the map's size, (H, W, 3); with it
    the first ``MOST_DESCRIBED`` regions have ``contrast`` and ``elongation`` (``appearance``). Raises UsageError for a
    map that cannot be the picture's.
    """
    height, width = map_HW.shape
    if not (1 <= height <= image_wh[1] and 1 <= width <= image_wh[0]):
        raise UsageError(
            f"a map of {width} x {height} is not one of a picture of {image_wh[0]} x {image_wh[1]}",
            hint="give the picture's own (width, height) and a map no larger",
        )
    above_HW = map_HW >= _next_float32(threshold)
    labels_HW, count = ndimage.label(above_HW, structure=ALL_NEIGHBOURS)
    if not count or limit < 1:
        return ()
    columns, rows = _edges(width, image_wh[0]), _edges(height, image_wh[1])
    pieces = _measure(map_HW, above_HW, labels_HW, count, rows, columns)
    # Peak first, then area; equal ones in reading order, so that a run repeats exactly.
    order = np.lexsort((np.arange(count), -pieces.areas, -pieces.peaks))
    large = pieces.areas[order] >= min_area_fraction * image_wh[0] * image_wh[1]
    large[0] = True
    order = order[large][:limit]
    found: list[Region] = []
    shown_HW3 = None if shown is None else shown()
    for index in order:
        y0, y1, x0, x1 = pieces.places[index].tolist()
        mask_hw = labels_HW[y0:y1, x0:x1] == index + 1
        contrast, elongation = None, None
        if shown_HW3 is not None and len(found) < MOST_DESCRIBED:
            contrast = contrast_of(shown_HW3, mask_hw, above_HW, (y0, x0))
            elongation = elongation_of(mask_hw, (image_wh[1] / height, image_wh[0] / width))
        found.append(
            Region(
                box=(int(columns[x0]), int(rows[y0]), int(columns[x1]), int(rows[y1])),
                area=int(pieces.areas[index]),
                score=float(pieces.peaks[index]),
                score_mean=float(pieces.means[index]),
                rle=_scaled_rle(mask_hw, rows, columns, (y0, x0)),
                contrast=contrast,
                elongation=elongation,
            )
        )
    return tuple(found)


def rle_decode(rle: Mapping[str, Any], max_pixels: int = MAX_RLE_PIXELS) -> Mask:
    """(H, W) bool mask of uncompressed COCO run lengths from any source, checked before anything is allocated.

    Raises DataError unless ``size`` is [height, width] of at most ``max_pixels`` and ``counts`` are whole numbers
    >= 0 that add up to height x width.
    """
    height, width = _checked_size(rle, max_pixels)
    counts = _checked_counts(rle, height * width)
    ones = np.arange(counts.size) % 2 == 1
    mask_HW: Mask = np.ascontiguousarray(np.repeat(ones, counts).reshape(width, height).T)
    return mask_HW


def _next_float32(threshold: float) -> np.float32:
    """The smallest float32 that is not below ``threshold``: comparing with it is exact, as with the score.

    NumPy would round the threshold to the nearest one, which lets values pass that lie below it.
    """
    rounded = np.float32(threshold)
    return rounded if float(rounded) >= threshold else np.float32(np.nextafter(rounded, np.float32(np.inf)))


def _edges(cells: int, pixels: int) -> Ints:
    """(cells + 1,) pixel index where each map cell's block of nearest pixels begins; the last is ``pixels``."""
    return (2 * np.arange(cells + 1, dtype=np.int64) * pixels + cells - 1) // (2 * cells)


def _measure(
    map_HW: npt.NDArray[np.float32],
    above_HW: Mask,
    labels_HW: npt.NDArray[np.int32],
    count: int,
    rows: Ints,
    columns: Ints,
) -> _Pieces:
    """Measures labels 1..count through their runs along map rows; neighbours in a row always share a label."""
    y, start, end = _runs(above_HW)
    label = labels_HW[y, start] - 1
    bounds = np.column_stack([start, end]) + (y * map_HW.shape[1])[:, None]
    # The sentinel makes a run that ends with the map a valid pair for reduceat.
    values = np.append(map_HW.ravel(), np.float32(0))
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, label, np.maximum.reduceat(values, bounds.ravel())[::2].astype(np.float64))
    sums = np.bincount(label, np.add.reduceat(values, bounds.ravel(), dtype=np.float64)[::2], count)
    # Sums of whole numbers below 2^53 are exact in float64.
    areas = np.bincount(label, np.diff(rows)[y] * (columns[end] - columns[start]), count).astype(np.int64)
    places = np.tile(np.array([map_HW.shape[0], 0, map_HW.shape[1], 0]), (count, 1))
    np.minimum.at(places[:, 0], label, y)
    np.maximum.at(places[:, 1], label, y + 1)
    np.minimum.at(places[:, 2], label, start)
    np.maximum.at(places[:, 3], label, end)
    return _Pieces(peaks, sums / np.bincount(label, end - start, count), areas, places)


def _runs(mask_hw: Mask) -> tuple[Ints, Ints, Ints]:
    """(row, start, end) of every run of ones within a row, in reading order."""
    # One zero before each row ends every run within its own; then starts and ends alternate.
    spaced = np.zeros(mask_hw.shape[0] * (mask_hw.shape[1] + 1) + 1, bool)
    spaced[:-1].reshape(mask_hw.shape[0], -1)[:, 1:] = mask_hw
    changes = np.flatnonzero(spaced[1:] != spaced[:-1])
    row, start = np.divmod(changes[::2], mask_hw.shape[1] + 1)
    return row, start, start + changes[1::2] - changes[::2]


def _scaled_rle(mask_hw: Mask, rows: Ints, columns: Ints, corner: tuple[int, int]) -> dict[str, Any]:
    """Run lengths, in picture pixels, of a mask whose top left lies at map cell ``corner`` = (row, column).

    Runs are found per map column, moved to picture rows and repeated for each of the column's picture columns.
    """
    height, width = int(rows[-1]), int(columns[-1])
    column, top, bottom = _runs(mask_hw.T)
    starts, ends = rows[top + corner[0]], rows[bottom + corner[0]]
    column_edges = columns[corner[1] : corner[1] + mask_hw.shape[1] + 1]

    first = np.searchsorted(column, np.arange(mask_hw.shape[1] + 1))
    widths = np.diff(column_edges)
    run = _repeated_ranges(first[:-1], np.diff(first), widths)
    pixel_column = np.repeat(np.arange(column_edges[0], column_edges[-1]), np.repeat(np.diff(first), widths))
    starts, ends = pixel_column * height + starts[run], pixel_column * height + ends[run]

    # A run that reaches the bottom goes on at the top of the next column.
    joins = np.flatnonzero(ends[:-1] == starts[1:])
    starts, ends = np.delete(starts, joins + 1), np.delete(ends, joins)
    bounds = np.column_stack([starts, ends]).ravel()
    counts = np.diff(bounds, prepend=0, append=height * width)
    return {"size": [height, width], "counts": (counts if counts[-1] or counts.size == 1 else counts[:-1]).tolist()}


def _repeated_ranges(first: Ints, lengths: Ints, times: Ints) -> Ints:
    """For each i, ``first[i] .. first[i] + lengths[i] - 1`` ``times[i]`` times over, as one array."""
    starts, sizes = np.repeat(first, times), np.repeat(lengths, times)
    before = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) - np.repeat(before - starts, sizes)


def _checked_size(rle: Mapping[str, Any], max_pixels: int) -> tuple[int, int]:
    size = rle.get("size")
    if not isinstance(size, (list, tuple)) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise DataError(f"run-length mask has size {size!r:.60}", hint="size must be [height, width], both >= 1")
    height, width = size
    if height * width > max_pixels:
        raise DataError(
            f"run-length mask of {height} x {width} pixels exceeds {max_pixels}",
            hint="raise max_pixels if you trust it",
        )
    return height, width


def _checked_counts(rle: Mapping[str, Any], pixels: int) -> Ints:
    counts = rle.get("counts")
    hint = "counts must be a list of whole numbers >= 0 that add up to height x width (compressed text is not read)"
    if not isinstance(counts, (list, tuple)) or not all(
        type(count) is int and 0 <= count <= pixels for count in counts
    ):
        raise DataError("run-length mask has counts that are no list of whole numbers in range", hint=hint)
    if sum(counts) != pixels:
        raise DataError(f"run-length mask counts {sum(counts)} pixels, its size says {pixels}", hint=hint)
    return np.asarray(counts, np.int64)
