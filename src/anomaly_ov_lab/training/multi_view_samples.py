"""Samples for a frozen encoder: all views of one picture as cached features, its label, and its map targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from anomaly_ov.errors import DataError
from anomaly_ov.images.read import read
from anomaly_ov.images.views import ViewsConfig, anyres
from anomaly_ov.models.features import Features
from anomaly_ov_lab.data.hashing import sha256_file
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.training.defect_samples import cell_targets, mask_of
from anomaly_ov_lab.training.feature_cache import Encode, FeatureCache


class MultiViewSample(NamedTuple):
    """Features of the N views of one picture, its label 0/1, and the map's target (N, h, w), NaN where unknown."""

    features: Features
    label: Tensor
    target_Nhw: Tensor


class MultiViewBatch(NamedTuple):
    """Samples with their views concatenated; ``views_per_image`` tells them apart."""

    features: Features
    views_per_image: list[int]
    label_B: Tensor
    target_Nhw: Tensor


class MultiViewSamples(Dataset[MultiViewSample]):
    """Sample ``i`` draws a set, then a label, then a picture, each uniformly, as a function of (seed, i) alone.

    Features must have been cached by ``fill`` before.
    """

    def __init__(self, cache: FeatureCache, views: ViewsConfig, sets: Sequence[DataSet], seed: int) -> None:
        self._cache, self._views, self._seed = cache, views, seed
        self._pools = [[[s for s in one.samples if s.label == label] for label in (0, 1)] for one in sets]
        self._shas: dict[Path, str] = {}
        self._masked_hw: dict[Path, tuple[int, int]] = {}

    def fill(self, encode: Encode) -> None:
        """Computes what the cache lacks, with a progress bar; a picture that is there already is not decoded."""
        from rich.console import Console
        from rich.progress import track

        samples = [sample for pool in self._pools for half in pool for sample in half]
        for sample in track(samples, description="features", console=Console(stderr=True)):
            sha256 = self._shas[sample.image] = sha256_file(sample.image)
            if sample.mask is None and self._cache.get(sha256) is not None:
                continue
            pixels_HW3 = read(sample.image).pixels_HW3
            self._masked_hw[sample.image] = (pixels_HW3.shape[0], pixels_HW3.shape[1])
            if self._cache.get(sha256) is None:
                self._cache.get_or_encode(sha256, encode, anyres(pixels_HW3, self._views).pixels_NHW3)

    def __getitem__(self, index: int) -> MultiViewSample:
        rng = np.random.default_rng((self._seed, index))
        pool = self._pools[int(rng.integers(len(self._pools)))][int(rng.integers(2))]
        sample = pool[int(rng.integers(len(pool)))]
        features = self._cache.get(self._shas[sample.image])
        if features is None:
            raise DataError(
                f"the cached features of {sample.image} are gone", hint="the same command computes them again"
            )
        target = self._target(sample, features)
        return MultiViewSample(features, torch.tensor(float(sample.label or 0)), torch.from_numpy(target))

    def _target(self, sample: Sample, features: Features) -> npt.NDArray[np.float32]:
        shape = (len(features.final_NPD), *features.grid_hw)
        if sample.label == 0:
            return np.zeros(shape, np.float32)
        mask = None if sample.mask is None else mask_of(sample, self._masked_hw[sample.image])
        if mask is None:
            return np.full(shape, np.nan, np.float32)
        as_picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
        views = anyres(as_picture, self._views).pixels_NHW3[..., 0] > 127
        return np.stack([cell_targets(view, features.grid_hw) for view in views])


def collate(items: list[MultiViewSample]) -> MultiViewBatch:
    """Samples with their views concatenated along the first axis."""
    features = Features(
        torch.cat([item.features.final_NPD for item in items]),
        tuple(torch.cat(levels) for levels in zip(*(item.features.levels_NPD for item in items), strict=True)),
        items[0].features.grid_hw,
    )
    views = [len(item.features.final_NPD) for item in items]
    return MultiViewBatch(
        features, views, torch.stack([item.label for item in items]), torch.cat([item.target_Nhw for item in items])
    )
