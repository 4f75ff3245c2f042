"""Regions against a full-size reference made pixel by pixel, and run lengths from friend and foe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import ndimage

from anomaly_ov.errors import DataError, UsageError
from anomaly_ov.scoring.regions import regions, rle_decode


def bumps(height: int, width: int, seed: int = 0, sigma: float = 3) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), sigma)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def enlarged(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest neighbour, centre to centre, in whole numbers."""
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return mask[rows][:, columns]


@pytest.mark.parametrize("size", [(48, 64), (333, 501), (96, 128), (49, 64)])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.6, 0.9])
def test_regions_equal_the_enlarged_components(size, threshold):
    map_HW = bumps(48, 64)
    found = regions(map_HW, threshold, (size[1], size[0]), min_area_fraction=0)
    labels, count = ndimage.label(map_HW >= threshold, structure=np.ones((3, 3)))
    assert len(found) == count > 0
    union = np.zeros(size, bool)
    for region in found:
        mask = rle_decode(region.rle)
        y, x = np.nonzero(mask)
        label = labels[map_HW == np.float32(region.score)][0]
        assert np.array_equal(mask, enlarged(labels == label, *size))
        assert region.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert region.area == mask.sum()
        assert region.score_mean == pytest.approx(map_HW[labels == label].mean(), rel=1e-5)
        assert region.score >= region.score_mean >= threshold
        assert not (union & mask).any()
        union |= mask
    assert np.array_equal(union, enlarged(map_HW >= threshold, *size))


def test_highest_peak_first_then_area():
    map_HW = np.zeros((20, 20), np.float32)
    map_HW[1:3, 1:3], map_HW[10:15, 10:15], map_HW[17:19, 1:3] = 0.9, 0.6, 0.6
    map_HW[17, 1] = 0.7
    found = regions(map_HW, 0.5, (20, 20))
    assert [round(region.score, 3) for region in found] == [0.9, 0.7, 0.6]
    map_HW[17, 1] = 0.6
    assert [region.area for region in regions(map_HW, 0.5, (20, 20))] == [4, 25, 4]
    assert len(regions(map_HW, 0.5, (20, 20), limit=2)) == 2
    assert regions(map_HW, 0.5, (20, 20), limit=0) == ()


def test_corners_connect_and_the_threshold_counts():
    map_HW = np.zeros((4, 4), np.float32)
    map_HW[0, 0] = map_HW[1, 1] = 0.5
    (region,) = regions(map_HW, 0.5, (4, 4))
    assert region.area == 2
    assert region.box == (0, 0, 2, 2)
    assert region.rle == {"size": [4, 4], "counts": [0, 1, 4, 1, 10]}
    assert regions(map_HW, 0.500001, (4, 4)) == ()


def test_specks_are_left_out_by_their_area_in_the_picture():
    map_HW = np.zeros((10, 10), np.float32)
    map_HW[0, 0], map_HW[5:7, 5:7] = 0.9, 0.6
    assert len(regions(map_HW, 0.5, (100, 100), min_area_fraction=0.01)) == 2
    map_HW[9, 9] = 0.8
    peaks = [round(one.score, 3) for one in regions(map_HW, 0.5, (100, 100), min_area_fraction=0.011)]
    assert peaks == [0.9, 0.6], "a speck that is not the strongest piece is left out"


def test_the_strongest_piece_stays_however_small():
    """A picture whose map reaches the threshold has a region: verdict and regions never contradict each other."""
    map_HW = np.zeros((10, 10), np.float32)
    map_HW[3, 3], map_HW[7, 7] = 0.9, 0.6
    (speck,) = regions(map_HW, 0.5, (100, 100), min_area_fraction=0.5)
    assert (speck.score, speck.area) == (pytest.approx(0.9), 100)
    assert regions(map_HW, 0.91, (100, 100), min_area_fraction=0.0) == ()


@pytest.mark.parametrize("value", [0.7, 0.3, 0.1, 0.5])
def test_the_threshold_is_compared_exactly(value):
    """Float32's 0.7 lies below 0.7, and the threshold of a conformal guarantee just above a score."""
    map_HW = np.full((4, 4), value, np.float32)
    score = float(map_HW.max())
    assert bool(regions(map_HW, value, (4, 4))) == (score >= value)
    assert regions(map_HW, float(np.nextafter(score, 1)), (4, 4)) == ()
    assert len(regions(map_HW, float(np.nextafter(score, 0)), (4, 4))) == 1


@settings(max_examples=60, deadline=None)
@given(st_numpy.arrays(np.float32, (7, 9), elements=st.floats(0, 1, width=32)), st.floats(0, 1), st.floats(0, 1))
def test_there_is_a_region_exactly_when_the_map_reaches_the_threshold(map_HW, threshold, fraction):
    map_HW[0, 0] = threshold  # as near to it as the map's type allows, above or below
    found = regions(map_HW, threshold, (18, 14), min_area_fraction=fraction)
    assert bool(found) == (float(map_HW.max()) >= threshold)
    if found:
        assert found[0].score == float(map_HW.max())


def test_values_are_plain_python_for_json():
    (region, *_) = regions(bumps(20, 30), 0.5, (60, 50))
    assert {type(value) for value in (*region.box, region.area, *region.rle["counts"], *region.rle["size"])} == {int}
    assert type(region.score) is type(region.score_mean) is float


def test_a_large_picture_costs_no_more_than_its_map():
    """The whole of 12 megapixels is one run of ones, not 12 million entries."""
    (region,) = regions(np.ones((768, 1024), np.float32), 0.5, (4000, 3000))
    assert region.rle == {"size": [3000, 4000], "counts": [0, 12_000_000]}
    assert region.box == (0, 0, 4000, 3000)


def test_nan_is_never_a_region():
    assert regions(np.full((4, 4), np.nan, np.float32), 0.0, (4, 4)) == ()


@pytest.mark.parametrize("shape", [(5, 4), (4, 5), (0, 4)])
def test_a_map_of_another_picture_is_refused(shape):
    with pytest.raises(UsageError, match="not one of a picture of 4 x 4"):
        regions(np.zeros(shape, np.float32), 0.5, (4, 4))


@given(st_numpy.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=200, deadline=None)
def test_run_lengths_come_back(mask):
    together = np.zeros_like(mask)
    for region in regions(mask.astype(np.float32), 0.5, mask.shape[::-1], min_area_fraction=0, limit=mask.size):
        assert sum(region.rle["counts"]) == mask.size
        assert all(count > 0 for count in region.rle["counts"][1:])
        together |= rle_decode(region.rle)
    assert np.array_equal(together, mask)


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        ([[1, 1], [1, 1]], [0, 4]),
        ([[0, 1], [0, 0]], [2, 1, 1]),
        ([[0, 1], [1, 0]], [1, 2, 1]),
        ([[0, 0], [0, 1]], [3, 1]),
    ],
)
def test_run_lengths_are_column_major_and_start_with_zeros(mask, counts):
    (region,) = regions(np.array(mask, np.float32), 0.5, (2, 2))
    assert region.rle == {"size": [2, 2], "counts": counts}


def test_zero_runs_from_elsewhere_are_fine():
    assert rle_decode({"size": (2, 2), "counts": (0, 0, 1, 1, 0, 2)}).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 2]},
        {"counts": [4]},
        {"size": [2], "counts": [4]},
        {"size": [0, 2], "counts": []},
        {"size": [-2, -2], "counts": [4]},
        {"size": [2.0, 2], "counts": [4]},
        {"size": [True, 4], "counts": [4]},
        {"size": "22", "counts": [4]},
        {"size": [2, 2], "counts": "04"},
        {"size": [2, 2], "counts": b"04"},
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [5]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [4.0]},
        {"size": [2, 2], "counts": [3, True]},
        {"size": [2, 2], "counts": [2**70, 4 - 2**70]},
        {"size": [2, 2], "counts": [None]},
        {"size": [2, 2], "counts": {"0": 4}},
    ],
)
def test_broken_run_lengths_are_one_named_error(rle):
    with pytest.raises(DataError, match="run-length mask") as caught:
        rle_decode(rle)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_size_is_checked_before_anything_is_allocated():
    huge = {"size": [10**6, 10**6], "counts": [10**12]}
    with pytest.raises(DataError, match="exceeds"):
        rle_decode(huge)
    with pytest.raises(DataError, match="exceeds 10"):
        rle_decode({"size": [4, 4], "counts": [16]}, max_pixels=10)
