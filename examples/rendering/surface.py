"""How a part is lit: soft shadows and scattered light, worked out once for every point of its grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from rendering.fields import Array
from rendering.light import Studio
from rendering.part import Part

# Shadows are worked out on every third point of the grid.
COARSE = 3


@dataclass
class Surface:
    """A part with its light worked out: ``layers`` (H, W, 12) hold slopes, scattered light, mirror colour, roughness,
    grooves and openness to the sky; ``glow`` (H, W, 3) is what other surfaces mirror of it."""

    part: Part
    layers: Array
    glow: Array
    top: float
    bottom: float

    @classmethod
    def lit(cls, part: Part, studio: Studio) -> Surface:
        """Works out the light once, for every ray that will ask."""
        dy, dx = np.gradient(part.height, np.float32(part.grid.step))
        vectors, sky = _light(part, studio)
        up = 1 / np.sqrt(1 + dx * dx + dy * dy)
        normal = np.stack([-dx * up, -dy * up, up])
        received = np.maximum(np.einsum("ahw,achw->hwc", normal, vectors), 0)
        # Hollows see less of the lamps but more of what is around them.
        glow = received * part.colour
        around = np.stack([ndimage.gaussian_filter(glow[..., c], 1.5 / part.grid.step) for c in range(3)], -1)
        received += around * (1 - sky)[..., None]
        glow = received * part.colour
        metal = part.metal[..., None]
        scattered = glow * (1 - metal)
        mirror = 0.04 + (part.colour - 0.04) * metal
        planes = (dx, dy, *np.moveaxis(scattered, -1, 0), *np.moveaxis(mirror, -1, 0), part.rough, *part.grooves, sky)
        highest = part.height if part.film is None else np.maximum(part.height, part.film)
        layers = np.stack(planes, -1).astype(np.float32)
        return cls(part, layers, glow, float(highest.max()) + 0.01, float(part.height.min()) - 0.01)

    def index(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Row and column, not rounded, of a place; places outside are moved to the edge."""
        rows, columns = self.part.grid.shape
        step = np.float32(self.part.grid.step)
        row = (y / step + np.float32((rows - 1) / 2)).clip(0, rows - 1.01)
        return row, (x / step + np.float32((columns - 1) / 2)).clip(0, columns - 1.01)

    def nearest(self, field: Array, x: Array, y: Array) -> Array:
        """``field`` at the nearest grid point."""
        row, column = self.index(x, y)
        return field[(row + 0.5).astype(np.int32), (column + 0.5).astype(np.int32)]

    def between(self, field: Array, x: Array, y: Array) -> Array:
        """``field`` between the grid points, bilinear."""
        row, column = self.index(x, y)
        r, c = row.astype(np.int32), column.astype(np.int32)
        fr, fc = row - r, column - c
        if field.ndim == 3:
            fr, fc = fr[:, None], fc[:, None]
        upper = field[r, c] * (1 - fc) + field[r, c + 1] * fc
        lower = field[r + 1, c] * (1 - fc) + field[r + 1, c + 1] * fc
        return upper * (1 - fr) + lower * fr


def _light(part: Part, studio: Studio) -> tuple[Array, Array]:
    """Light on every point, as vectors (axis, colour, H, W) whose product with the normal is the light received, and
    the share of the sky that is not hidden (H, W)."""
    coarse = np.ascontiguousarray(part.height[::COARSE, ::COARSE])
    step = part.grid.step * COARSE
    vectors = np.zeros((3, 3, *coarse.shape), np.float32)
    sky = np.zeros_like(coarse)
    for direction, colour in studio.rays:
        seen = _unhidden(coarse, direction, step)
        sky += seen
        for axis in range(3):
            for c in range(3):
                vectors[axis, c] += (direction[axis] / direction[2] * colour[c]) * seen
    sky /= len(studio.rays)
    shape = part.height.shape
    return np.stack([np.stack([_refined(v, shape) for v in axis]) for axis in vectors]), _refined(sky, shape)


def _refined(field: Array, shape: tuple[int, int]) -> Array:
    """``field`` of the coarse grid on the fine one, bilinear."""
    rows = np.arange(shape[0], dtype=np.float32) / COARSE
    columns = np.arange(shape[1], dtype=np.float32) / COARSE
    r = np.minimum(rows.astype(np.int32), field.shape[0] - 2)
    c = np.minimum(columns.astype(np.int32), field.shape[1] - 2)
    fr, fc = np.minimum(rows - r, 1)[:, None], np.minimum(columns - c, 1)
    tall = field[r] * (1 - fr) + field[r + 1] * fr
    return tall[:, c] * (1 - fc) + tall[:, c + 1] * fc


def _unhidden(height: Array, direction: Array, step: float) -> Array:
    """How much of the light from ``direction`` reaches every point, 0 to 1; the farther what hides it, the softer."""
    flat = float(np.hypot(direction[0], direction[1]))
    if flat < 1e-3:
        return np.ones_like(height)
    rise = float(direction[2]) / flat
    reach = float(np.ptp(height)) / rise / step
    rows, columns = height.shape
    clear = np.ones_like(height)
    distance = 1.0
    while distance < reach:
        dx, dy = round(direction[0] / flat * distance), round(direction[1] / flat * distance)
        far = distance * step
        y0, y1 = max(0, -dy), min(rows, rows - dy)
        x0, x1 = max(0, -dx), min(columns, columns - dx)
        if y1 <= y0 or x1 <= x0:
            break
        here = height[y0:y1, x0:x1]
        above = here - height[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
        above += np.float32(far * rise)
        above *= np.float32(1 / (0.12 * far + step * 0.5))
        above += np.float32(0.5)
        part = clear[y0:y1, x0:x1]
        np.minimum(part, above, out=part)
        distance += max(1.0, distance * 0.1)
    return clear.clip(0, 1)
