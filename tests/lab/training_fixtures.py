"""A small labelled folder and the smallest networks that training accepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anomaly_ov.models.config import EncoderConfig

BACKBONE = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 4,
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
}


def encoder_config() -> EncoderConfig:
    """Two stages, 4 x 4 tokens from 32 x 32 pixels."""
    return EncoderConfig(backbone=BACKBONE, levels=(1, 2), final=2, image_size=32, grid_hw=(4, 4))


def labelled_folder(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """An MVTec-style set: grey noise is good; the anomalous ones have a white square, marked in their mask."""
    rng = np.random.default_rng(seed)
    for name in ("test/good", "test/spot", "ground_truth/spot"):
        (folder / name).mkdir(parents=True)
    for k in range(count):
        pixels = rng.integers(90, 130, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "test/good" / f"{k}.png")
        pixels = rng.integers(90, 130, (40, 48, 3), np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        top, left = rng.integers(0, 28, 2)
        mask[top : top + 12, left : left + 12] = 255
        pixels[mask > 0] = 255
        Image.fromarray(pixels).save(folder / "test/spot" / f"{k}.png")
        Image.fromarray(mask).save(folder / "ground_truth/spot" / f"{k}_mask.png")
    return folder
