"""Cells of an image at two scales: which of them count, and the way back to views and pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import ViewsConfig, anyres_geometry, multi_image_geometry
from anomaly_ov.scoring.anomaly_map import blended_cells, blended_pixels
from anomaly_ov.scoring.cells import Cells, Scales
from geometry_oracle import cell_box

CELLS = 4
VIEWS = ViewsConfig(base_size=32, grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2, 3)), cap=96)
ONE_VIEW = ViewsConfig(base_size=32, grids=VIEWS.grids, cap=96, single_crop=False)


def cells_of(width: int, height: int, patch: float | None = None) -> Cells:
    return Cells.of(anyres_geometry((width, height), VIEWS), (CELLS, CELLS), patch)


def test_split_takes_the_base_view_and_the_crops_in_order_and_joined_puts_them_back() -> None:
    cells = cells_of(96, 40)  # taller than one row of crops, and does not fill two
    values_Nhw = np.random.default_rng(0).random(cells.shown_Nhw.shape, np.float32) + 1
    scales = cells.split(values_Nhw)
    np.testing.assert_array_equal(scales.whole, values_Nhw[0].ravel())
    np.testing.assert_array_equal(scales.detail, values_Nhw[1:][cells.shown_Nhw[1:]])
    back_Nhw = cells.joined(scales)
    assert back_Nhw.dtype == np.float32
    np.testing.assert_array_equal(back_Nhw[cells.shown_Nhw], values_Nhw[cells.shown_Nhw])
    assert (back_Nhw[~cells.shown_Nhw] == 0).all()
    assert not cells.shown_Nhw.all()


def test_split_takes_vectors_too() -> None:
    cells = cells_of(64, 64)
    values_NhwD = np.random.default_rng(0).random((*cells.shown_Nhw.shape, 5), np.float32)
    scales = cells.split(values_NhwD)
    assert scales.map(np.shape) == Scales((16, 5), (64, 5))
    np.testing.assert_array_equal(scales.detail[16 + 5], values_NhwD[2, 1, 1])


def test_an_image_of_one_view_has_no_crops() -> None:
    cells = Cells.of(anyres_geometry((30, 20), ONE_VIEW), (CELLS, CELLS))
    assert cells.shown_Nhw.shape == (1, CELLS, CELLS)
    assert cells.split(np.ones((1, CELLS, CELLS), np.float32)).map(len) == Scales(16, 0)
    assert cells.stitched().shape == (0, 2)


def test_padding_does_not_count() -> None:
    cells = cells_of(96, 40)
    share_Nhw = cells.geometry.content_share((CELLS, CELLS))
    assert cells.shown_Nhw[0].all(), "the base view shows nothing but image"
    np.testing.assert_array_equal(cells.shown_Nhw[1:], share_Nhw[1:] >= 0.5)
    assert 0 < cells.shown_Nhw[1:].sum() < share_Nhw[1:].size


def test_cells_count_by_the_image_in_them_where_patches_leave_a_rim() -> None:
    shown = [cells_of(96, 40, patch).shown_Nhw for patch in (None, 8.0, 6.0)]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (shown[0] != shown[2]).any()


@pytest.mark.parametrize(("size", "thin"), [((3, 90), True), ((90, 3), True), ((12, 90), False), ((90, 12), False)])
def test_a_strip_thinner_than_half_a_cell_keeps_the_cells_that_show_most_of_it(
    size: tuple[int, int], thin: bool
) -> None:
    cells = cells_of(*size)
    assert (cells.geometry.content_share((CELLS, CELLS))[1:].max() < 0.5) == thin
    middle_hw = np.zeros((CELLS, CELLS), np.bool_)
    middle_hw[:, 1:3] = True  # it lies on the border of the two columns in the middle
    expected_hw = middle_hw if size[0] < size[1] else middle_hw.T
    np.testing.assert_array_equal(cells.shown_Nhw[1:], np.broadcast_to(expected_hw, cells.shown_Nhw[1:].shape))
    assert cells.shown_Nhw[0].all(), "squashed to the base view, a strip fills it"


@pytest.mark.parametrize("thin", [slice(0, 1), slice(1, None)], ids=["whole", "detail"])
def test_cells_of_a_thin_strip_are_found_for_each_scale_on_its_own(
    thin: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one scale has half cells and the other has not, the one that has them keeps to the rule."""
    share_Nhw = np.zeros((5, CELLS, CELLS), np.float32)
    share_Nhw[:, :, :2] = 0.9
    share_Nhw[thin] = 0.2
    share_Nhw[thin, 1, 3] = 0.4
    monkeypatch.setattr(Geometry, "content_share", lambda *_: share_Nhw)
    np.testing.assert_array_equal(cells_of(64, 64).shown_Nhw, share_Nhw >= 0.4)


def test_stitched_cells_are_neighbours_where_the_image_goes_on() -> None:
    """Places on the grid of all crops rise with the pixels that the cells show, across the crops' borders too."""
    cells = cells_of(96, 64)
    assert cells.geometry.grid_wh == (3, 2)
    places_P2 = cells.stitched()
    assert len(places_P2) == cells.shown_Nhw[1:].sum() == 6 * CELLS * CELLS
    for (view, row, column), (y, x) in zip(np.argwhere(cells.shown_Nhw[1:]), places_P2, strict=True):
        x0, y0, x1, y1 = cell_box(cells.geometry, int(view) + 1, int(row), int(column), (CELLS, CELLS))
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((8 * x + 4, 8 * y + 4))
    assert len(np.unique(places_P2, axis=0)) == len(places_P2)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([None, 8.0, 7.0, 6.5]),
    st.sampled_from(["crops", "one view", "whole"]),
)
@example(1, 300, None, "crops")
@example(300, 1, 6.5, "whole")
@example(3, 90, 7.0, "one view")
def test_no_place_of_the_map_is_left_without_a_cell(width: int, height: int, patch: float | None, how: str) -> None:
    """One value in all cells that count comes back as that value everywhere: padding's zeros never show.

    Evidence is summed as logarithms, where 0 would be most suspicious.
    """
    if how == "whole":
        geometry = multi_image_geometry((width, height), VIEWS)
    else:
        geometry = anyres_geometry((width, height), VIEWS if how == "crops" else ONE_VIEW)
    cells = Cells.of(geometry, (CELLS, CELLS), patch)
    values = cells.split(np.full((*cells.shown_Nhw.shape,), -3.0, np.float32))
    assert len(values.whole)
    assert bool(len(values.detail)) == (geometry.views > 1)
    for blend in (blended_cells, blended_pixels):
        np.testing.assert_allclose(blend(cells.joined(values), geometry, patch=patch), -3.0, atol=1e-5)
