"""The map's colours: a table of our own, dark blue to pale yellow, even in lightness and safe for colour-blind eyes.

Anchors are joined by straight lines in OKLab (B. Ottosson, 2020), where equal steps look equal, and placed so that
lightness rises evenly. The blue-yellow course keeps its order under red and green blindness.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Colours = npt.NDArray[np.uint8]

ANCHORS = ("#14145a", "#6a1b8f", "#cf3f62", "#f58a2e", "#fff0a0")
STEPS = 256

_TO_CONE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@cache
def palette() -> Colours:
    """(256, 3) uint8 sRGB for the values 0..1, read-only."""
    anchors_K3 = to_oklab(np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in ANCHORS], np.uint8))
    lightness = anchors_K3[:, 0]
    wanted = np.linspace(lightness[0], lightness[-1], STEPS)
    table = from_oklab(np.column_stack([np.interp(wanted, lightness, channel) for channel in anchors_K3.T]))
    table.setflags(write=False)
    return table


def to_oklab(srgb_K3: Colours) -> Floats:
    """(K, 3) OKLab of (K, 3) sRGB in 0..255: lightness 0..1, green-red, blue-yellow."""
    cones: Floats = np.cbrt(linear(srgb_K3) @ _TO_CONE.T)
    lab: Floats = cones @ _TO_LAB.T
    return lab


def from_oklab(lab_K3: Floats) -> Colours:
    """Inverse of ``to_oklab``, clipped to what a screen shows."""
    light = (lab_K3 @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONE).T
    return encoded(light)


def linear(srgb: Colours) -> Floats:
    """Light of sRGB values: 0..255 to 0..1."""
    value = srgb / 255.0
    light: Floats = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light


def encoded(light: Floats) -> Colours:
    """sRGB values of light: 0..1, clipped, to 0..255."""
    light = np.clip(light, 0, 1)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    codes: Colours = np.rint(value * 255).astype(np.uint8)
    return codes
