"""From a lit part to what the lens sees: every ray's meeting with the part, its scattered and its mirrored light."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from rendering.camera import View
from rendering.fields import Array, Rng
from rendering.light import Studio
from rendering.part import Part
from rendering.surface import Surface

Bools = npt.NDArray[np.bool_]
# Rays per pixel and axis, mirrored rays for each, and how many rows of the picture are worked on at a time.
SUBPIXELS = 2
MIRRORED = 2
ROWS = 60
# How finely a ray is followed, how far (mm) one that is mirrored, and how much a clear film bends one.
SEARCH_STEPS = 40
MIRROR_STEPS = 18
MIRROR_REACH = 14.0
BENDING = 0.08


def render(part: Part, view: View, studio: Studio, rng: Rng) -> Array:
    """The light that falls on the sensor, (height, width, 3), linear."""
    surface = Surface.lit(part, studio)
    trace = _shade if part.film is None else _through_film
    bands = []
    for top in range(0, view.height, ROWS):
        rows = min(ROWS, view.height - top)
        total = np.zeros((rows * view.width, 3), np.float32)
        lot = rng.random(len(total), dtype=np.float32)
        for sub in range(SUBPIXELS**2):
            shift = (np.array(divmod(sub, SUBPIXELS)) + rng.random(2)) / SUBPIXELS
            origin, direction = view.rays(top, rows, float(shift[0]), float(shift[1]))
            total += trace(surface, studio, origin, direction, (lot + sub / (MIRRORED * SUBPIXELS**2)) % 1, rng)
        bands.append(total.reshape(rows, view.width, 3) / SUBPIXELS**2)
    return np.concatenate(bands)


def _descend(surface: Surface, field: Array, origin: Array, direction: Array) -> Array:
    """Where each ray from above meets the height ``field``: (3, N)."""
    start = (surface.top - origin[2]) / direction[2]
    end = (surface.bottom - origin[2]) / direction[2]
    low, high = start.copy(), end.copy()
    open_ = np.ones(start.shape, bool)
    pace = (end - start) / SEARCH_STEPS
    for number in range(1, SEARCH_STEPS + 1):
        t = start + pace * number
        p = origin + direction * t
        below = open_ & (p[2] < surface.nearest(field, p[0], p[1]))
        high = np.where(below, t, high)
        open_ &= ~below
        low = np.where(open_, t, low)
        if not open_.any():
            break
    for _ in range(7):
        t = (low + high) / 2
        p = origin + direction * t
        below = p[2] < surface.between(field, p[0], p[1])
        high = np.where(below, t, high)
        low = np.where(below, low, t)
    return origin + direction * high


def _through_film(surface: Surface, studio: Studio, origin: Array, direction: Array, lot: Array, rng: Rng) -> Array:
    """The same for a part under a clear film: the film mirrors a little, and bends what is seen through it."""
    film, step = surface.part.film, np.float32(surface.part.grid.step)
    assert film is not None
    point = _descend(surface, film, origin, direction)
    x, y = point[0], point[1]
    dx = (surface.between(film, x + step, y) - surface.between(film, x - step, y)) / (2 * step)
    dy = (surface.between(film, x, y + step) - surface.between(film, x, y - step)) / (2 * step)
    normal = _normal(dx, dy)
    there = surface.nearest(surface.part.height, x, y) < point[2] - np.float32(0.02)
    once = 0.05 + 0.95 * _schlick(-(direction * normal).sum(0))
    share = (2 * once / (1 + once) * there)[:, None]
    image = studio.seen(_mirror(direction, normal), point[:2], np.full(once.shape, 0.008, np.float32))
    bent = direction.copy()
    bent[:2] -= normal[:2] * (BENDING * there)
    start = point + bent * ((surface.top - point[2]) / bent[2])
    return _shade(surface, studio, start, bent, lot, rng) * (1 - share) ** 1.5 + image * share


def _shade(surface: Surface, studio: Studio, origin: Array, direction: Array, lot: Array, rng: Rng) -> Array:
    """The light that comes back along each ray, (N, 3); ``lot`` (N,) picks among the slopes of the grooves."""
    point = _descend(surface, surface.part.height, origin, direction)
    layers = surface.between(surface.layers, point[0], point[1])
    mirror, rough, sky = layers[:, 5:8], layers[:, 8], layers[:, 11]
    total = layers[:, 2:5].copy()
    for number in range(MIRRORED):
        spread = ndtri(((lot + number / MIRRORED) % 1).clip(0.01, 0.99)).astype(np.float32)
        loose = rng.standard_normal((2, lot.size), dtype=np.float32) * (0.5 * rough)
        dx = layers[:, 0] + layers[:, 9] * spread + loose[0]
        normal = _normal(dx, layers[:, 1] + layers[:, 10] * spread + loose[1])
        ray = _mirror(direction, normal)
        image = studio.seen(ray, point[:2], rough) * (0.25 + 0.75 * sky)[:, None]
        hit, glow = _meets(surface, point + normal * np.float32(1.5 * surface.part.grid.step), ray)
        image[hit] = glow
        grazing = _schlick(-(direction * normal).sum(0)) * (1 - 2 * rough).clip(0, 1) ** 2
        total += image * (mirror + (1 - mirror) * grazing[:, None]) / MIRRORED
    return total


def _meets(surface: Surface, point: Array, ray: Array) -> tuple[Bools, Array]:
    """Which of the mirrored rays meet the part again, and how bright it is there."""
    step = surface.part.grid.step
    hit = np.zeros(point.shape[1], bool)
    place = point[:2].copy()
    for distance in np.geomspace(step, MIRROR_REACH, MIRROR_STEPS, dtype=np.float32):
        p = point + ray * distance
        new = ~hit & (p[2] < surface.nearest(surface.part.height, p[0], p[1]) - np.float32(0.2 * step))
        place[:, new] = p[:2, new]
        hit |= new
    return hit, surface.nearest(surface.glow, place[0, hit], place[1, hit])


def _normal(dx: Array, dy: Array) -> Array:
    """The unit normal (3, N) of a surface with these slopes."""
    normal = np.stack([-dx, -dy, np.ones_like(dx)])
    return normal / np.sqrt((normal * normal).sum(0))


def _mirror(direction: Array, normal: Array) -> Array:
    """The direction that is seen in a mirror with this normal."""
    return direction - normal * (2 * (direction * normal).sum(0))


def _schlick(facing: Array) -> Array:
    """How much more than straight on a surface mirrors, 0 to 1, seen at an angle of cosine ``facing``."""
    return (1 - facing.clip(0, 1)) ** 5
