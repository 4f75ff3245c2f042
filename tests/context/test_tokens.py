"""Tokens of a picture: which cells count, and the way back to its pixels."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.context.tokens import WHOLE_SHARE, PictureTokens, Scales, picture_tokens
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import ViewsConfig, anyres, multi_image
from anomaly_ov.models.token_maps import Floats, TokenMaps, unit
from context_fixtures import held

CELLS = 4
MAPS = TokenMaps.raw((6,))
VIEWS = ViewsConfig(base_size=32, grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2, 3)), cap=96)


def tokens_of(geometry: Geometry, seed: int = 0, patch: float | None = None) -> tuple[PictureTokens, Floats]:
    level_NPL = np.random.default_rng(seed).normal(size=(geometry.views, CELLS * CELLS, 6)).astype(np.float32)
    return picture_tokens([level_NPL], (CELLS, CELLS), geometry, MAPS, "ab" * 32, patch), level_NPL


def geometry_of(width: int, height: int) -> Geometry:
    return anyres(np.zeros((height, width, 3), np.uint8), VIEWS).geometry


def normalised(level_NPL: Floats, views: slice) -> Floats:
    """What raw levels make of the cells of these views, in order."""
    return unit(level_NPL[views].reshape(-1, level_NPL.shape[-1]))


def filled(found: PictureTokens, whole: float, detail: float) -> Scales[Floats]:
    """One value for all cells of a scale."""
    return Scales(
        np.full(len(found.tokens.whole), whole, np.float32), np.full(len(found.tokens.detail), detail, np.float32)
    )


def test_cells_are_those_of_the_base_view_and_of_the_crops_in_order() -> None:
    geometry = geometry_of(64, 64)
    assert geometry.grid_wh == (2, 2)
    found, level_NPL = tokens_of(geometry)
    assert found.shown_Nhw.all()
    np.testing.assert_allclose(found.tokens.whole, normalised(level_NPL, slice(0, 1)), atol=1e-6)
    np.testing.assert_allclose(found.tokens.detail, normalised(level_NPL, slice(1, None)), atol=1e-6)


def test_the_only_view_serves_at_both_scales_where_there_are_no_crops() -> None:
    (views,) = multi_image([np.zeros((32, 16, 3), np.uint8)], VIEWS)
    found, level_NPL = tokens_of(views.geometry)
    assert found.shown_Nhw.shape == (1, CELLS, CELLS)
    assert found.shown_Nhw.sum() == CELLS * CELLS // 2
    expected = normalised(level_NPL, slice(0, 1))[found.shown_Nhw.ravel()]
    np.testing.assert_allclose(found.tokens.whole, expected, atol=1e-6)
    np.testing.assert_allclose(found.tokens.detail, expected, atol=1e-6)


def test_the_map_of_the_only_view_shows_its_cells() -> None:
    (views,) = multi_image([np.zeros((32, 32, 3), np.uint8)], VIEWS)
    found, _ = tokens_of(views.geometry)
    values = np.zeros(CELLS * CELLS, np.float32)
    values[5] = 1  # second row, second column: pixels 8 to 16
    map_HW = found.to_map(Scales(values, values))
    assert map_HW[12, 12] == map_HW.max() > 0.8
    assert map_HW[20:].max() == map_HW[:, 20:].max() == 0
    for half in (Scales(values, 0 * values), Scales(0 * values, values)):
        np.testing.assert_allclose(found.to_map(half), map_HW / 2)


def test_padding_does_not_count() -> None:
    geometry = geometry_of(96, 40)  # taller than one row of crops, and does not fill two
    found, level_NPL = tokens_of(geometry)
    share_Nhw = geometry.content_share((CELLS, CELLS))
    assert found.shown_Nhw[0].all()  # the base view shows nothing but picture
    np.testing.assert_array_equal(found.shown_Nhw[1:], share_Nhw[1:] >= 0.5)
    assert 0 < found.shown_Nhw[1:].sum() < share_Nhw[1:].size
    shown = found.shown_Nhw[1:].ravel()
    np.testing.assert_allclose(found.tokens.detail, normalised(level_NPL, slice(1, None))[shown], atol=1e-6)


@pytest.mark.parametrize(("size", "thin"), [((3, 90), True), ((90, 3), True), ((12, 90), False), ((90, 12), False)])
def test_a_strip_thinner_than_half_a_cell_of_the_crops_keeps_the_cells_that_show_most_of_it(
    size: tuple[int, int], thin: bool
) -> None:
    geometry = geometry_of(*size)
    share_Nhw = geometry.content_share((CELLS, CELLS))
    assert (share_Nhw[1:].max() < 0.5) == thin
    found, level_NPL = tokens_of(geometry)
    middle_hw = np.zeros((CELLS, CELLS), np.bool_)
    middle_hw[:, 1:3] = True  # it lies on the border of the two columns in the middle
    expected = np.broadcast_to(middle_hw if size[0] < size[1] else middle_hw.T, found.shown_Nhw[1:].shape)
    np.testing.assert_array_equal(found.shown_Nhw[1:], expected)
    shown = expected.ravel()
    np.testing.assert_allclose(found.tokens.detail, normalised(level_NPL, slice(1, None))[shown], atol=1e-6)
    # Squashed to the base view, a strip fills it.
    assert found.shown_Nhw[0].all()


def test_a_strip_thinner_than_half_a_cell_of_the_only_view() -> None:
    (views,) = multi_image([np.zeros((90, 3, 3), np.uint8)], VIEWS)
    share_hw = views.geometry.content_share((CELLS, CELLS))[0]
    assert 0 < share_hw.max() < 0.5
    found, _ = tokens_of(views.geometry)
    np.testing.assert_array_equal(found.shown_Nhw[0], share_hw == share_hw.max())
    assert len(found.tokens.whole) == len(found.tokens.detail) == found.shown_Nhw.sum() > 0


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
    found, _ = tokens_of(geometry_of(64, 64))
    np.testing.assert_array_equal(found.shown_Nhw, share_Nhw >= 0.4)


def test_descriptor_is_of_the_base_view() -> None:
    geometry = geometry_of(64, 64)
    found, level_NPL = tokens_of(geometry)
    crops_NPL, base_NPL = level_NPL.copy(), level_NPL.copy()
    crops_NPL[1:] = 1.0
    base_NPL[0] = np.random.default_rng(9).normal(size=base_NPL[0].shape)
    again, changed = (
        picture_tokens([one_NPL], (CELLS, CELLS), geometry, MAPS, "ab" * 32) for one_NPL in (crops_NPL, base_NPL)
    )
    np.testing.assert_allclose(again.descriptor_E, found.descriptor_E, atol=1e-6)
    assert np.linalg.norm(found.descriptor_E) == pytest.approx(1, abs=1e-5)
    assert np.abs(changed.descriptor_E - found.descriptor_E).max() > 0.01


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (1, 200), (200, 1), (1, 3000), (3000, 1), (3, 90), (90, 3), (33, 97), (300, 301), (96, 96), (10, 10)],
)
@pytest.mark.parametrize("patch", [None, 8.0, 7.0, 6.5])
def test_every_pixel_of_the_map_has_a_value_of_the_picture(width: int, height: int, patch: float | None) -> None:
    """One value everywhere comes back as that value everywhere: no pixel of the picture is left without a cell."""
    geometry = geometry_of(width, height)
    found, _ = tokens_of(geometry, patch=patch)
    assert len(found.tokens.whole) == found.shown_Nhw[0].sum() > 0
    assert len(found.tokens.detail) == found.shown_Nhw[1:].sum() > 0
    map_HW = found.to_map(filled(found, 0.7, 0.7))
    assert map_HW.shape == geometry.capped_wh[::-1]
    np.testing.assert_allclose(map_HW, 0.7, atol=1e-5)
    # Both scales have a say at every pixel, and the same one.
    np.testing.assert_allclose(found.to_map(filled(found, 0.8, 0.0)), 0.8 * WHOLE_SHARE, atol=1e-5)
    np.testing.assert_allclose(found.to_map(filled(found, 0.0, 0.8)), 0.8 * (1 - WHOLE_SHARE), atol=1e-5)


def test_map_shows_where_the_crops_see_it() -> None:
    geometry = geometry_of(64, 64)
    found, _ = tokens_of(geometry)
    values = filled(found, 0, 0)
    values.detail[-CELLS * CELLS :] = 1  # the crop at the lower right
    map_HW = found.to_map(values)
    assert map_HW[40:, 40:].min() == pytest.approx(1 - WHOLE_SHARE)
    assert map_HW[:24].max() == map_HW[:, :24].max() == 0


def test_map_shows_where_the_base_view_sees_it() -> None:
    found, _ = tokens_of(geometry_of(64, 64))
    values = filled(found, 0, 0)
    values.whole[CELLS * CELLS - 1] = 1  # the last cell: pixels 48 to 64
    map_HW = found.to_map(values)
    assert map_HW[56:, 56:].min() == pytest.approx(WHOLE_SHARE)
    assert map_HW[:40].max() == map_HW[:, :40].max() == 0


def test_what_both_scales_see_is_brighter_than_what_one_of_them_sees() -> None:
    found, _ = tokens_of(geometry_of(64, 64))
    whole, detail, both = (filled(found, 0, 0) for _ in range(3))
    detail.detail[:3] = both.detail[:3] = 1
    whole.whole[0] = both.whole[0] = 1
    of_whole, of_detail, of_both = (float(found.to_map(one)[2, 2]) for one in (whole, detail, both))
    assert min(of_whole, of_detail) > 0.1
    assert of_both == pytest.approx(of_whole + of_detail)


@pytest.mark.parametrize("scale", ["whole", "detail"])
def test_map_leaves_the_rim_that_patches_leave(scale: str) -> None:
    """Four patches of 7 in a view of 32: the last one ends at 28, and what it says is said of 21 to 28.

    The base view shows the picture at half its size: there it is twice as far.
    """
    geometry = geometry_of(64, 64)
    view, times = (0, 2) if scale == "whole" else (1, 1)  # the crop at the upper left
    places = []
    for patch, centre in ((7.0, times * 7 * 3.5), (None, times * 8 * 3.5)):
        found, _ = tokens_of(geometry, patch=patch)
        maps_Nhw = np.zeros(found.shown_Nhw.shape, np.float32)
        maps_Nhw[view, :, 3] = 1
        values = Scales(maps_Nhw[:1][found.shown_Nhw[:1]], maps_Nhw[1:][found.shown_Nhw[1:]])
        map_HW = found.to_map(values)
        width = 32 * times
        places.append(float(map_HW[10, :width] @ (np.arange(width) + 0.5) / map_HW[10, :width].sum()))
        assert abs(float(map_HW[10].argmax()) + 0.5 - centre) <= 0.5
        np.testing.assert_array_equal(found.without_tokens().to_map(values), map_HW)
    assert places[0] < places[1] - 1


def test_cells_count_by_the_picture_in_them_where_patches_leave_a_rim() -> None:
    geometry = geometry_of(96, 40)
    shown = [tokens_of(geometry, patch=patch)[0].shown_Nhw for patch in (None, 8.0, 6.0)]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (shown[0] != shown[2]).any()
    np.testing.assert_array_equal(shown[2][1:], geometry.content_share((CELLS, CELLS), 6.0)[1:] >= 0.5)


def test_without_tokens_lets_go_of_them_and_still_makes_maps() -> None:
    found, _ = tokens_of(geometry_of(64, 64))
    light = found.without_tokens()
    assert held(light.tokens.whole) == held(light.tokens.detail) == 0
    values = found.tokens.map(lambda one_PD: np.linspace(0, 1, len(one_PD), dtype=np.float32))
    np.testing.assert_array_equal(light.to_map(values), found.to_map(values))
