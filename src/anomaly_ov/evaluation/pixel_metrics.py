"""How well maps find defects: pixel AUROC, pixel average precision and PRO, exact or from a fine histogram.

Rules
* A map and its mask have one shape, the mask's own; nothing is downsized.
* A region is one 8-connected component of one mask. A mask without any region counts as all normal, whatever the
  picture's label says: that is what the file says.
* PRO (per-region overlap; Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021) averages over all regions
  of all pictures the share of the region that is flagged, as a function of the false positive rate over all normal
  pixels, and is the area under that curve up to ``max_fpr``, divided by ``max_fpr``. Ties are straight segments.

How it is fast: the area under any such curve is a sum over defect pixels. A defect pixel with value v adds, with weight
w, the length of the part of [0, L] to the right of the false positive rate at v. So one sort of the *normal* pixels'
values and one look-up per defect pixel give all three figures; nothing else is sorted, and no threshold is sampled.
Beyond ``max_exact`` pixels a histogram takes the sort's place: values in one bin count as tied, which can only move a
figure by what the bins hold, and that much is reported as ``error``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomaly_ov.errors import DataError

MAX_EXACT = 50_000_000
BINS = 2**22
_FLUSH = 2**23
_EIGHT = np.ones((3, 3), dtype=np.int8)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PixelMetrics:
    """Figures in 0..1, None where undefined (no defect pixel, or no normal one).

    ``error``: no exact figure differs from the one here by more; 0 if they are exact. ``images``, ``regions``,
    ``pixels`` and ``defect_pixels`` count what went in.
    """

    auroc: float | None
    average_precision: float | None
    pro: float | None
    max_fpr: float
    images: int
    regions: int
    pixels: int
    defect_pixels: int
    error: float = 0.0


def pixel_metrics(
    masks: Sequence[npt.NDArray[np.bool_]],
    maps: Sequence[npt.NDArray[np.floating]],
    max_fpr: float = 0.3,
    max_exact: int = MAX_EXACT,
) -> PixelMetrics:
    """All pixel figures of ``maps`` (H, W; any finite numbers, higher = more anomalous) against ``masks`` (H, W).

    Exact up to ``max_exact`` pixels in all, from a histogram of 2^22 bins beyond. Raises ``DataError`` on shapes that
    differ and on values that are not finite.
    """
    total = sum(mask.size for mask in masks)
    if total <= max_exact:
        exact = ExactPixels(max_fpr)
        for mask, map_HW in zip(masks, maps, strict=True):
            exact.add(mask, map_HW)
        return exact.result()
    low = min(float(np.min(map_HW)) for map_HW in maps)
    high = max(float(np.max(map_HW)) for map_HW in maps)
    histogram = HistogramPixels(low, high, max_fpr)
    for mask, map_HW in zip(masks, maps, strict=True):
        histogram.add(mask, map_HW)
    return histogram.result()


def pixel_auroc(masks: Sequence[npt.NDArray[np.bool_]], maps: Sequence[npt.NDArray[np.floating]]) -> float | None:
    """Area under the ROC curve over all pixels of all pictures; None without both kinds of pixels."""
    return pixel_metrics(masks, maps).auroc


def pixel_average_precision(
    masks: Sequence[npt.NDArray[np.bool_]], maps: Sequence[npt.NDArray[np.floating]]
) -> float | None:
    """Average precision over all pixels of all pictures; None without both kinds of pixels."""
    return pixel_metrics(masks, maps).average_precision


def pro(
    masks: Sequence[npt.NDArray[np.bool_]], maps: Sequence[npt.NDArray[np.floating]], max_fpr: float = 0.3
) -> float | None:
    """Normalised area under the per-region-overlap curve up to ``max_fpr`` (see the module's text)."""
    return pixel_metrics(masks, maps, max_fpr).pro


class _Pixels:
    """What both ways share: checking, splitting a picture into normal values, defect values and region weights."""

    def __init__(self, max_fpr: float) -> None:
        if not 0 < max_fpr <= 1:
            raise ValueError("max_fpr must lie in (0, 1]")
        self._max_fpr = max_fpr
        self._images = self._regions = self._pixels = self._defects = 0

    def _split(
        self, mask_HW: npt.NDArray[np.bool_], map_HW: npt.NDArray[np.floating]
    ) -> tuple[Float32, Float32, Float64]:
        """(values of normal pixels, values of defect pixels, 1 / area of each defect pixel's region)."""
        if mask_HW.shape != map_HW.shape or mask_HW.ndim != 2:
            raise DataError(
                f"a map of shape {map_HW.shape} against a mask of shape {mask_HW.shape}",
                hint="resize the map to the mask first",
            )
        values = np.ascontiguousarray(map_HW, dtype=np.float32)
        if not np.isfinite(values).all():
            raise DataError("a map holds values that are not finite", hint="the detector's output is broken")
        mask = mask_HW.astype(bool, copy=False)
        self._images += 1
        self._pixels += mask.size
        if not mask.any():
            return values.ravel(), np.empty(0, np.float32), np.empty(0)
        regions, count = ndimage.label(mask, structure=_EIGHT)
        inside = regions[mask]
        areas = np.bincount(inside, minlength=count + 1)
        self._regions += int(count)
        self._defects += inside.size
        return values[~mask], values[mask], 1.0 / areas[inside]

    def _metrics(self, groups: _Groups, exact: bool) -> PixelMetrics:
        normal = self._pixels - self._defects
        auroc = average_precision = overlap = None
        error = 0.0
        if self._defects and normal:
            roc = groups.area(groups.counts / self._defects, 1.0)
            region = groups.area(groups.weights / self._regions, self._max_fpr)
            precision = groups.average_precision()
            auroc, overlap, average_precision = roc.value, region.value, precision.value
            error = 0.0 if exact else max(roc.error, region.error, precision.error)
        return PixelMetrics(
            auroc=auroc,
            average_precision=average_precision,
            pro=overlap,
            max_fpr=self._max_fpr,
            images=self._images,
            regions=self._regions,
            pixels=self._pixels,
            defect_pixels=self._defects,
            error=error,
        )


class ExactPixels(_Pixels):
    """Collects all pixels and sorts them once: 4 bytes a pixel, some tenths of a second per 10 million."""

    def __init__(self, max_fpr: float = 0.3) -> None:
        super().__init__(max_fpr)
        self._normal: list[Float32] = []
        self._defect: list[Float32] = []
        self._weights: list[Float64] = []

    def add(self, mask_HW: npt.NDArray[np.bool_], map_HW: npt.NDArray[np.floating]) -> None:
        """One picture's mask and map, of one shape."""
        normal, defect, weights = self._split(mask_HW, map_HW)
        self._normal.append(normal)
        self._defect.append(defect)
        self._weights.append(weights)

    def result(self) -> PixelMetrics:
        """The figures over everything added so far."""
        normal = np.concatenate([*self._normal, np.empty(0, np.float32)])
        normal.sort()
        # Defect pixels of one value form one group: they are tied, and cross the threshold together.
        values, group, counts = np.unique(
            np.concatenate([*self._defect, np.empty(0, np.float32)]), return_inverse=True, return_counts=True
        )
        region_weights = np.concatenate([*self._weights, np.empty(0)])
        weights = np.bincount(group, weights=region_weights, minlength=len(values)).astype(np.float64)
        above = len(normal) - np.searchsorted(normal, values, side="right")
        not_below = len(normal) - np.searchsorted(normal, values, side="left")
        groups = _Groups(counts[::-1], weights[::-1], above[::-1], not_below[::-1], len(normal))
        return self._metrics(groups, exact=True)


class HistogramPixels(_Pixels):
    """Counts pixels in ``bins`` equal bins of [low, high]: constant memory (24 bytes a bin), any number of pictures."""

    def __init__(self, low: float = 0.0, high: float = 1.0, max_fpr: float = 0.3, bins: int = BINS) -> None:
        super().__init__(max_fpr)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise DataError(f"a histogram from {low} to {high}", hint="the detector's output is broken")
        self._low, self._high, self._bins = low, high, bins
        self._normal = np.zeros(bins, np.int64)
        self._defect = np.zeros(bins, np.int64)
        self._weight = np.zeros(bins)
        self._pending: list[npt.NDArray[np.int64]] = []
        self._waiting = 0

    def add(self, mask_HW: npt.NDArray[np.bool_], map_HW: npt.NDArray[np.floating]) -> None:
        """One picture's mask and map, of one shape. Raises ``DataError`` on values outside [low, high]."""
        normal, defect, weights = self._split(mask_HW, map_HW)
        self._pending.append(self._bin(normal))
        self._waiting += normal.size
        if defect.size:
            bins, group = np.unique(self._bin(defect), return_inverse=True)
            self._defect[bins] += np.bincount(group)
            self._weight[bins] += np.bincount(group, weights=weights)
        if self._waiting >= _FLUSH:
            self._flush()

    def result(self) -> PixelMetrics:
        """The figures over everything added so far, with their largest possible error."""
        self._flush()
        normal = int(self._normal.sum())
        not_below = np.cumsum(self._normal[::-1])[::-1]
        held = np.flatnonzero(self._defect)[::-1]
        groups = _Groups(
            self._defect[held], self._weight[held], (not_below - self._normal)[held], not_below[held], normal
        )
        return self._metrics(groups, exact=False)

    def _bin(self, values: Float32) -> npt.NDArray[np.int64]:
        if values.size and (values.min() < self._low or values.max() > self._high):
            raise DataError(
                f"a map holds values outside [{self._low:g}, {self._high:g}]", hint="give the histogram a wider range"
            )
        # In float64: a float32 product would round across bins and so untie or swap neighbours.
        scale = self._bins / (self._high - self._low) if self._high > self._low else 0.0
        return np.minimum((values - np.float64(self._low)) * scale, self._bins - 1).astype(np.int64)

    def _flush(self) -> None:
        if self._pending:
            self._normal += np.bincount(np.concatenate(self._pending), minlength=self._bins)
            self._pending, self._waiting = [], 0


@dataclass(frozen=True)
class _Bounded:
    value: float
    error: float


@dataclass(frozen=True)
class _Groups:
    """Defect pixels in groups of tied values, highest first.

    ``counts``: pixels of each group; ``weights``: their summed region weight; ``above``/``not_below``: how many normal
    pixels lie above, and not below, the group's value (or bin); ``normal``: how many normal pixels there are.
    """

    counts: npt.NDArray[np.int64]
    weights: Float64
    above: npt.NDArray[np.int64]
    not_below: npt.NDArray[np.int64]
    normal: int

    def area(self, heights: Float64, limit: float) -> _Bounded:
        """Area up to ``limit`` under the curve that rises by ``heights[g]`` between two false positive rates, / limit.

        Within a group the curve is straight. The error bounds what any order within the groups could give.
        """
        start, end = self.above / self.normal, self.not_below / self.normal
        width = end - start
        cut = np.square(np.maximum(limit - start, 0)) / (2 * np.where(width > 0, width, 1))
        inner = np.where(end <= limit, limit - (start + end) / 2, np.where(start < limit, cut, 0.0))
        most, least = np.maximum(limit - start, 0), np.maximum(limit - end, 0)
        error = (heights * np.maximum(most - inner, inner - least)).sum() / limit
        return _Bounded(float((heights * inner).sum() / limit), float(error))

    def average_precision(self) -> _Bounded:
        """Sum over thresholds of precision times the step in recall, ties crossing together."""
        found = np.cumsum(self.counts)
        recall_steps = self.counts / found[-1]
        value = recall_steps * found / (found + self.not_below)
        # Best order within a group: all defects first, so precision ends at most here; worst: all normals first.
        most = recall_steps * found / (found + self.above)
        before = found - self.counts
        least = recall_steps * (before + 1) / (before + 1 + self.not_below)
        error = np.maximum(most - value, value - least).sum()
        return _Bounded(float(value.sum()), float(error))
