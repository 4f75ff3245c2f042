"""Fitting a picture into the square, and its map's way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source
from anomaly_ov_lab.baselines.pictures import fitted, on_picture, show

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (32, 32), (20, 21), (300, 31)])
def test_crop_as_transformers_does(shape: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = RNG.integers(0, 256, (*shape, 3), np.uint8)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_rescale=False, do_normalize=False
    )
    expected = np.asarray(processor(Image.fromarray(pixels))["pixel_values"][0]).transpose(1, 2, 0)
    assert np.abs(fitted(pixels, 32, "crop").astype(int) - expected.astype(int)).max() <= 1


def test_squash_shows_everything() -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 30:] = 255
    square = fitted(pixels, 30, "squash")
    assert square.shape == (30, 30, 3)
    assert square[:, :13].max() == 0
    assert square[:, 17:].min() == 255


def test_map_of_a_squashed_picture() -> None:
    """Golden: two columns of cells on 8 pixels; between the centres (2 and 6) the value rises linearly."""
    map_hw = np.array([[0, 1], [0, 1]], np.float32)
    found = on_picture(map_hw, (8, 5), 32, "squash")
    assert found.shape == (5, 8)
    np.testing.assert_allclose(found[3], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1], atol=1e-6)


def test_map_of_a_cropped_picture_repeats_its_border() -> None:
    map_hw = np.array([[0, 1], [0, 1]], np.float32)
    found = on_picture(map_hw, (24, 8), 32, "crop")
    assert found.shape == (8, 24)
    np.testing.assert_allclose(found[0, 8:16], on_picture(map_hw, (8, 8), 32, "squash")[0], atol=1e-6)
    assert found[:, :8].max() == 0
    assert found[:, 16:].min() == 1


def test_long_maps_are_capped() -> None:
    assert on_picture(np.ones((3, 3), np.float32), (4096, 1024), 32, "squash").shape == (256, 1024)
    assert on_picture(np.ones((3, 3), np.float32), (4000, 3), 32, "crop").shape == (1, 1024)


def test_an_unreadable_picture_is_a_record(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    shown = show(Source(str(tmp_path / "bad.png"), "bad"), 32, "crop", Limits())
    assert shown.pixels_SS3 is None
    assert shown.error is not None
    assert shown.error.type == "UnreadableImage"
    assert shown.image.path.endswith("bad.png")
