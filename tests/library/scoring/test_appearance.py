"""How regions look beside their surroundings, on pictures whose colours are known."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.images.views import ViewsConfig, anyres, multi_image
from anomaly_ov.scoring.appearance import MOST_ELONGATED, contrast_of, elongation_of, shown_at
from anomaly_ov.scoring.regions import MOST_DESCRIBED, regions


def test_contrast_is_inside_minus_around() -> None:
    shown = np.full((60, 80, 3), (100, 150, 200), np.uint8)
    shown[20:30, 40:60] = (151, 150, 98)
    suspicious = np.zeros((60, 80), bool)
    suspicious[20:30, 40:60] = True
    found = contrast_of(shown, np.ones((10, 20), bool), suspicious, (20, 40))
    assert found == pytest.approx((0.2, 0.0, -0.4), abs=1e-4)


def test_other_suspicious_pixels_and_pixels_far_away_are_no_surroundings() -> None:
    shown = np.full((60, 80, 3), 100, np.uint8)
    shown[:, 30:] = 255  # far away
    suspicious = np.zeros((60, 80), bool)
    suspicious[20:30, 10:15] = suspicious[20:30, 16:18] = True
    shown[suspicious] = 200
    found = contrast_of(shown, np.ones((10, 5), bool), suspicious, (20, 10))
    assert found == pytest.approx((100 / 255,) * 3, abs=1e-4)


def test_a_region_that_is_everything_has_no_contrast() -> None:
    everything = np.ones((10, 10), bool)
    assert contrast_of(np.zeros((10, 10, 3), np.uint8), everything, everything, (0, 0)) is None


@pytest.mark.parametrize(
    ("mask", "scale", "expected"),
    [
        (np.ones((10, 10), bool), (1.0, 1.0), 1.0),
        (np.ones((4, 20), bool), (1.0, 1.0), 5.0),
        (np.ones((4, 20), bool), (5.0, 1.0), 1.0),
        (np.eye(40, dtype=bool), (1.0, 1.0), 56.5),
        (np.ones((1, 1), bool), (1.0, 1.0), 1.0),
        (np.ones((1, 5000), bool), (1.0, 1.0), MOST_ELONGATED),
    ],
)
def test_elongation_is_long_over_short(mask: np.ndarray, scale: tuple[float, float], expected: float) -> None:
    assert elongation_of(mask, scale) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("size", [(40, 90), (200, 64), (64, 64)])
def test_the_base_view_shows_the_image_at_the_maps_size(size: tuple[int, int]) -> None:
    """Of one picture, and of one of several, which is padded."""
    picture = np.full((*size, 3), 100, np.uint8)
    picture[:, : size[1] // 2] = 10
    config = ViewsConfig(base_size=64)
    for views in (anyres(picture, config), multi_image([picture], config)[0]):
        shown = shown_at(views.pixels_NHW3[0], views.geometry, (30, 40))
        assert shown.shape == (30, 40, 3)
        assert (shown[:, :17] < 20).all()
        assert (shown[:, 23:] > 90).all()


def test_the_first_regions_are_described_where_the_picture_is_shown() -> None:
    map_HW = np.zeros((40, 80), np.float32)
    for index in range(MOST_DESCRIBED + 1):
        map_HW[10:14, 8 * index + 2 : 8 * index + 6] = 0.9 - 0.01 * index
    shown = np.where(map_HW[..., None] > 0, 50, 200).astype(np.uint8).repeat(3, 2)
    found = regions(map_HW, 0.5, (160, 80), shown=lambda: shown)
    assert [one.contrast is None for one in found] == [False] * MOST_DESCRIBED + [True]
    assert found[0].contrast == pytest.approx((-150 / 255,) * 3, abs=1e-4)
    assert found[0].elongation == 1.0
    assert all(one.contrast is None for one in regions(map_HW, 0.5, (160, 80)))


def test_no_region_shows_no_picture() -> None:
    def shown() -> np.ndarray:
        raise AssertionError("nobody looks")

    assert regions(np.zeros((4, 4), np.float32), 0.5, (4, 4), shown=shown) == ()
