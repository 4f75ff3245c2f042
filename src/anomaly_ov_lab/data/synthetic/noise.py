"""Random fields: seeded streams, fractal noise, smooth fields, streaks, and the fast blur and resize they share.

Everything is float32 and draws only from the ``Generator`` it is given, so a seed fixes every byte. Large blurs go
through a small copy of the field (shrink, blur, enlarge): at these sizes that is ten times cheaper than a wide kernel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft, ndimage

Array = npt.NDArray[np.floating[Any]]  # float32 in practice: NumPy's types widen it when a plain number is added
Rng = np.random.Generator


def stream(seed: int, *path: int) -> Rng:
    """An independent random stream for ``(seed, *path)``; paths keep scene, defects and camera apart."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *path])))


@lru_cache(maxsize=8)
def pixel_grid(size: int) -> tuple[Array, Array]:
    """Broadcastable pixel coordinates, rows (size, 1) and columns (1, size)."""
    line = np.arange(size, dtype=np.float32)
    line.setflags(write=False)
    return line[:, None], line[None, :]


@lru_cache(maxsize=64)
def _spectrum(size: int, slope: float) -> Array:
    fy = np.fft.fftfreq(size).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(size).astype(np.float32)[None, :]
    radius = np.sqrt(fy * fy + fx * fx)
    radius[0, 0] = 1.0
    gain = (radius ** np.float32(-slope)).astype(np.float32)
    gain[0, 0] = 0.0
    gain.setflags(write=False)
    return gain


def fractal(rng: Rng, size: int, slope: float = 1.5) -> Array:
    """(size, size) noise with amplitude ~ frequency^-slope, zero mean, unit deviation (0 white, 2 clouds)."""
    gain = _spectrum(size, round(slope * 4) / 4)
    waves = rng.standard_normal((2, *gain.shape), dtype=np.float32)
    field: Array = fft.irfft2((waves[0] + 1j * waves[1]) * gain, s=(size, size)).astype(np.float32, copy=False)
    return field / np.float32(max(float(field.std()), 1e-6))


def fractal_window(rng: Rng, height: int, width: int, slope: float = 1.5) -> Array:
    """(height, width) fractal noise for a small window; the transform's side is a power of two."""
    side = 1 << max(4, int(max(height, width) - 1).bit_length())
    return fractal(rng, side, slope)[:height, :width]


def white(rng: Rng, *shape: int) -> Array:
    """Standard normal noise."""
    return rng.standard_normal(shape, dtype=np.float32)


def enlarge(field_hw: Array, height: int, width: int) -> Array:
    """Bicubic resize of one float channel to (height, width)."""
    picture = Image.fromarray(np.ascontiguousarray(field_hw, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def shrink(field_hw: Array, height: int, width: int) -> Array:
    """Area-averaging resize of one float channel to (height, width)."""
    picture = Image.fromarray(np.ascontiguousarray(field_hw, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX), dtype=np.float32)


def smooth(rng: Rng, size: int, cells: int) -> Array:
    """(size, size) smooth field in about -1..1 with ``cells`` control points a side."""
    return enlarge(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), size, size)


def blur(field_hw: Array, sigma: float) -> Array:
    """Gaussian blur of one channel; wide ones are made on a smaller copy."""
    if sigma < 0.25:
        return field_hw
    if sigma <= 2.5 or min(field_hw.shape) < 16:
        result: Array = ndimage.gaussian_filter(field_hw, sigma, mode="nearest", truncate=2.5)
        return result
    height, width = field_hw.shape
    factor = sigma / 1.5
    small = shrink(field_hw, max(4, round(height / factor)), max(4, round(width / factor)))
    return enlarge(ndimage.gaussian_filter(small, 1.5, mode="nearest", truncate=2.5), height, width)


def blur_colour(view_hw3: Array, sigma: float) -> Array:
    """``blur`` on each channel of an (h, w, 3) picture."""
    return np.stack([blur(view_hw3[..., c], sigma) for c in range(3)], axis=-1)


def streaks(rng: Rng, size: int, length: int, along_rows: bool = True) -> Array:
    """Noise drawn out to streaks of ``length`` pixels, unit deviation: brushing, fibres, hair."""
    field = ndimage.uniform_filter1d(white(rng, size, size), max(2, length), axis=1, mode="wrap")
    field = field / np.float32(max(float(field.std()), 1e-6))
    return field if along_rows else np.ascontiguousarray(field.T)


def relief(height_hw: Array, light_yx: tuple[float, float]) -> Array:
    """Lambert-like shading of a height field in pixels: the slope towards the light, zero on flat ground."""
    slope_y = np.empty_like(height_hw)
    slope_x = np.empty_like(height_hw)
    slope_y[1:-1] = (height_hw[2:] - height_hw[:-2]) * np.float32(0.5)
    slope_x[:, 1:-1] = (height_hw[:, 2:] - height_hw[:, :-2]) * np.float32(0.5)
    slope_y[0] = slope_y[-1] = 0
    slope_x[:, 0] = slope_x[:, -1] = 0
    return slope_y * np.float32(light_yx[0]) + slope_x * np.float32(light_yx[1])


def between(rng: Rng, low: float, high: float) -> float:
    """A uniform number."""
    return float(rng.uniform(low, high))


def log_between(rng: Rng, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def chance(rng: Rng, probability: float) -> bool:
    """True with ``probability``."""
    return bool(rng.random() < probability)
