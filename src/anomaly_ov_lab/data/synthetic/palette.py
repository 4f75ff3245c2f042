"""Colours: random material colours, two-tone mixes, and everyday names for measured colours; and made-up letters."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between, chance

NAMED_HUES: tuple[tuple[float, str], ...] = (
    (0.04, "red"), (0.11, "orange"), (0.18, "yellow"), (0.45, "green"),
    (0.53, "cyan"), (0.72, "blue"), (0.82, "purple"), (0.94, "pink"), (1.01, "red"),
)  # fmt: skip


def colour(rng: Rng, value: tuple[float, float] = (0.2, 0.9), saturation: tuple[float, float] = (0.0, 0.7)) -> Array:
    """A random material colour (3,) in 0..1; four in ten are grey."""
    strength = 0.0 if chance(rng, 0.4) else between(rng, *saturation)
    rgb = colorsys.hsv_to_rgb(between(rng, 0, 1), strength, between(rng, *value))
    return np.asarray(rgb, dtype=np.float32)


def near(rng: Rng, base_3: Array, spread: float) -> Array:
    """A colour close to ``base_3``."""
    return np.clip(base_3 + rng.normal(0, spread, 3).astype(np.float32), 0.01, 0.99)


def tint(luma_HW: Array, colour_3: Array) -> Array:
    """(H, W, 3): ``luma_HW`` (1 = the colour itself) times the colour."""
    return luma_HW[..., None] * colour_3


def mix(first_3: Array, second_3: Array, share_HW: Array) -> Array:
    """(H, W, 3): the first colour where ``share`` is 0, the second where it is 1."""
    return first_3 + (second_3 - first_3) * share_HW[..., None]


def luminance(image_HW3: Array) -> Array:
    """Rec. 601 luma."""
    luma: Array = image_HW3[..., 0] * np.float32(0.299)
    luma += image_HW3[..., 1] * np.float32(0.587)
    luma += image_HW3[..., 2] * np.float32(0.114)
    return luma


def colour_name(rgb: tuple[float, float, float]) -> str:
    """An everyday word for a colour in 0..1."""
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    if value < 0.16:
        return "black"
    if saturation < 0.16:
        return "white" if value > 0.86 else "light grey" if value > 0.62 else "grey" if value > 0.34 else "dark grey"
    if hue < 0.12 and value < 0.62 and saturation > 0.25:
        return "brown"
    return next(name for limit, name in NAMED_HUES if hue < limit)


def main_colours(image_HW3: npt.NDArray[np.uint8], most: int = 2) -> tuple[str, ...]:
    """Words for the colours that cover at least a fifth of the picture, most frequent first; never empty."""
    small = np.asarray(Image.fromarray(image_HW3).resize((12, 12), Image.Resampling.BOX), dtype=np.float64) / 255
    counts: dict[str, int] = {}
    for red, green, blue in small.reshape(-1, 3).tolist():
        name = colour_name((red, green, blue))
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(name for i, name in enumerate(ranked[:most]) if i == 0 or counts[name] >= 29)


def glyph(rng: Rng, d: int) -> Array:
    """A letter-like sign (d, d): a few straight and round strokes on a 3 x 5 frame."""
    line = np.arange(d, dtype=np.float32) / (d - 1) * 2 - 1
    y, x = line[:, None], line[None, :]
    pen, soft = np.float32(between(rng, 0.1, 0.22)), np.float32(d / 2)
    sign = np.zeros((d, d), np.float32)
    for _ in range(int(rng.integers(2, 5))):
        style = int(rng.integers(4))
        at = np.float32(rng.choice([-0.7, 0.0, 0.7]))
        if style == 0:
            bar = np.maximum(np.abs(x - at * 0.8), (np.abs(y) - 0.85) + pen)
        elif style == 1:
            bar = np.maximum(np.abs(y - at), (np.abs(x) - 0.65) + pen)
        elif style == 2:
            bar = np.maximum(np.abs(x - y * np.float32(rng.choice([-0.7, 0.7]))), np.abs(y) - 0.85 + pen)
        else:
            bar = np.abs(np.sqrt((x * 1.2) ** 2 + (y - at * 0.6) ** 2) - 0.42)
        sign = np.maximum(sign, np.clip((pen - bar) * soft + 0.5, 0, 1))
    return sign
