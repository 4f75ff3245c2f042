from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from anomaly_ov.errors import DataError
from anomaly_ov_lab.evaluation.pixel_metrics import (
    ExactPixels,
    HistogramPixels,
    pixel_metrics,
)


def _slow_pro(masks: list[np.ndarray], maps: list[np.ndarray], max_fpr: float) -> float:
    """PRO as its definition reads: every threshold in turn, every region in turn, trapezoids, cut at max_fpr."""
    normal = np.concatenate([m[~k] for k, m in zip(masks, maps, strict=True)])
    regions = []
    for mask, map_HW in zip(masks, maps, strict=True):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [map_HW[labelled == index + 1] for index in range(count)]
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        overlap = float(np.mean([np.mean(region >= threshold) for region in regions]))
        curve.append((float(np.mean(normal >= threshold)), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        end = min(x1, max_fpr)
        if end > x0:
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / max_fpr


def _case(seed: int, levels: int, images: int = 3, side: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random masks with several regions, and maps with only ``levels`` values, so most pixels are tied."""
    rng = np.random.default_rng(seed)
    masks, maps = [], []
    for index in range(images):
        mask = rng.random((side, side + index)) < 0.15
        masks.append(mask)
        noise = rng.random(mask.shape) + 0.4 * mask
        maps.append((np.floor(noise * levels) / levels).astype(np.float32))
    return masks, maps


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1000]), st.sampled_from([0.05, 0.3, 1.0]))
def test_pro_agrees_with_its_definition(seed: int, levels: int, max_fpr: float) -> None:
    masks, maps = _case(seed, levels)
    assert pixel_metrics(masks, maps, max_fpr).pro == pytest.approx(_slow_pro(masks, maps, max_fpr), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1000]))
def test_pixel_auroc_and_ap_agree_with_scikit_learn(seed: int, levels: int) -> None:
    masks, maps = _case(seed, levels)
    truth = np.concatenate([m.ravel() for m in masks])
    values = np.concatenate([m.ravel() for m in maps])
    assert pixel_metrics(masks, maps).auroc == pytest.approx(roc_auc_score(truth, values), abs=1e-9)
    assert pixel_metrics(masks, maps).average_precision == pytest.approx(
        average_precision_score(truth, values), abs=1e-9
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1000]))
def test_pixel_f1_max_agrees_with_scikit_learn_and_is_reached_at_its_threshold(seed: int, levels: int) -> None:
    masks, maps = _case(seed, levels, images=2, side=6)
    truth = np.concatenate([m.ravel() for m in masks])
    values = np.concatenate([m.ravel() for m in maps])
    found = pixel_metrics(masks, maps)
    if found.f1_max is None:
        assert truth.sum() in (0, truth.size)
        return
    precision, recall, thresholds = precision_recall_curve(truth, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert found.f1_max == pytest.approx(f1.max(), abs=1e-9)
    assert found.f1_threshold == thresholds[f1[:-1] > f1.max() - 1e-9].max()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_maps_of_other_types_keep_their_order(dtype: type) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((20, 20)) < 0.2
    # Of float64 and int64 all differ in digits that float32 does not have.
    values = (rng.permutation(400).reshape(20, 20) * 2.0**-40 + 1.0) if dtype is np.float64 else rng.permutation(400)
    map_HW = (2**40 + values if dtype is np.int64 else values).astype(dtype).reshape(20, 20)
    assert pixel_metrics([mask], [map_HW]).auroc == pytest.approx(
        roc_auc_score(mask.ravel(), map_HW.ravel()), abs=1e-12
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.sampled_from([2, 50, 1000]),
    st.sampled_from([3, 4, 64, 2**14]),
    st.sampled_from([(0.0, 1.0), (0.3, 0.9), (-5.0, 40.0), (0.5, 0.5), (1.0, 1.0 + 1e-6)]),
    st.booleans(),
)
def test_histogram_is_as_near_as_it_says(
    seed: int, levels: int, bins: int, ends: tuple[float, float], wide: bool
) -> None:
    """Also with many pixels cut off at the ends of the range, in float64, and with bins that hold all there is."""
    masks, maps = _case(seed, levels)
    maps = [np.clip(m.astype(np.float64 if wide else np.float32), *ends) for m in maps]
    exact = pixel_metrics(masks, maps)
    histogram = HistogramPixels(*ends, bins=bins)
    for mask, map_HW in zip(masks, maps, strict=True):
        histogram.add(mask, map_HW)
    found = histogram.result()
    assert found.error >= 0
    for name in ("auroc", "average_precision", "f1_max", "pro"):
        assert abs(getattr(found, name) - getattr(exact, name)) <= found.error + 1e-9
    assert (found.images, found.regions, found.pixels, found.defect_pixels) == (
        exact.images,
        exact.regions,
        exact.pixels,
        exact.defect_pixels,
    )


def test_histogram_takes_over_beyond_the_limit_and_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_ov_lab.evaluation.pixel_metrics._FLUSH", 100)
    masks, maps = _case(1, 1000, images=4)
    exact, near = pixel_metrics(masks, maps), pixel_metrics(masks, maps, max_exact=10)
    assert exact.error == 0
    assert 0 < near.error < 1e-2
    assert near.auroc == pytest.approx(exact.auroc, abs=near.error)
    assert near.pro == pytest.approx(exact.pro, abs=near.error)


def test_perfect_and_inverted_maps() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[2:5, 2:5] = mask[7, 7] = True
    perfect = pixel_metrics([mask], [mask.astype(np.float32)])
    assert (perfect.auroc, perfect.average_precision, perfect.pro, perfect.regions) == (1, 1, 1, 2)
    inverted = pixel_metrics([mask], [(~mask).astype(np.float32)])
    assert (inverted.auroc, inverted.pro) == (0, 0)


def test_pro_weighs_regions_alike_whatever_their_size() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:5, :5] = True
    mask[10, 10] = True
    only_large = np.zeros((20, 20), dtype=np.float32)
    only_large[:5, :5] = 1
    # The small region's one pixel is tied with all normal ones: a straight line from 0.5 to 1 over the whole axis.
    assert pixel_metrics([mask], [only_large], max_fpr=1.0).pro == pytest.approx(0.75)
    assert pixel_metrics([mask], [only_large]).auroc == pytest.approx((25 + 0.5) / 26)


def test_diagonal_pixels_are_one_region() -> None:
    mask = np.eye(4, dtype=bool)
    assert pixel_metrics([mask], [mask.astype(np.float32)]).regions == 1


def test_empty_masks_count_as_normal_pixels() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = True
    map_HW = mask.astype(np.float32)
    alarmed = np.full((4, 4), 2, dtype=np.float32)
    with_empty = pixel_metrics([mask, np.zeros((4, 4), dtype=bool)], [map_HW, alarmed])
    assert with_empty.auroc == pytest.approx(15 / 31)
    assert (with_empty.images, with_empty.regions) == (2, 1)


def test_undefined_without_either_kind_of_pixels() -> None:
    nothing = pixel_metrics([np.zeros((3, 3), dtype=bool)], [np.zeros((3, 3), dtype=np.float32)])
    assert (nothing.auroc, nothing.average_precision, nothing.pro) == (None, None, None)
    everything = pixel_metrics([np.ones((3, 3), dtype=bool)], [np.zeros((3, 3), dtype=np.float32)])
    assert (everything.auroc, everything.pro) == (None, None)
    assert pixel_metrics([], []).auroc is None


def test_broken_input_is_an_error() -> None:
    mask = np.zeros((3, 3), dtype=bool)
    with pytest.raises(DataError, match=r"shape \(3, 4\) against a mask of shape \(3, 3\)"):
        pixel_metrics([mask], [np.zeros((3, 4), dtype=np.float32)])
    with pytest.raises(DataError, match="not finite"):
        pixel_metrics([mask], [np.full((3, 3), np.nan, dtype=np.float32)])
    with pytest.raises(DataError, match="not finite"):
        ExactPixels().add(mask, np.full((3, 3), np.inf, dtype=np.float32))
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        HistogramPixels(0, 1).add(mask, np.full((3, 3), 1.5, dtype=np.float32))
    with pytest.raises(ValueError, match="max_fpr"):
        pixel_metrics([mask], [np.zeros((3, 3), dtype=np.float32)], max_fpr=0)
    with pytest.raises(ValueError, match="shorter"):
        pixel_metrics([mask, mask], [np.zeros((3, 3), dtype=np.float32)])


def test_constant_maps_in_the_histogram() -> None:
    masks = [np.eye(5, dtype=bool)]
    found = pixel_metrics(masks, [np.full((5, 5), 0.25, dtype=np.float32)], max_exact=1)
    assert (found.auroc, found.error) == (0.5, 0)


def test_maps_cut_off_at_both_ends_cost_the_histogram_nothing() -> None:
    masks, _ = _case(3, 1000)
    rng = np.random.default_rng(0)
    maps = [rng.choice(np.float32([0, 1]), mask.shape) for mask in masks]
    exact, near = pixel_metrics(masks, maps), pixel_metrics(masks, maps, max_exact=1)
    assert near.error == 0
    for name in ("auroc", "average_precision", "f1_max", "f1_threshold", "pro"):
        assert getattr(near, name) == pytest.approx(getattr(exact, name), abs=1e-12)


def test_f1_of_the_histogram_is_nearly_reached_at_its_threshold() -> None:
    masks, maps = _case(4, 1000)
    found = HistogramPixels(0, 2, bins=50)
    for mask, map_HW in zip(masks, maps, strict=True):
        found.add(mask, map_HW)
    result = found.result()
    truth, values = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    assert result.f1_max is not None
    assert abs(f1_score(truth, values >= result.f1_threshold) - result.f1_max) <= result.error


def test_buffers_may_be_written_over_and_figures_asked_for_twice() -> None:
    masks, maps = _case(5, 1000)
    masks.append(np.zeros((12, 12), dtype=bool))
    maps.append(np.random.default_rng(1).random((12, 12), dtype=np.float32))
    expected = pixel_metrics(masks, maps)
    for counter in (ExactPixels(), HistogramPixels(0, 2, bins=2**16)):
        for mask, map_HW in zip(masks, maps, strict=True):
            lent_mask, lent_map = mask.copy(), map_HW.copy()
            counter.add(lent_mask, lent_map)
            counter.result()
            lent_mask[:], lent_map[:] = True, 0
        assert counter.result().auroc == pytest.approx(expected.auroc, abs=1e-4)


def test_pictures_may_come_from_disk_one_at_a_time() -> None:
    masks, maps = _case(6, 1000)

    class Lazy(Sequence[np.ndarray]):
        def __len__(self) -> int:
            return len(maps)

        def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
            return maps[index].copy()

    near, exact = pixel_metrics(masks, Lazy(), max_exact=1), pixel_metrics(masks, maps)
    assert near.pro == pytest.approx(exact.pro, abs=near.error + 1e-9)


def test_a_histogram_needs_a_range_and_bins() -> None:
    with pytest.raises(DataError, match="a histogram from"):
        HistogramPixels(1, 0)
    with pytest.raises(DataError, match="a histogram from"):
        HistogramPixels(0, float("inf"))
    with pytest.raises(ValueError, match="3 bins"):
        HistogramPixels(bins=2)
    with pytest.raises(DataError, match="not finite"):
        pixel_metrics([np.eye(3, dtype=bool)], [np.full((3, 3), np.nan, dtype=np.float32)], max_exact=1)


def test_values_too_far_apart_for_float32_only_widen_the_bound() -> None:
    mask = np.array([[True, False]])
    found = HistogramPixels(-3e38, 3e38, bins=8)
    found.add(mask, np.array([[1.0, -1.0]], dtype=np.float32))
    result = found.result()
    assert result.auroc is not None
    assert abs(1 - result.auroc) <= result.error
