"""Labelled single-view samples for end-to-end training: synthetic defects drawn on the fly, and real sets.

Sample ``i`` is a function of (seed, i) alone. Each set and each label is drawn equally often. A crop of an
anomalous picture is anomalous only if its mask says so. Where an anomalous picture has no mask, no picture of its set
is cropped, normal ones neither: the framing would give the label away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from anomaly_ov.images.read import read
from anomaly_ov_lab.data.samples import DataSet, Sample, read_mask
from anomaly_ov_lab.data.synthetic import generate, normal
from anomaly_ov_lab.training.crops import FLIPS, flip, random_view

Drawn = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_] | None, int]
"""View (S, S, 3), mask (S', S') or None if unknown, label."""

FULL_CELL = 0.25
"""A cell counts as fully anomalous once this share of it is masked; below, its target grows linearly."""


class DefectSample(NamedTuple):
    """One view uint8 (S, S, 3), its label 0/1, and the map's target (h, w) in 0..1, NaN where unknown."""

    view_HW3: Tensor
    label: Tensor
    target_hw: Tensor


@dataclass(frozen=True)
class MixConfig:
    """``synthetic``: share of synthetic samples, the rest is real; ``on_photos``: share of those drawn on photos."""

    synthetic: float = 1.0
    on_photos: float = 0.5
    smallest: float = 0.35

    def __post_init__(self) -> None:
        if not (0 <= self.synthetic <= 1 and 0 <= self.on_photos <= 1 and 0 < self.smallest <= 1):
            raise ValueError("synthetic and on_photos must lie in 0..1, smallest in (0, 1]")


class DefectSamples(Dataset[DefectSample]):
    """See the module's docstring. ``photos`` serve as backgrounds; ``sets`` are the real labelled ones."""

    def __init__(
        self,
        mix: MixConfig,
        *,
        photos: Sequence[Path],
        sets: Sequence[DataSet],
        size: int,
        grid_hw: tuple[int, int],
        seed: int,
    ) -> None:
        self._mix, self._photos, self._size, self._grid_hw, self._seed = mix, list(photos), size, grid_hw, seed
        self._pools = [[[s for s in one.samples if s.label == label] for label in (0, 1)] for one in sets]
        self._crops = [all(s.mask is not None for s in anomalous) for _, anomalous in self._pools]

    def __getitem__(self, index: int) -> DefectSample:
        rng = np.random.default_rng((self._seed, index))
        if not self._pools or rng.random() < self._mix.synthetic:
            view, mask, label = self._synthetic(rng)
        else:
            view, mask, label = self._real(rng)
        which = int(rng.integers(FLIPS))
        target = np.full(self._grid_hw, np.nan, np.float32)
        if mask is not None:
            target = cell_targets(flip(mask, which), self._grid_hw)
        view = np.array(flip(view, which))  # a copy: pictures are read-only
        return DefectSample(torch.from_numpy(view), torch.tensor(float(label)), torch.from_numpy(target))

    def _synthetic(self, rng: np.random.Generator) -> Drawn:
        photo = None
        if self._photos and rng.random() < self._mix.on_photos:
            pixels = read(self._photos[int(rng.integers(len(self._photos)))]).pixels_HW3
            photo = random_view(pixels, self._size, rng, self._mix.smallest)
        label = int(rng.integers(2))
        sample = (generate if label else normal)(int(rng.integers(2**62)), self._size, photo)
        return sample.image_HW3, sample.mask_HW, label

    def _real(self, rng: np.random.Generator) -> Drawn:
        which = int(rng.integers(len(self._pools)))
        pool = self._pools[which][int(rng.integers(2))]
        sample = pool[int(rng.integers(len(pool)))]
        pixels = read(sample.image).pixels_HW3
        mask = mask_of(sample, (pixels.shape[0], pixels.shape[1]))
        if mask is None or not self._crops[which]:
            return _resized(pixels, self._size), mask, int(sample.label or 0)
        top, left, side = _window(mask, rng, self._mix.smallest)
        part = np.s_[top : top + side, left : left + side]
        view, cut = _resized(pixels[part], self._size), mask[part]
        return view, cut, int(cut.any())


def collate(items: list[DefectSample]) -> DefectSample:
    """Samples stacked along the first axis."""
    return DefectSample(*(torch.stack(parts) for parts in zip(*items, strict=True)))


def cell_targets(mask_HW: npt.NDArray[np.bool_], grid_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Soft targets (h, w) of a mask: each cell's covered share over ``FULL_CELL``, at most 1."""
    coverage = Image.fromarray(mask_HW.astype(np.float32)).resize(grid_hw[::-1], Image.Resampling.BOX)
    return np.minimum(np.asarray(coverage) / FULL_CELL, 1.0).astype(np.float32)


def mask_of(sample: Sample, picture_hw: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """The picture's mask (H, W) at the picture's size; a normal picture's is all False.

    None where an anomalous picture's defect is not known: no mask, an empty one, or one of another aspect than the
    picture (a mask at another resolution is resized).
    """
    if sample.label == 0:
        return np.zeros(picture_hw, np.bool_)
    mask_HW = None if sample.mask is None else read_mask(sample.mask)
    if mask_HW is None or not mask_HW.any():
        return None
    if mask_HW.shape == picture_hw:
        return mask_HW
    (height, width), (mask_height, mask_width) = picture_hw, mask_HW.shape
    if abs(width * mask_height - height * mask_width) > max(*picture_hw, *mask_HW.shape):
        return None
    return np.asarray(Image.fromarray(mask_HW).resize((width, height), Image.Resampling.NEAREST))


def _window(mask_HW: npt.NDArray[np.bool_], rng: np.random.Generator, smallest: float) -> tuple[int, int, int]:
    """Top, left and side of a square crop; three in four crops of an anomalous picture hold a masked pixel."""
    height, width = mask_HW.shape
    side = min(max(8, int(min(height, width) * rng.uniform(smallest, 1.0))), height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    rows, columns = np.nonzero(mask_HW)
    if len(rows) and rng.random() < 0.75:
        pick = int(rng.integers(len(rows)))
        top = int(np.clip(rows[pick] - rng.integers(side), 0, height - side))
        left = int(np.clip(columns[pick] - rng.integers(side), 0, width - side))
    return top, left, side


def _resized(pixels_HW3: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels_HW3).resize((size, size), Image.Resampling.BICUBIC))
