"""A labelled data set on disk made of synthetic pictures, half normal, half defective; made once, then reused."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from anomaly_ov.files import write_atomic
from anomaly_ov.images.read import read
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.data.synthetic import generate, normal
from anomaly_ov_lab.training.crops import random_view

SIZES = (192, 256, 320, 384)


def synthetic_set(folder: Path, count: int, seed: int, photos: Sequence[Path]) -> DataSet:
    """``count`` pictures of several sizes, picture k a function of (seed, k); half on photos if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for k in track(range(count), description="synthetic pictures", console=Console(stderr=True)):
        picture, mask = folder / f"{k:06d}.webp", folder / f"{k:06d}_mask.png"
        label = k % 2
        if not picture.exists():
            _make(seed, k, label, photos, picture, mask)
        samples.append(Sample(picture, label, mask if label else None, category="synthetic"))
    return DataSet("synthetic", "synthetic", folder, tuple(samples))


def _make(seed: int, k: int, label: int, photos: Sequence[Path], picture: Path, mask: Path) -> None:
    rng = np.random.default_rng((seed, k))
    size = int(rng.choice(SIZES))
    photo = None
    if photos and rng.random() < 0.5:
        photo = random_view(read(photos[int(rng.integers(len(photos)))]).pixels_HW3, size, rng, 0.5)
    made = (generate if label else normal)(int(rng.integers(2**62)), size, photo)
    # The picture last: once it is there, whole, so is its mask, and a killed run goes on after it.
    if label:
        write_atomic(mask, _encoded(Image.fromarray(made.mask_HW), format="PNG"))
    write_atomic(picture, _encoded(Image.fromarray(made.image_HW3), format="WEBP", lossless=True))


def _encoded(picture: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()
