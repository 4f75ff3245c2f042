"""Overlays: size and layout at any shape, an absolute scale, regions where they are, files written whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.overlay import overlay, save_png
from anomaly_ov.records import Region
from anomaly_ov.scoring.regions import regions


def grey(width: int, height: int, level: int = 120) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def flat(value: float, shape=(6, 8)) -> np.ndarray:
    return np.full(shape, value, np.float32)


def panels(sheet: Image.Image, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Both panels of a sheet whose picture needs no scaling, found by the frames' light grey."""
    pixels = np.asarray(sheet).astype(int)
    frame = (pixels == [212, 212, 216]).all(axis=2)
    columns = np.flatnonzero(frame[: height + 60].sum(axis=0) >= height)
    rows = np.flatnonzero(frame.sum(axis=1) >= 2 * width)
    assert len(columns) == 4
    assert len(rows) == 2
    lines = slice(rows[0] + 1, rows[1])
    return pixels[lines, columns[0] + 1 : columns[1]], pixels[lines, columns[2] + 1 : columns[3]]


@pytest.mark.parametrize(
    "wh", [(1, 1), (128, 128), (640, 480), (2000, 100), (1, 2000), (2000, 1), (4000, 3000), (300, 900)]
)
def test_every_shape_is_readable_and_bounded(wh):
    map_HW = np.random.default_rng(0).random((min(wh[1], 64), min(wh[0], 64)), np.float32)
    found = regions(map_HW, 0.6, wh)
    sheet = overlay(grey(*wh), map_HW, found, 0.6, ["name.png  score 0.87", "word " * 400])
    assert sheet.mode == "RGB"
    assert max(sheet.size) <= 1600
    assert min(sheet.size) >= 100
    assert sheet.width >= 480


def test_left_is_the_picture_and_nothing_hides_it_at_zero():
    picture = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    left, right = panels(overlay(picture, flat(0)), 500, 400)
    assert np.array_equal(left, picture)
    # The right one is grey and keeps the picture's light and dark.
    assert np.ptp(right, axis=2).max() == 0
    luma = np.asarray(Image.fromarray(picture).convert("L"))
    assert np.corrcoef(luma.ravel(), right[..., 0].ravel())[0, 1] > 0.999


def test_the_scale_is_absolute():
    """A faint map stays faint: no value depends on what else is in the map."""
    alone = panels(overlay(grey(400, 400), flat(0.2)), 400, 400)[1][200, 40]
    beside = flat(0.2, (400, 400))
    beside[:, 300:] = 1
    together = panels(overlay(grey(400, 400), beside), 400, 400)[1]
    assert np.array_equal(alone, together[200, 40])
    assert np.abs(together[200, 380] - together[200, 40]).max() > 80


def test_opacity_rises_with_the_value():
    contrast = []
    for value in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0):
        picture = grey(400, 400, 0)
        picture[:, 200:] = 255
        right = panels(overlay(picture, flat(value)), 400, 400)[1]
        contrast.append(np.abs(right[200, 50] - right[200, 350]).max())
    assert (np.diff(contrast) < 0).all()
    assert contrast[0] > 150
    assert contrast[-1] < 30


def test_regions_are_outlined_where_they_are():
    map_HW = flat(0, (400, 400))
    map_HW[100:200, 250:350] = 0.6
    bare = panels(overlay(grey(400, 400), map_HW), 400, 400)[1]
    (region,) = regions(map_HW, 0.5, (400, 400))
    marked = panels(overlay(grey(400, 400), map_HW, [region]), 400, 400)[1]
    changed = (bare != marked).any(axis=2)
    assert (marked[150, 250] == 255).all()
    assert (marked[199, 300] == 255).all()
    assert (marked[200, 300] < 40).all()
    assert not changed[110:190, 260:340].any()
    assert not changed[220:].any()
    # The number stands off the top left corner.
    assert changed[75:100, 230:250].any()


def test_regions_of_a_large_picture_are_found_on_the_panel():
    map_HW = flat(0, (300, 400))
    map_HW[:150, :200] = 0.9
    (region,) = regions(map_HW, 0.5, (4000, 3000))
    sheet = np.asarray(overlay(grey(4000, 3000), map_HW, [region])).astype(int)
    unmarked = np.asarray(overlay(grey(4000, 3000), map_HW)).astype(int)
    y, x = np.nonzero((sheet != unmarked).any(axis=2))
    panel_left = 20 + 768 + 20
    assert x.min() >= panel_left
    assert x.max() - panel_left == pytest.approx(384, abs=5)
    assert y.max() - 20 == pytest.approx(288, abs=5)


def test_only_the_first_twenty_are_numbered():
    def dot(index: int) -> Region:
        x, y = 16 * (index % 24) + 14, 380
        return Region((x, y, x + 2, y + 2), 4, 0.9, 0.9, {"size": [400, 400], "counts": [x * 400 + y, 2, 398, 2, 398]})

    first, more = (panels(overlay(grey(400, 400), flat(0), [dot(i) for i in range(n)]), 400, 400)[1] for n in (20, 24))
    changed = (first != more).any(axis=2)
    y, _ = np.nonzero(changed)
    assert changed.any()
    assert y.min() >= 378


def test_threshold_and_captions_are_drawn():
    plain = overlay(grey(400, 300), flat(0.5))
    marked = overlay(grey(400, 300), flat(0.5), threshold=0.25)
    difference = (np.asarray(plain) != np.asarray(marked)).any(axis=2)
    _, x = np.nonzero(difference)
    bar = plain.width - 26
    assert x.min() == pytest.approx(13 + 0.25 * bar, abs=8)
    captioned = overlay(grey(400, 300), flat(0.5), caption="score 0.87")
    two = overlay(grey(400, 300), flat(0.5), caption=["score 0.87", "anomalous"])
    assert plain.height < captioned.height < two.height
    bottom = np.asarray(captioned)[plain.height - 13 :]
    assert (bottom < 100).any()


@pytest.mark.parametrize("threshold", [0.01, 0.99, -3.0, 7.0])
def test_a_threshold_anywhere_stays_on_the_sheet(threshold):
    plain = np.asarray(overlay(grey(100, 100), flat(0.5)))
    marked = np.asarray(overlay(grey(100, 100), flat(0.5), threshold=threshold))
    _, x = np.nonzero((plain != marked).any(axis=2))
    assert 5 <= x.min() <= x.max() < plain.shape[1] - 5


def test_values_out_of_range_and_nan_do_not_break_the_colours():
    high, low = flat(7), flat(-1)
    assert np.array_equal(np.asarray(overlay(grey(400, 300), high)), np.asarray(overlay(grey(400, 300), flat(1))))
    assert np.array_equal(np.asarray(overlay(grey(400, 300), low)), np.asarray(overlay(grey(400, 300), flat(0))))
    assert np.array_equal(
        np.asarray(overlay(grey(400, 300), flat(np.nan))), np.asarray(overlay(grey(400, 300), flat(0)))
    )


def test_odd_captions():
    assert overlay(grey(9, 9), flat(0.1), caption="").height == overlay(grey(9, 9), flat(0.1)).height
    endless = overlay(grey(9, 9), flat(0.1), caption=["x" * 5000, "\t\n \x00 é 漢字"])
    assert endless.height <= 1600


@pytest.mark.parametrize(
    ("pixels", "map_HW"),
    [
        (np.zeros((4, 4), np.uint8), flat(0)),
        (np.zeros((4, 4, 3), np.float32), flat(0)),
        (np.zeros((4, 0, 3), np.uint8), flat(0)),
        (grey(4, 4), np.zeros((2, 2, 2), np.float32)),
        (grey(4, 4), np.zeros((0, 2), np.float32)),
    ],
)
def test_other_arrays_are_refused(pixels, map_HW):
    with pytest.raises(UsageError, match="an overlay needs") as caught:
        overlay(pixels, map_HW)
    assert caught.value.hint


def test_save_png_writes_the_very_pixels(tmp_path):
    sheet = overlay(grey(64, 48), flat(0.4))
    save_png(sheet, tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as saved:
        assert saved.format == "PNG"
        assert np.array_equal(np.asarray(saved), np.asarray(sheet))
    with pytest.raises(UsageError, match="cannot write"):
        save_png(sheet, tmp_path / "missing" / "o.png")
