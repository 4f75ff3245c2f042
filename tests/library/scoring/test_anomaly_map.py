"""The blended map: places, scale, padding, seams and shapes, against a slow reference written cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.errors import UsageError
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import ViewsConfig, anyres, multi_image
from anomaly_ov.scoring.anomaly_map import (
    beneath,
    blended_cells,
    blended_pixels,
    map_score,
    significance_map,
    to_image_pixels,
)
from geometry_oracle import cell_box


def geometry_for(wh, base=32, **options) -> Geometry:
    return anyres(np.zeros((wh[1], wh[0], 3), np.uint8), ViewsConfig(base_size=base, **options)).geometry


def linear(geometry: Geometry, maps: np.ndarray, slope_x: float, slope_y: float) -> np.ndarray:
    """Fills each cell with a linear function of its centre in image pixels."""
    filled = np.empty_like(maps)
    for view, row, column in np.ndindex(*maps.shape):
        x0, y0, x1, y1 = cell_box(geometry, view, row, column, maps.shape[1:])
        filled[view, row, column] = slope_x * (x0 + x1) / 2 + slope_y * (y0 + y1) / 2
    return filled


def cell_centres(geometry: Geometry, shape, axis: int) -> tuple[float, float]:
    """First and last centre, in image pixels, of cells that show mostly picture in every layer."""
    shown = geometry.content_share(shape[1:]) >= 0.5
    outer = []
    for views in ([0], range(1, geometry.views)):
        boxes = [cell_box(geometry, v, r, c, shape[1:]) for v in views for r, c in np.argwhere(shown[v])]
        centres = [(box[axis] + box[axis + 2]) / 2 for box in boxes]
        outer.append((min(centres), max(centres)))
    return max(low for low, _ in outer), min(high for _, high in outer)


@pytest.mark.parametrize("wh", [(200, 150), (97, 61), (300, 500), (64, 64), (400, 40)])
@pytest.mark.parametrize("cells", [4, 7])
def test_a_linear_picture_comes_back_exactly(wh, cells):
    """Linear interpolation is exact on a linear function, so any shifted, squashed or swapped cell shows."""
    geometry = geometry_for(wh)
    shape = (geometry.views, cells, cells)
    for axis, slope in ((0, (0.9 / wh[0], 0.0)), (1, (0.0, 0.9 / wh[1]))):
        maps = np.clip(linear(geometry, np.empty(shape), *slope), 0, 1)
        found = significance_map(maps, geometry)
        positions = np.arange(wh[axis]) + 0.5
        low, high = cell_centres(geometry, shape, axis)
        inside = (positions >= low) & (positions <= high)
        assert inside.sum() > wh[axis] / 4
        line = found.mean(axis=axis, dtype=np.float64)
        assert np.ptp(found, axis=axis).max() < 2e-6
        assert line[inside] == pytest.approx((positions * max(slope))[inside], abs=2e-6)


@pytest.mark.parametrize("wh", [(200, 150), (97, 61), (300, 500), (64, 64), (400, 40)])
@pytest.mark.parametrize("cells", [4, 7])
def test_what_lies_beneath_the_crops_is_the_base_view_at_their_places(wh, cells):
    geometry = geometry_for(wh)
    shape = (geometry.views, cells, cells)
    for axis, slope in ((0, (1.0 / wh[0], 0.0)), (1, (0.0, 1.0 / wh[1]))):
        maps = linear(geometry, np.empty(shape, np.float32), *slope)
        found = beneath(maps[0], geometry)
        low, high = cell_centres(geometry, shape, axis)
        shown = geometry.content_share(shape[1:])[1:] >= 0.5
        inside = shown & (maps[1:] >= low * max(slope) - 1e-6) & (maps[1:] <= high * max(slope) + 1e-6)
        assert inside.sum() > shown.sum() / 3
        np.testing.assert_allclose(found[inside], maps[1:][inside], atol=2e-6)
        assert not found[~shown].any()


def test_an_image_of_one_view_has_nothing_beneath():
    geometry = multi_image([np.zeros((40, 60, 3), np.uint8)], ViewsConfig(base_size=32))[0].geometry
    assert beneath(np.ones((4, 4), np.float32), geometry).shape == (0, 4, 4)


def test_the_capped_picture_is_what_is_mapped():
    geometry = geometry_for((3000, 1500), cap=300)
    maps = np.clip(linear(geometry, np.empty((geometry.views, 8, 8)), 1 / 3000, 0), 0, 1)
    found = significance_map(maps, geometry)
    assert found.shape == (150, 300)
    assert found[75, 100:200] == pytest.approx((np.arange(100, 200) + 0.5) / 300, abs=1e-4)


@given(
    wh=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    cells=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    multi=st.booleans(),
    level=st.floats(0, 1, width=32),
)
@settings(max_examples=150, deadline=None)
def test_a_constant_stays_itself_whatever_the_shape_and_the_padding(wh, cells, multi, level):
    picture, config = np.zeros((wh[1], wh[0], 3), np.uint8), ViewsConfig(base_size=24)
    geometry = (multi_image([picture], config)[0] if multi else anyres(picture, config)).geometry
    # Padding cells shout; none of it may be heard.
    maps = np.where(geometry.content_share(cells) > 0, np.float32(level), np.float32(1 - level))
    found = significance_map(maps, geometry)
    assert found.shape == (wh[1], wh[0])
    assert found.dtype == np.float32
    assert found == pytest.approx(np.full_like(found, level), abs=1e-6)


def test_padding_cells_do_not_bleed_in():
    geometry = geometry_for((64, 20), base=32, grids=((2, 1),))
    share = geometry.content_share((8, 8))
    maps = np.where(share >= 0.5, 0.2, 1.0).astype(np.float32)
    assert (share[1:] == 0).any()
    assert significance_map(maps, geometry) == pytest.approx(np.full((20, 64), 0.2), abs=1e-6)


def test_no_seam_between_crops():
    """A bump across the border of two crops is as smooth as one within a crop."""
    geometry = geometry_for((64, 32), grids=((2, 1),))
    across, within = np.zeros((2, 3, 4, 4), np.float32)
    across[1, :, 3], across[2, :, 0] = 1, 1
    within[1, :, 1], within[1, :, 2] = 1, 1
    blend = [significance_map(maps, geometry, base_weight=0)[16] for maps in (across, within)]
    assert blend[0].max() == 1
    # The border lies 2 cells of 8 pixels to the right of the middle of the first crop.
    assert blend[0][16:] == pytest.approx(blend[1][:-16], abs=1e-6)


def test_base_and_crops_are_averaged_by_weight():
    geometry = geometry_for((64, 64), grids=((2, 2),))
    maps = np.zeros((5, 4, 4))
    maps[0] = 0.8
    assert significance_map(maps, geometry) == pytest.approx(np.full((64, 64), 0.4), abs=1e-6)
    assert significance_map(maps, geometry, base_weight=0.25) == pytest.approx(np.full((64, 64), 0.2), abs=1e-6)
    assert significance_map(maps, geometry, base_weight=1) == pytest.approx(np.full((64, 64), 0.8), abs=1e-6)


def test_each_crop_lands_in_its_place():
    geometry = geometry_for((96, 64), grids=((3, 2),))
    for crop in range(6):
        maps = np.zeros((7, 4, 4))
        maps[1 + crop] = 1
        found = significance_map(maps, geometry, base_weight=0)
        row, column = divmod(crop, 3)
        assert found[row * 32 + 16, column * 32 + 16] == 1
        assert found.sum() == pytest.approx(32 * 32, rel=0.15)
        assert found[(1 - row) * 32 + 16].max() == 0


def test_the_scale_is_absolute():
    geometry = geometry_for((50, 40))
    faint = np.zeros((geometry.views, 4, 4))
    faint[0, 1, 1] = 0.02
    assert significance_map(faint, geometry).max() <= 0.01 + 1e-7
    assert significance_map(np.ones_like(faint), geometry).max() <= 1


def test_patches_that_leave_a_rim():
    """27 patches of 14 cover 378 of 384 pixels; the centres move left by up to 6 pixels accordingly."""
    geometry = geometry_for((384, 384), base=384, grids=((1, 1),))
    maps = np.zeros((2, 27, 27))
    maps[:, :, 20] = 1
    even = significance_map(maps, geometry)[0]
    rimmed = significance_map(maps, geometry, patch=14)[0]
    positions = np.arange(384) + 0.5
    assert (even * positions).sum() / even.sum() == pytest.approx(20.5 * 384 / 27, abs=0.05)
    assert (rimmed * positions).sum() / rimmed.sum() == pytest.approx(20.5 * 14, abs=0.05)
    with pytest.raises(UsageError, match="exceed a view"):
        significance_map(maps, geometry, patch=15)


def test_multi_image_looks_at_the_square():
    geometry = multi_image([np.zeros((20, 40, 3), np.uint8)], ViewsConfig(base_size=16))[0].geometry
    maps = np.zeros((1, 4, 4))
    maps[0, 1], maps[0, 2] = 0.25, 0.75
    maps[0, 0], maps[0, 3] = 1, 1
    found = significance_map(maps, geometry)
    assert found.shape == (20, 40)
    assert found[0] == pytest.approx(np.full(40, 0.25), abs=1e-6)
    assert found[-1] == pytest.approx(np.full(40, 0.75), abs=1e-6)
    assert found[9:11].mean() == pytest.approx(0.5)


def test_blended_cells_have_the_finest_layer_without_padding():
    geometry = geometry_for((640, 480), base=256)
    assert geometry.grid_wh == (3, 2)
    maps = np.random.default_rng(0).random((7, 16, 16), np.float32)
    small, large = blended_cells(maps, geometry), significance_map(maps, geometry)
    assert small.shape == (32, 42)
    assert small.mean() == pytest.approx(large.mean(), abs=0.01)
    assert small.max() <= maps.max()
    single = multi_image([np.zeros((10, 20, 3), np.uint8)], ViewsConfig(base_size=16))[0].geometry
    assert blended_cells(np.zeros((1, 8, 8)), single).shape == (4, 8)


@pytest.mark.parametrize(
    ("maps", "match"),
    [
        (np.zeros((2, 4, 4)), "do not belong to 5 views"),
        (np.zeros((5, 16)), "do not belong"),
        (np.zeros((5, 0, 4)), "do not belong"),
        (np.full((5, 4, 4), np.nan), "NaN"),
    ],
)
def test_wrong_maps_are_refused(maps, match):
    with pytest.raises(UsageError, match=match) as caught:
        significance_map(maps, geometry_for((64, 64), grids=((2, 2),)))
    assert caught.value.hint


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_wrong_weights_are_refused(weight):
    with pytest.raises(UsageError, match="base_weight"):
        significance_map(np.zeros((5, 4, 4)), geometry_for((64, 64), grids=((2, 2),)), base_weight=weight)


def test_to_image_pixels_interpolates_between_centres():
    map_HW = np.array([[0.0, 1.0]], np.float32)
    assert to_image_pixels(map_HW, (4, 2)) == pytest.approx(np.array([[0, 0.25, 0.75, 1]] * 2), abs=1e-6)
    assert to_image_pixels(map_HW, (2, 1)) is map_HW
    large = to_image_pixels(np.random.default_rng(0).random((30, 40), np.float32), (401, 299))
    assert large.shape == (299, 401)
    assert large.dtype == np.float32
    assert large.min() >= 0
    assert large.max() <= 1


def test_map_score_is_the_mean_of_the_top():
    map_HW = np.random.default_rng(0).permutation(1000).reshape(20, 50).astype(np.float32) / 1000
    assert map_score(map_HW, 0.01) == pytest.approx(np.arange(990, 1000).mean() / 1000)
    assert map_score(map_HW, 1.0) == pytest.approx(map_HW.mean())
    assert map_score(map_HW, 1e-9) == map_HW.max()
    assert map_score(np.array([[0.3]], np.float32), 0.5) == pytest.approx(0.3)


@pytest.mark.parametrize("top", [0, -1, 1.5, float("nan")])
def test_map_score_refuses_other_fractions(top):
    with pytest.raises(UsageError, match="fraction"):
        map_score(np.zeros((2, 2), np.float32), top)


def test_blended_values_may_be_of_any_size_and_probabilities_stay_within_theirs():
    """Evidence is summed as logarithms, so it is blended without a range; only maps of probabilities are clipped."""
    geometry = geometry_for((90, 60))
    values = np.random.default_rng(0).normal(-3, 4, (geometry.views, 4, 4)).astype(np.float32)
    found = blended_pixels(values, geometry)
    assert found.shape == (60, 90)
    assert found.min() < -1
    assert found.max() > 1
    np.testing.assert_allclose(blended_pixels(2 * values + 1, geometry), 2 * found + 1, atol=1e-5)
    np.testing.assert_array_equal(significance_map(values, geometry), np.clip(found, 0, 1))


def test_crops_and_base_view_share_each_pixel_by_weight():
    geometry = geometry_for((64, 64), grids=((2, 2),))
    values = np.zeros((5, 4, 4), np.float32)
    values[0] = 1
    for weight in (0.0, 0.3, 1.0):
        for blend in (blended_pixels, blended_cells):
            np.testing.assert_allclose(blend(values, geometry, base_weight=weight), weight, atol=1e-6)
