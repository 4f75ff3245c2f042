"""Shapes and textures on a grid, from which parts are put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.floating[Any]]
Rng = np.random.Generator
Cell = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """A rectangle of the table around the origin, ``step`` mm from point to point."""

    width: float
    height: float
    step: float

    @property
    def shape(self) -> tuple[int, int]:
        return round(self.height / self.step), round(self.width / self.step)

    def points(self) -> tuple[Array, Array]:
        """x and y of every grid point, (H, W) each."""
        rows, columns = self.shape
        x = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * self.step
        y = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * self.step
        xx, yy = np.meshgrid(x, y)
        return xx, yy

    def cells(self, columns: int, rows: int, pitch: float) -> Iterator[tuple[Cell, Array, Array]]:
        """The cells of an array around the origin: column and row, x and y as seen from the cell's middle."""
        x, y = self.points()
        for row in range(rows):
            for column in range(columns):
                yield (column, row), x - (column - (columns - 1) / 2) * pitch, y - (row - (rows - 1) / 2) * pitch

    def noise(self, size: float, rng: Rng, stretch: float = 1.0) -> Array:
        """Smooth noise with features of about ``size`` mm, mean 0 and deviation 1; ``stretch`` lengthens them in x."""
        sigma = size / self.step / 2
        coarse = max(1, int(sigma / 2))
        rows, columns = (side // coarse + 3 for side in self.shape)
        white = rng.standard_normal((rows, columns), dtype=np.float32)
        rough = ndimage.gaussian_filter(white, (sigma / coarse, sigma * stretch / coarse), mode="wrap")
        if coarse > 1:
            rough = ndimage.zoom(rough, coarse, order=1)
        cut = rough[: self.shape[0], : self.shape[1]]
        return ((cut - cut.mean()) / cut.std()).astype(np.float32)

    def grain(self, sizes: tuple[float, ...], rng: Rng) -> Array:
        """Noise of several sizes together, the larger ones stronger, deviation about 1."""
        weights = [size**0.5 for size in sizes]
        total = sum(weight * self.noise(size, rng) for size, weight in zip(sizes, weights, strict=True))
        return np.asarray(total / np.linalg.norm(weights), np.float32)


def circle(x: Array, y: Array, radius: float) -> Array:
    """Distance to a circle around the origin, negative inside."""
    return np.hypot(x, y) - np.float32(radius)


def box(x: Array, y: Array, half_width: float, half_height: float, corner: float) -> Array:
    """Distance to a rectangle with round corners around the origin, negative inside."""
    over_x = np.abs(x) - np.float32(half_width - corner)
    over_y = np.abs(y) - np.float32(half_height - corner)
    outside = np.hypot(np.maximum(over_x, 0), np.maximum(over_y, 0))
    return outside + np.minimum(np.maximum(over_x, over_y), 0) - np.float32(corner)


def turned(x: Array, y: Array, degrees: float) -> tuple[Array, Array]:
    """The points as a frame turned by ``degrees`` sees them."""
    cos, sin = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    return cos * x + sin * y, cos * y - sin * x


def segment(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float]) -> tuple[Array, Array]:
    """Along the line from ``start`` to ``end``: the place, 0 to 1, and the signed distance across."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = float(np.hypot(dx, dy))
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / length**2
    across = ((y - start[1]) * dx - (x - start[0]) * dy) / length
    return along.astype(np.float32), across.astype(np.float32)


def smoothstep(value: Array, low: float, high: float) -> Array:
    """0 up to ``low``, 1 from ``high``, smooth between; ``low`` may be the greater one."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def rounded(distance: Array, radius: float) -> Array:
    """The profile of an edge rounded with ``radius``: 0 outside, rising as a quarter circle to 1 inside."""
    s = np.clip(-distance / np.float32(radius), 0, 1)
    return np.sqrt(1 - (1 - s) ** 2)


def mix(base: Array, other: Array | float | tuple[float, ...], weight: Array) -> Array:
    """``base`` where ``weight`` is 0, ``other`` where it is 1; weights of (H, W) also mix colours of (H, W, 3)."""
    if base.ndim > weight.ndim:
        weight = weight[..., None]
    return base + (np.asarray(other, np.float32) - base) * weight
