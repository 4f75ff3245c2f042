"""Tokens of a picture: which cells count, and the way back to its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomaly_ov.context.tokens import PictureTokens, picture_tokens
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import ViewsConfig, anyres, multi_image
from anomaly_ov.models.features import Features
from anomaly_ov.models.projection import Projection

CELLS = 4
VIEWS = ViewsConfig(base_size=32, grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2, 3)), cap=96)


def tokens_of(geometry: Geometry, seed: int = 0, patch: float | None = None) -> tuple[PictureTokens, Features]:
    generator = torch.Generator().manual_seed(seed)
    level_NPD = torch.randn(geometry.views, CELLS * CELLS, 6, generator=generator)
    features = Features(level_NPD, (level_NPD,), (CELLS, CELLS))
    return picture_tokens(features, geometry, Projection((), (6,)), "ab" * 32, patch), features


def geometry_of(width: int, height: int) -> Geometry:
    return anyres(np.zeros((height, width, 3), np.uint8), VIEWS).geometry


def test_cells_are_those_of_the_crops_in_order() -> None:
    geometry = geometry_of(64, 64)
    assert geometry.grid_wh == (2, 2)
    found, features = tokens_of(geometry)
    assert not found.shown_Nhw[0].any()
    assert found.shown_Nhw[1:].all()
    expected = torch.nn.functional.normalize(features.levels_NPD[0][1:].flatten(0, 1), dim=-1)
    torch.testing.assert_close(found.tokens_PD, expected)


def test_the_only_view_stands_in_where_there_are_no_crops() -> None:
    (views,) = multi_image([np.zeros((32, 16, 3), np.uint8)], VIEWS)
    found, _ = tokens_of(views.geometry)
    assert found.shown_Nhw.shape == (1, CELLS, CELLS)
    assert found.shown_Nhw.sum() == CELLS * CELLS // 2
    assert len(found.tokens_PD) == found.shown_Nhw.sum()


def test_padding_does_not_count() -> None:
    geometry = geometry_of(96, 40)  # taller than one row of crops, and does not fill two
    found, _ = tokens_of(geometry)
    share_Nhw = geometry.content_share((CELLS, CELLS))
    assert (share_Nhw[found.shown_Nhw] >= 0.5).all()
    assert 0 < found.shown_Nhw.sum() < share_Nhw[1:].size


def test_descriptor_is_of_the_base_view() -> None:
    geometry = geometry_of(64, 64)
    found, features = tokens_of(geometry)
    level_NPD = features.levels_NPD[0].clone()
    level_NPD[1:] = 1.0
    other = Features(level_NPD, (level_NPD,), (CELLS, CELLS))
    again = picture_tokens(other, geometry, Projection((), (6,)), "ab" * 32)
    torch.testing.assert_close(again.descriptor_E, found.descriptor_E)
    assert found.descriptor_E.norm().item() == pytest.approx(1, abs=1e-5)
    level_NPD = features.levels_NPD[0].clone()
    level_NPD[0] = torch.randn(CELLS * CELLS, 6, generator=torch.Generator().manual_seed(9))
    changed = picture_tokens(Features(level_NPD, (level_NPD,), (CELLS, CELLS)), geometry, Projection((), (6,)), "")
    assert (changed.descriptor_E - found.descriptor_E).abs().max() > 0.01


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (1, 200), (200, 1), (1, 3000), (3000, 1), (3, 90), (90, 3), (33, 97), (300, 301), (96, 96), (10, 10)],
)
@pytest.mark.parametrize("patch", [None, 8.0, 7.0, 6.5])
def test_every_pixel_of_the_map_has_a_value_of_the_picture(width: int, height: int, patch: float | None) -> None:
    """One value everywhere comes back as that value everywhere: no pixel of the picture is left without a cell."""
    geometry = geometry_of(width, height)
    found, _ = tokens_of(geometry, patch=patch)
    assert len(found.tokens_PD) == found.shown_Nhw.sum() > 0
    map_HW = found.to_map(np.full(len(found.tokens_PD), 0.7, np.float32))
    assert map_HW.shape == geometry.capped_wh[::-1]
    np.testing.assert_allclose(map_HW, 0.7, atol=1e-5)


def test_map_shows_where() -> None:
    geometry = geometry_of(64, 64)
    found, _ = tokens_of(geometry)
    values_P = np.zeros(len(found.tokens_PD), np.float32)
    last = np.flatnonzero(found.shown_Nhw.reshape(len(found.shown_Nhw), -1)[4])  # the crop at the lower right
    values_P[-len(last) :] = 1
    map_HW = found.to_map(values_P)
    assert map_HW[40:, 40:].min() == pytest.approx(1)
    assert map_HW[:24].max() == map_HW[:, :24].max() == 0


def test_map_leaves_the_rim_that_patches_leave() -> None:
    """Four patches of 7 in a view of 32: the last one ends at 28, and what it says is said of 21 to 28."""
    geometry = geometry_of(64, 64)
    places = []
    for patch, centre in ((7.0, 7 * 3.5), (None, 8 * 3.5)):
        found, _ = tokens_of(geometry, patch=patch)
        maps_Nhw = np.zeros(found.shown_Nhw.shape, np.float32)
        maps_Nhw[1, :, 3] = 1  # the last column of the crop at the upper left
        map_HW = found.to_map(maps_Nhw[found.shown_Nhw])
        places.append(float(map_HW[10, :32] @ (np.arange(32) + 0.5) / map_HW[10, :32].sum()))
        assert abs(float(map_HW[10].argmax()) + 0.5 - centre) <= 0.5
        np.testing.assert_array_equal(found.without_tokens().to_map(maps_Nhw[found.shown_Nhw]), map_HW)
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
    assert light.tokens_PD.untyped_storage().nbytes() == 0
    values_P = np.linspace(0, 1, len(found.tokens_PD), dtype=np.float32)
    np.testing.assert_array_equal(light.to_map(values_P), found.to_map(values_P))
