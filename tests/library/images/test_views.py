"""Views against the released pre-processing (golden: 59 sizes, pixels of three pictures) and on shapes of our own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.configuration import parse, to_mapping
from anomaly_ov.errors import ConfigError, UsageError
from anomaly_ov.images.views import ALL_GRIDS, ViewsConfig, anyres, best_grid, capped_size, fit_box, multi_image

GOLDEN = Path(__file__).parents[2] / "golden" / "anyres"
SIZES = json.loads((GOLDEN / "sizes.json").read_text())["sizes"]
PIXELS = json.loads((GOLDEN / "pixels.json").read_text())["pixels"]


def golden_picture(name: str) -> np.ndarray:
    """The three pictures that the golden pixels were made from, rebuilt from their seeds."""
    width, height = map(int, name.split("_")[1].split("x"))
    if name.startswith("noise"):
        return np.random.RandomState(1).randint(0, 256, (height, width, 3)).astype(np.uint8)
    y, x = np.indices((height, width))
    if name.startswith("gradient"):
        red, green, blue = x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)
        return np.dstack([red, green, blue]).astype(np.uint8)
    board = 200 * ((x // 16 + y // 16) % 2)
    clean = np.dstack([board, x * 255 // (width - 1), y * 255 // (height - 1)])
    return (clean + np.random.RandomState(3).randint(-20, 21, clean.shape)).clip(0, 255).astype(np.uint8)


def digest(values: np.ndarray) -> str:
    """The golden files' checksum: type, shape, then the bytes in C order."""
    header = f"{values.dtype}{values.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(values).tobytes()).hexdigest()


def test_all_golden_sizes_are_there():
    assert len(SIZES) == 59


@pytest.mark.parametrize("golden", SIZES, ids=lambda g: "x".join(map(str, g["size_wh"])))
def test_golden_sizes(golden):
    size = tuple(golden["size_wh"])
    # The released code caps 1 x N strips to nothing and crashes; ours keep one pixel.
    assert list(capped_size(size, 1024)) == [max(1, side) for side in golden["capped1024_wh"]]
    columns, rows = best_grid(size, 384, ALL_GRIDS)
    assert [columns, rows] == golden["grid_wh"]
    assert [columns * 384, rows * 384] == golden["best_resolution_wh"]
    assert list(fit_box(size, (columns * 384, rows * 384))) == golden["resize_and_pad"]["content_box_xyxy"]
    assert 1 + columns * rows == golden["n_crops_incl_base"]


@pytest.mark.parametrize("name", PIXELS)
def test_golden_pixels(name):
    golden, (picture_name, mode) = PIXELS[name], name.split("/")
    picture = golden_picture(picture_name)
    assert digest(picture) == golden["input_sha256_u8_hwc"]
    views = anyres(picture, ViewsConfig()) if mode == "anyres" else multi_image([picture], ViewsConfig())[0]
    pixels_N3HW = views.pixels_NHW3.transpose(0, 3, 1, 2)
    assert [digest(view) for view in pixels_N3HW] == golden["sha256_u8_per_crop"]
    half = np.float32(0.5)
    assert digest((pixels_N3HW.astype(np.float32) / np.float32(255) - half) / half) == golden["sha256_f32"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 2000), (1, 1024)), ((5000, 1), (1024, 1)), ((1024, 3), (1024, 3)), ((2048, 2), (1024, 1))],
)
def test_cap_never_reaches_zero(size, expected):
    assert capped_size(size, 1024) == expected
    assert capped_size(size, None) == size


@pytest.mark.parametrize("wh", [(1, 1), (1, 2305), (3000, 1), (1, 1025), (2, 769), (700, 500)])
@pytest.mark.parametrize("cap", [None, 1024, 7])
def test_every_shape_gives_whole_views(wh, cap):
    views = anyres(np.full((wh[1], wh[0], 3), 200, np.uint8), ViewsConfig(base_size=32, cap=cap))
    assert views.pixels_NHW3.shape == (views.geometry.views, 32, 32, 3)
    assert len(views) == views.geometry.views
    assert views.pixels_NHW3.flags.c_contiguous
    assert views.geometry.image_wh == wh
    assert (views.pixels_NHW3[0] == 200).all()
    x0, y0, x1, y1 = views.geometry.content_box
    assert (views.pixels_NHW3[1:] == 200).sum() == 3 * (x1 - x0) * (y1 - y0)


def test_crops_tile_the_enlarged_picture_row_by_row():
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32], picture[32:] = [10, 20, 30], [60, 70, 80]
    picture[:, 64:] += 100
    views = anyres(picture, ViewsConfig(base_size=32, grids=((3, 2),)))
    assert views.geometry.grid_wh == (3, 2)
    assert views.geometry.content_box == (0, 0, 96, 64)
    assert [view[0, 0].tolist() for view in views.pixels_NHW3[1:]] == [
        [10, 20, 30],
        [10, 20, 30],
        [110, 120, 130],
        [60, 70, 80],
        [60, 70, 80],
        [160, 170, 180],
    ]


def test_padding_is_black_and_centred():
    views = anyres(np.full((10, 30, 3), 255, np.uint8), ViewsConfig(base_size=30, grids=((1, 1),)))
    assert views.geometry.content_box == (0, 10, 30, 20)
    crop = views.pixels_NHW3[1]
    assert not crop[:10].any()
    assert not crop[20:].any()
    assert (crop[10:20] == 255).all()


def test_multi_image_pads_to_a_grey_square_and_has_one_view_each():
    wide, tall = multi_image(
        [np.zeros((10, 20, 3), np.uint8), np.zeros((40, 20, 3), np.uint8)], ViewsConfig(base_size=20)
    )
    assert wide.pixels_NHW3.shape == tall.pixels_NHW3.shape == (1, 20, 20, 3)
    assert wide.geometry.views == 1
    assert (wide.pixels_NHW3[0, [0, 4, 15, 19]] == 127).all()
    assert not wide.pixels_NHW3[0, 5:15].any()
    assert wide.geometry.canvas_wh == (20, 20)
    assert wide.geometry.content_box == (0, 5, 20, 15)
    assert tall.geometry.content_box == (10, 0, 30, 40)
    assert multi_image([], ViewsConfig()) == []


def test_multi_image_caps_too():
    (views,) = multi_image([np.zeros((2, 3000, 3), np.uint8)], ViewsConfig(base_size=8))
    assert views.geometry.capped_wh == (1024, 1)
    assert views.geometry.image_wh == (3000, 2)


def test_read_only_and_strided_pictures_work_and_stay_untouched():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    config = ViewsConfig(base_size=16)
    expected = anyres(picture.copy(), config).pixels_NHW3
    picture.setflags(write=False)
    doubled = np.repeat(picture, 2, axis=1)[:, ::2]
    before = picture.copy()
    assert np.array_equal(anyres(picture, config).pixels_NHW3, expected)
    assert np.array_equal(anyres(doubled, config).pixels_NHW3, expected)
    assert np.array_equal(picture, before)
    assert anyres(picture, config).pixels_NHW3.flags.writeable


def test_two_runs_share_no_memory():
    picture = np.zeros((20, 20, 3), np.uint8)
    first, second = (anyres(picture, ViewsConfig(base_size=20)).pixels_NHW3 for _ in range(2))
    first[:] = 9
    assert not second.any()
    assert not picture.any()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=lambda a: f"{a.shape}{a.dtype}",
)
@pytest.mark.parametrize("make", [lambda p: anyres(p, ViewsConfig()), lambda p: multi_image([p], ViewsConfig())])
def test_other_arrays_are_refused(pixels, make):
    with pytest.raises(UsageError, match=r"\(H, W, 3\)") as caught:
        make(pixels)
    assert caught.value.hint


@given(
    wh=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    base=st.integers(1, 512),
    grids=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_any_base_and_grids_give_a_box_on_an_allowed_canvas(wh, base, grids):
    grid = best_grid(wh, base, grids)
    assert grid in grids
    canvas = (grid[0] * base, grid[1] * base)
    x0, y0, x1, y1 = fit_box(wh, canvas)
    assert 0 <= x0 < x1 <= canvas[0]
    assert 0 <= y0 < y1 <= canvas[1]
    # Aspect kept: one side fills the canvas, padding is even to a pixel.
    assert (x1 - x0 == canvas[0]) or (y1 - y0 == canvas[1])
    assert abs(x0 - (canvas[0] - x1)) <= 1
    assert abs(y0 - (canvas[1] - y1)) <= 1


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"base_size": 0}, "base_size must be"),
        ({"grids": ()}, "at least one"),
        ({"grids": ((0, 1),)}, "both >= 1"),
        ({"grids": ((100, 100),)}, "pixels for each of grids"),
        ({"base_size": 100_000, "grids": ((1, 1),)}, "pixels for each of grids"),
        ({"cap": 0}, "cap must be"),
    ],
)
def test_configuration_is_validated(values, match):
    with pytest.raises(ValueError, match=match):
        ViewsConfig(**values)
    with pytest.raises(ConfigError, match=match):
        parse(ViewsConfig, values)


def test_configuration_survives_json():
    config = ViewsConfig(base_size=256, grids=((2, 1), (1, 2)), cap=None)
    assert parse(ViewsConfig, json.loads(json.dumps(to_mapping(config)))) == config
    assert len(ViewsConfig().grids) == 36
    assert ViewsConfig().grids[1] == (1, 2)
