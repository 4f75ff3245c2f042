"""From a view's cell back to image pixels: by hand, and by finding a painted dot again."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import ViewsConfig, anyres, multi_image
from geometry_oracle import cell_box

# 60 x 40 picture on a canvas of 2 x 2 crops of 30: enlarged by one, so 10 rows of padding above and below.
BY_HAND = Geometry((120, 80), (60, 40), (60, 60), (0, 10, 60, 50), (2, 2), 30)
SQUARE = Geometry((20, 10), (20, 10), (20, 20), (0, 5, 20, 15), (0, 0), 40)


def test_cells_by_hand():
    assert BY_HAND.views == 5
    # Base view: 3 x 3 cells over a picture of 120 x 80.
    assert cell_box(BY_HAND, 0, 0, 0, (3, 3)) == pytest.approx((0, 0, 40, 80 / 3))
    assert cell_box(BY_HAND, 0, 2, 1, (3, 3)) == pytest.approx((40, 160 / 3, 80, 80))
    # Crops at 2 image pixels per canvas pixel; the first one starts 10 canvas rows above the picture.
    assert cell_box(BY_HAND, 1, 0, 0, (3, 3)) == pytest.approx((0, -20, 20, 0))
    assert cell_box(BY_HAND, 1, 1, 2, (3, 3)) == pytest.approx((40, 0, 60, 20))
    assert cell_box(BY_HAND, 4, 0, 0, (3, 3)) == pytest.approx((60, 40, 80, 60))
    assert BY_HAND.to_image(2) == pytest.approx((2, 2, 60, -20))


def test_padding_by_hand():
    assert BY_HAND.content_in_view(0) == (0, 0, 30, 30)
    assert BY_HAND.content_in_view(1) == (0, 10, 30, 30)
    assert BY_HAND.content_in_view(4) == (0, 0, 30, 20)
    share = BY_HAND.content_share((2, 3))
    assert share.shape == (5, 2, 3)
    assert share[0].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert share[1] == pytest.approx(np.array([[1 / 3] * 3, [1] * 3]))
    assert share[3] == pytest.approx(np.array([[1] * 3, [1 / 3] * 3]))


def test_padding_by_hand_where_patches_leave_a_rim():
    """Two rows of patches of 12 in a view of 30: they show 0 to 24, the rim belongs to none."""
    share = BY_HAND.content_share((2, 2), 12)
    assert share[0].tolist() == [[1, 1], [1, 1]]
    assert share[1] == pytest.approx(np.array([[1 / 6] * 2, [1] * 2]))  # picture from 10 on
    assert share[3] == pytest.approx(np.array([[1] * 2, [8 / 12] * 2]))  # picture up to 20
    np.testing.assert_array_equal(BY_HAND.content_share((3, 3), 10), BY_HAND.content_share((3, 3)))


def test_a_view_of_padding_alone_has_no_content():
    thin = Geometry((90, 1), (90, 1), (90, 90), (0, 44, 90, 46), (3, 3), 30)
    assert thin.content_in_view(1) == (0, 0, 0, 0)
    assert not thin.content_share((4, 4))[1:4].any()
    assert thin.content_share((30, 1))[4, :, 0].sum() == pytest.approx(2)


def test_square_of_multi_image():
    assert SQUARE.views == 1
    assert SQUARE.content_in_view(0) == (0, 10, 40, 30)
    assert cell_box(SQUARE, 0, 1, 0, (4, 4)) == pytest.approx((0, 0, 5, 5))
    assert cell_box(SQUARE, 0, 0, 3, (4, 4)) == pytest.approx((15, -5, 20, 0))


@pytest.mark.parametrize("wh", [(640, 480), (480, 640), (700, 90), (90, 700), (1500, 1000), (33, 50)])
@pytest.mark.parametrize("multi", [False, True])
def test_a_dot_is_found_again(wh, multi):
    (width, height), radius = wh, max(min(wh) / 30, max(wh) / 100)
    rng = np.random.default_rng(7)
    for _ in range(4):
        x, y = rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * height
        yy, xx = np.mgrid[0:height, 0:width] + 0.5
        blob = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * radius**2))
        picture = np.repeat((255 * blob).astype(np.uint8)[..., None], 3, axis=2)
        config = ViewsConfig(base_size=128)
        views = multi_image([picture], config)[0] if multi else anyres(picture, config)
        showing = list(_views_that_show(views, x, y, 3 * radius))
        assert 0 in showing
        for view in showing:
            # Above the grey of the square and the resize's overshoot at its border.
            light = np.clip(views.pixels_NHW3[view, ..., 0].astype(float) - 150, 0, None)
            rows, columns = np.mgrid[0:128, 0:128] + 0.5
            scale_x, scale_y, offset_x, offset_y = views.geometry.to_image(view)
            found_x = (light * columns).sum() / light.sum() * scale_x + offset_x
            found_y = (light * rows).sum() / light.sum() * scale_y + offset_y
            assert found_x == pytest.approx(x, abs=0.6 + scale_x / 2)
            assert found_y == pytest.approx(y, abs=0.6 + scale_y / 2)


def _views_that_show(views, x, y, reach):
    """Views in which the whole dot lies well inside, so that its centre of light is its centre."""
    for view in range(views.geometry.views):
        scale_x, scale_y, offset_x, offset_y = views.geometry.to_image(view)
        if all(
            reach / scale <= (place - offset) / scale <= 128 - reach / scale
            for place, scale, offset in ((x, scale_x, offset_x), (y, scale_y, offset_y))
        ):
            yield view


def test_cells_of_the_crops_tile_the_picture_without_gap():
    geometry = anyres(np.zeros((480, 640, 3), np.uint8), ViewsConfig(base_size=256)).geometry
    edges = [cell_box(geometry, view, 5, column, (16, 16)) for view in (1, 2, 3) for column in range(16)]
    for left, right in pairwise(edges):
        assert left[2] == pytest.approx(right[0], abs=1e-9)
    area = geometry.content_share((16, 16))[1:].sum() / 256 * 256**2
    x0, y0, x1, y1 = geometry.content_box
    assert area == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-5)


@pytest.mark.parametrize("view", [5, -1])
def test_views_that_are_not_there(view):
    with pytest.raises(IndexError):
        BY_HAND.to_image(view)


@pytest.mark.parametrize(
    "change",
    [
        {"image_wh": (0, 3)},
        {"content_box": (5, 0, 5, 9)},
        {"content_box": (0, 0, 61, 9)},
        {"grid_wh": (3, 2)},
        {"grid_wh": (0, 2)},
        {"base_size": 0},
    ],
)
def test_impossible_geometry_is_refused(change):
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(BY_HAND, **change)


def test_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BY_HAND.base_size = 3
    assert len({BY_HAND, dataclasses.replace(BY_HAND)}) == 1
