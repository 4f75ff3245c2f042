"""Random views of pictures for training: one square crop, flipped, turned and jittered."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

T = TypeVar("T", bound=np.generic)
FLIPS = 8
"""The eight symmetries of the square."""


def random_view(
    pixels_HW3: npt.NDArray[np.uint8], size: int, rng: np.random.Generator, smallest: float
) -> npt.NDArray[np.uint8]:
    """One augmented square view (size, size, 3) of a picture, covering ``smallest``..1 of its shorter side."""
    height, width = pixels_HW3.shape[:2]
    side = max(8, int(min(height, width) * rng.uniform(smallest, 1.0)))
    side = min(side, height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = Image.fromarray(pixels_HW3[top : top + side, left : left + side])
    view = np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    turned: npt.NDArray[np.uint8] = flip(_jitter(view, rng), int(rng.integers(FLIPS)))
    return np.ascontiguousarray(turned)


def flip(pixels: npt.NDArray[T], which: int) -> npt.NDArray[T]:
    """One of the eight symmetries of the square, of an array (H, W, ...)."""
    turned: npt.NDArray[T] = np.rot90(pixels, which % 4)
    return turned[:, ::-1] if which >= 4 else turned


def _jitter(pixels: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Contrast, brightness, colour cast; one view in four turns grey, because many inspection cameras are."""
    if rng.random() < 0.25:
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    shift = rng.uniform(-25, 25)
    mean = pixels.mean()
    jittered: npt.NDArray[np.uint8] = np.clip((pixels - mean) * gain + mean + shift, 0, 255).astype(np.uint8)
    return jittered
