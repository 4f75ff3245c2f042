"""Noise that no two files share, and masks with one square on the defect."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

WH = (32, 24)


def picture(path: Path, wh: tuple[int, int] = WH, defect: bool = False) -> Path:
    """Smooth noise seeded by the end of its path, with a black square where the mask has one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = [part for part in path.parts[-5:] if not part.startswith("pytest-")]  # these are numbered anew each run
    rng = np.random.default_rng(zlib.crc32("/".join(place).encode()))
    coarse = Image.fromarray(rng.integers(40, 220, (8, 8), dtype=np.uint8))
    pixels = np.array(coarse.resize(wh, Image.Resampling.BICUBIC))
    if defect:
        pixels[square(wh)] = 0
    Image.fromarray(pixels).convert("RGB").save(path)
    return path


def mask(path: Path, wh: tuple[int, int] = WH, value: int = 255, empty: bool = False) -> Path:
    """A mask whose defect is ``value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((wh[1], wh[0]), dtype=np.uint8)
    if not empty:
        pixels[square(wh)] = value
    Image.fromarray(pixels).save(path)
    return path


def square(wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W), True on the defect: columns 3 to 8, rows 2 to 6."""
    area = np.zeros((wh[1], wh[0]), dtype=bool)
    area[2:7, 3:9] = True
    return area
