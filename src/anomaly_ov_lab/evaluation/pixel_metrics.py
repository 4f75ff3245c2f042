"""How well maps find defects: pixel AUROC, average precision, F1-max and PRO, exact or from a fine histogram.

Rules
* A map and its mask have one shape, the mask's own; nothing is downsized.
* A region is one 8-connected component of one mask. A mask without any region counts as all normal, whatever the
  picture's label says: that is what the file says.
* PRO (per-region overlap; Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021) averages over all regions
  of all pictures the share of the region that is flagged, as a function of the false positive rate over all normal
  pixels, and is the area under that curve up to ``max_fpr``, divided by ``max_fpr``. Ties are straight segments.
* F1-max is the best F1 of ``value >= threshold`` over all thresholds; optimistic, as it is chosen on the same pixels.

How it is fast: the area under any such curve is a sum over defect pixels. A defect pixel with value v adds, with weight
w, the length of the part of [0, L] to the right of the false positive rate at v. So one sort of the *normal* pixels'
values and one look-up per defect pixel give all figures; nothing else is sorted, and no threshold is sampled. Beyond
``max_exact`` pixels a histogram takes the sort's place: values in one bin count as tied, which can only move a figure
by what the bins hold, and that much is reported as ``error``. Pixels at either end of the histogram's range are counted
apart, so that maps cut off at 0 or 1 lose nothing.
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
_FLUSH = 2**22
_NOT_FINITE, _BROKEN = "a map holds values that are not finite", "the detector's output is broken"
_EIGHT = np.ones((3, 3), dtype=np.int8)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class PixelMetrics:
    """Figures in 0..1, None where undefined (no defect pixel, or no normal one).

    ``error``: no exact figure differs from the one here by more; 0 if they are exact. ``images``, ``regions``,
    ``pixels`` and ``defect_pixels`` count what went in. ``f1_threshold``: the highest threshold that reaches
    ``f1_max``; from a histogram, one that comes within ``error`` of it; None where ``f1_max`` is a mean.
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
    f1_max: float | None = None
    f1_threshold: float | None = None


def pixel_metrics(
    masks: Sequence[npt.NDArray[np.bool_]],
    maps: Sequence[npt.NDArray[np.floating]],
    max_fpr: float = 0.3,
    max_exact: int = MAX_EXACT,
) -> PixelMetrics:
    """All pixel figures of ``maps`` (H, W; any finite numbers, higher = more anomalous) against ``masks`` (H, W).

    Exact up to ``max_exact`` pixels in all, from a histogram of 2^22 bins beyond, in float32. Either sequence may read
    its items from disk as they are asked for: one picture is held beside the counts, or beside the values if exact.
    Raises ``DataError`` on shapes that differ and on values that are not finite.
    """
    total = sum(mask.size for mask in masks)
    if total <= max_exact:
        exact = ExactPixels(max_fpr)
        for mask, map_HW in zip(masks, maps, strict=True):
            exact.add(mask, map_HW)
        return exact.result()
    low, high = _range(maps)
    histogram = HistogramPixels(low, high, max_fpr)
    for mask, map_HW in zip(masks, maps, strict=True):
        histogram.add(mask, map_HW)
    return histogram.result()


class _Pixels:
    """What both ways share: checking, finding regions, and turning counts into figures."""

    def __init__(self, max_fpr: float) -> None:
        if not 0 < max_fpr <= 1:
            raise ValueError("max_fpr must lie in (0, 1]")
        self._max_fpr = max_fpr
        self._images = self._regions = self._pixels = self._defects = 0

    def _checked(
        self, mask_HW: npt.NDArray[np.bool_], map_HW: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.bool_], Values, tuple[float, float]]:
        """The mask as booleans, the map in float32 (or as it is, in float64) and its extremes."""
        if mask_HW.shape != map_HW.shape or mask_HW.ndim != 2:
            raise DataError(
                f"a map of shape {map_HW.shape} against a mask of shape {mask_HW.shape}",
                hint="resize the map to the mask first",
            )
        # Integers of 32 bits and more do not fit float32 either; half floats do.
        wide = np.result_type(map_HW.dtype, np.float32)
        values = np.ascontiguousarray(map_HW, dtype=wide if wide in (np.float32, np.float64) else np.float64)
        extremes = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if not (math.isfinite(extremes[0]) and math.isfinite(extremes[1])):  # NaN goes through min and max
            raise DataError(_NOT_FINITE, hint=_BROKEN)
        self._images += 1
        self._pixels += values.size
        return mask_HW.astype(bool, copy=False), values, extremes

    def _region_weights(self, mask_HW: npt.NDArray[np.bool_]) -> Float64:
        """1 / area of its region, of each defect pixel in row order. The mask holds at least one."""
        rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
        cut_HW = mask_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        regions_HW, count = ndimage.label(cut_HW, structure=_EIGHT)
        inside = regions_HW[cut_HW]
        self._regions += int(count)
        self._defects += inside.size
        return np.asarray(1.0 / np.bincount(inside, minlength=count + 1)[inside])

    def _metrics(self, groups: _Groups) -> PixelMetrics:
        figures: dict[str, float | None] = {}
        if self._defects and self._pixels > self._defects:
            roc = groups.area(groups.counts / self._defects, 1.0)
            region = groups.area(groups.weights / self._regions, self._max_fpr)
            precision, (f1, threshold) = groups.average_precision(), groups.f1_max()
            figures = {
                "auroc": roc.value,
                "average_precision": precision.value,
                "pro": region.value,
                "error": max(figure.error for figure in (roc, region, precision, f1)),
                "f1_max": f1.value,
                "f1_threshold": threshold,
            }
        counts = {"images": self._images, "regions": self._regions}
        pixels = {"pixels": self._pixels, "defect_pixels": self._defects}
        undefined = {"auroc": None, "average_precision": None, "pro": None}
        return PixelMetrics(**undefined | figures, max_fpr=self._max_fpr, **counts, **pixels)  # type: ignore[arg-type]


class ExactPixels(_Pixels):
    """Collects all pixels and sorts them once: 4 bytes a pixel (twice that while sorting), under 10 s per 10^9."""

    def __init__(self, max_fpr: float = 0.3) -> None:
        super().__init__(max_fpr)
        self._normal: list[Values] = []
        self._defect: list[Values] = []
        self._weights: list[Float64] = []

    def add(self, mask_HW: npt.NDArray[np.bool_], map_HW: npt.NDArray[np.floating]) -> None:
        """One picture's mask and map, of one shape; neither is kept, so both may be written over."""
        mask, values, _ = self._checked(mask_HW, map_HW)
        if not mask.any():
            self._normal.append(values.ravel().copy() if np.shares_memory(values, map_HW) else values.ravel())
            return
        self._weights.append(self._region_weights(mask))
        self._defect.append(values[mask])
        self._normal.append(values[~mask])

    def result(self) -> PixelMetrics:
        """The figures over everything added so far."""
        normal = np.concatenate([*self._normal, np.empty(0, np.float32)])
        self._normal = [normal]  # the pieces go before the sort
        normal.sort()
        # Defect pixels of one value form one group: they are tied, and cross the threshold together.
        values, group, counts = np.unique(
            np.concatenate([*self._defect, np.empty(0, np.float32)]), return_inverse=True, return_counts=True
        )
        region_weights = np.concatenate([*self._weights, np.empty(0)])
        weights = np.bincount(group, weights=region_weights, minlength=len(values)).astype(np.float64)
        above = len(normal) - np.searchsorted(normal, values, side="right")
        not_below = len(normal) - np.searchsorted(normal, values, side="left")
        tied = np.ones(len(values), dtype=bool)
        down = slice(None, None, -1)
        return self._metrics(
            _Groups(counts[down], weights[down], above[down], not_below[down], len(normal), values[down], tied)
        )


class HistogramPixels(_Pixels):
    """Counts pixels in ``bins`` bins of [low, high]: constant memory (28 bytes a bin), any number of pictures.

    The first bin holds ``low`` alone, the last ``high`` alone, the others are of equal width. Any rule by which a
    higher value never lands in a lower bin would do for the bound, so float32 arithmetic is exact enough.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, max_fpr: float = 0.3, bins: int = BINS) -> None:
        super().__init__(max_fpr)
        with np.errstate(over="ignore"):
            self._low, self._high = np.float32(low), np.float32(high)
        if not (np.isfinite(self._low) and np.isfinite(self._high) and low <= high):
            raise DataError(f"a histogram from {low} to {high}", hint=_BROKEN)
        if bins < 3:
            raise ValueError("a histogram needs at least 3 bins")
        self._bins = bins
        self._all = np.zeros(bins, np.int64)
        self._defect = np.zeros(bins, np.int64)
        self._weight = np.zeros(bins)
        self._lowest = np.full(bins, np.inf, np.float32)
        self._pending: list[npt.NDArray[np.int32]] = []
        self._waiting = 0
        self._ends_are_tied = True

    def add(self, mask_HW: npt.NDArray[np.bool_], map_HW: npt.NDArray[np.floating]) -> None:
        """One picture's mask and map, of one shape. Raises ``DataError`` on values outside [low, high]."""
        mask, values, (lowest, highest) = self._checked(mask_HW, map_HW)
        if values.size and not (self._low <= np.float32(lowest) and np.float32(highest) <= self._high):
            raise DataError(
                f"a map holds values outside [{self._low:g}, {self._high:g}]", hint="give the histogram a wider range"
            )
        # Rounding to float32 keeps the order, but then a value near an end may count as that end.
        self._ends_are_tied &= values.dtype == np.float32
        values = values.astype(np.float32, copy=False)
        self._count(values, np.float32(lowest) == self._low, np.float32(highest) == self._high)
        if mask.any():
            weights, defect = self._region_weights(mask), values[mask]
            bins = self._bin(defect).astype(np.intp)
            bins[defect == self._high] = self._bins - 1
            bins[defect == self._low] = 0
            np.add.at(self._defect, bins, 1)
            np.add.at(self._weight, bins, weights)
            np.minimum.at(self._lowest, bins, defect)

    def result(self) -> PixelMetrics:
        """The figures over everything added so far, with their largest possible error."""
        self._flush()
        normal = self._all - self._defect
        not_below = np.cumsum(normal[::-1])[::-1]
        held = np.flatnonzero(self._defect)[::-1]
        tied = np.isin(held, (0, self._bins - 1)) & self._ends_are_tied
        return self._metrics(
            _Groups(
                counts=self._defect[held],
                weights=self._weight[held],
                above=(not_below - normal)[held],
                not_below=not_below[held],
                normal=int(not_below[0]),
                values=self._lowest[held],
                tied=tied,
            )
        )

    def _bin(self, values: Float32) -> npt.NDArray[np.int32]:
        """The bin of each value, all of them taken to lie between the ends."""
        with np.errstate(over="ignore"):
            span = self._high - self._low
        if not 0 < span < np.inf:
            return np.ones(values.shape, np.int32)
        share = values - self._low
        share /= span
        share *= np.float32(self._bins - 2)
        bins = share.astype(np.int32)
        np.minimum(bins, self._bins - 3, out=bins)
        bins += 1
        return bins

    def _count(self, values: Float32, reaches_low: bool | np.bool_, reaches_high: bool | np.bool_) -> None:
        """Counts all pixels of a picture, those at the ends first among their neighbours and then moved."""
        flat = values.ravel()
        bins = self._bin(flat)
        # With low == high everything is at the low end.
        at_low = int(np.count_nonzero(flat == self._low)) if reaches_low else 0
        at_high = int(np.count_nonzero(flat == self._high)) if reaches_high and self._high > self._low else 0
        if at_low:
            self._all[int(self._bin(np.array([self._low]))[0])] -= at_low
            self._all[0] += at_low
        if at_high:
            self._all[int(self._bin(np.array([self._high]))[0])] -= at_high
            self._all[-1] += at_high
        self._pending.append(bins)
        self._waiting += bins.size
        if self._waiting >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._all += np.bincount(np.concatenate(self._pending), minlength=self._bins)
            self._pending, self._waiting = [], 0


def _range(maps: Sequence[npt.NDArray[np.floating]]) -> tuple[float, float]:
    """Lowest and highest value of all maps, one map at a time; NaN if any is."""
    low, high = math.inf, -math.inf
    for map_HW in maps:
        if map_HW.size:
            low, high = np.minimum(low, map_HW.min()), np.maximum(high, map_HW.max())
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise DataError(_NOT_FINITE, hint=_BROKEN)
    return float(low), float(high)


@dataclass(frozen=True)
class _Bounded:
    value: float
    error: float


@dataclass(frozen=True)
class _Groups:
    """Defect pixels in groups of tied values, highest first.

    ``counts``: pixels of each group; ``weights``: their summed region weight; ``above``/``not_below``: how many normal
    pixels lie above, and not below, the group's value (or bin); ``normal``: how many normal pixels there are.
    ``values``: the lowest of each group; ``tied``: whether all pixels of the group, normal ones too, are truly equal.
    """

    counts: npt.NDArray[np.int64]
    weights: Float64
    above: npt.NDArray[np.int64]
    not_below: npt.NDArray[np.int64]
    normal: int
    values: Values
    tied: npt.NDArray[np.bool_]

    def area(self, heights: Float64, limit: float) -> _Bounded:
        """Area up to ``limit`` under the curve that rises by ``heights[g]`` between two false positive rates, / limit.

        Within a group the curve is straight. The error bounds what any order within the groups could give.
        """
        start, end = self.above / self.normal, self.not_below / self.normal
        width = end - start
        cut = np.square(np.maximum(limit - start, 0)) / (2 * np.where(width > 0, width, 1))
        inner = np.where(end <= limit, limit - (start + end) / 2, np.where(start < limit, cut, 0.0))
        most, least = np.maximum(limit - start, 0), np.maximum(limit - end, 0)
        error = self._open(heights * np.maximum(most - inner, inner - least)).sum() / limit
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
        error = self._open(np.maximum(most - value, value - least)).sum()
        return _Bounded(float(value.sum()), float(error))

    def f1_max(self) -> tuple[_Bounded, float]:
        """Best F1 of any threshold, and the highest threshold that reaches it, itself a defect pixel's value.

        A threshold at a group's lower edge gives exactly that group's F1; one within a group at most that of the order
        with all defects first.
        """
        found = np.cumsum(self.counts)
        value = 2 * found / (found + self.not_below + found[-1])
        most = 2 * found / (found + np.where(self.tied, self.not_below, self.above) + found[-1])
        best = int(np.argmax(value))
        return _Bounded(float(value[best]), float(most.max() - value[best])), float(self.values[best])

    def _open(self, errors: Float64) -> Float64:
        """Errors of the groups whose order within is not known."""
        return np.where(self.tied, 0.0, errors)
