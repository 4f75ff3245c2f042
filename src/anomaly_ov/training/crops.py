"""Unlabelled training crops: sample ``i`` is a random crop of a random picture, a function of (seed, i) alone.

A share of them may come from the synthetic generator instead, with and without a defect: inspection pictures (textures,
parts, scans) look unlike everyday photographs, and a student follows its teacher only where it has seen something like
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from anomaly_ov.data.synthetic import generate, normal
from anomaly_ov.images.read import read

T = TypeVar("T", bound=np.generic)
FLIPS = 8
"""The eight symmetries of the square."""

GENERATED_SIZE = 256
"""Side of the generated pictures that crops are cut from, in pixels."""


class Crops(Dataset[Tensor]):
    """Square crops covering ``smallest``..1 of the shorter side, flipped, turned, jittered; uint8 (size, size, 3).

    ``synthetic``: share of crops that are cut from generated pictures.
    """

    def __init__(
        self, pictures: Sequence[Path], *, size: int, seed: int, smallest: float = 0.35, synthetic: float = 0.0
    ) -> None:
        self._pictures, self._size, self._seed, self._smallest = list(pictures), size, seed, smallest
        self._synthetic = synthetic

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng((self._seed, index))
        if self._synthetic and rng.random() < self._synthetic:
            make = generate if rng.random() < 0.5 else normal
            made_HW3 = make(int(rng.integers(2**62)), GENERATED_SIZE).image_HW3
            return torch.from_numpy(random_view(made_HW3, self._size, rng, self._smallest))
        picture = read(self._pictures[int(rng.integers(len(self._pictures)))])
        return torch.from_numpy(random_view(picture.pixels_HW3, self._size, rng, self._smallest))


def random_view(
    pixels_HW3: npt.NDArray[np.uint8], size: int, rng: np.random.Generator, smallest: float
) -> npt.NDArray[np.uint8]:
    """One augmented square view (size, size, 3) of a picture."""
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
