"""Pictures made ready for sending."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly_ov.remote.pictures import MAX_PNG_BYTES, crop_box, cropped, data_url, outlined, shrunk
from remote_fixtures import region


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def decoded(url: str) -> Image.Image:
    head, data = url.split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert head == f"data:image/{str(image.format).lower()};base64"
    return image


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((80, 100), 100, (100, 80)), ((80, 100), 50, (50, 40)), ((1, 500), 100, (100, 1)), ((10, 10), 64, (10, 10))],
)
def test_shrunk_never_enlarges(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert shrunk(noise(*size), side).size == expected


def test_small_pictures_arrive_bit_for_bit() -> None:
    pixels_HW3 = noise(40, 30)
    assert np.array_equal(np.asarray(decoded(data_url(shrunk(pixels_HW3, 100)))), pixels_HW3)


def test_a_large_png_becomes_a_jpeg() -> None:
    pixels_HW3 = noise(640, 640)
    image = decoded(data_url(Image.fromarray(pixels_HW3)))
    assert (image.format, image.size) == ("JPEG", (640, 640))
    assert len(data_url(Image.fromarray(pixels_HW3))) < 2 * MAX_PNG_BYTES
    assert np.abs(np.asarray(image).astype(int) - pixels_HW3).mean() < 12


@given(st.integers(1, 400), st.integers(1, 400), st.tuples(*[st.floats(0, 1)] * 4).map(lambda t: t))
def test_crop_box_holds_the_box_and_stays_inside(
    width: int, height: int, corners: tuple[float, float, float, float]
) -> None:
    x0, x1 = sorted((int(corners[0] * (width - 1)), int(corners[2] * (width - 1))))
    y0, y1 = sorted((int(corners[1] * (height - 1)), int(corners[3] * (height - 1))))
    box = (x0, y0, x1 + 1, y1 + 1)
    left, top, right, bottom = crop_box(box, (width, height))
    assert 0 <= left <= box[0] < box[2] <= right <= width
    assert 0 <= top <= box[1] < box[3] <= bottom <= height


def test_crop_box_has_a_margin_and_a_least_size() -> None:
    assert crop_box((50, 50, 60, 54), (200, 200)) == (45, 42, 65, 62)  # a tenth of 200 rather than 16
    assert crop_box((40, 40, 90, 60), (400, 400)) == (25, 10, 105, 90)
    assert crop_box((0, 0, 10, 10), (400, 100)) == (0, 0, 16, 16)


def test_crops_show_the_pictures_own_pixels() -> None:
    pixels_HW3 = np.zeros((2000, 2000, 3), np.uint8)
    pixels_HW3[100:104, 200:204] = 255  # four pixels vanish in a picture shrunk to 128
    small = np.asarray(shrunk(pixels_HW3, 128))
    crop = np.asarray(cropped(pixels_HW3, (150, 50, 278, 178), 128))
    assert crop.shape == (128, 128, 3)
    assert crop.max() == 255 > small.max()


def test_small_crops_are_enlarged_up_to_the_side() -> None:
    assert cropped(noise(100, 100), (0, 0, 50, 25), 1024).size == (336, 168)
    assert cropped(noise(100, 100), (0, 0, 50, 25), 100).size == (100, 50)
    assert cropped(noise(100, 100), (0, 0, 2, 2), 1024).size == (16, 16)


def test_outlines_lie_around_the_region_and_nowhere_else() -> None:
    grey_HW3 = np.full((80, 100, 3), 90, np.uint8)
    marked = np.asarray(outlined(Image.fromarray(grey_HW3), (region((20, 10, 40, 20)),), (100, 80)))
    assert (marked[10:20, 20:40] == 90).all()
    assert (marked[9, 20:40] == 255).all()
    assert (marked[14, 19] == 255).all()
    assert (marked[40:] == 90).all()


@pytest.mark.parametrize("box", [(0, 0, 100, 80), (99, 79, 100, 80), (0, 0, 1, 1)])
def test_outlines_at_the_rim_do_not_fail(box: tuple[int, int, int, int]) -> None:
    assert outlined(Image.fromarray(noise(8, 10)), (region(box),), (100, 80)).size == (10, 8)
