"""A turned steel flange with six bolt holes on a dark rubber mat."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rendering.camera import Sensor, View
from rendering.fields import Array, Grid, Rng, circle, segment, smoothstep, turned
from rendering.light import Lamp, Studio
from rendering.part import Part
from rendering.shot import Setting

GRID = Grid(116, 116, 0.08)
OUTER, BORE, HUB = 50.0, 13.0, 23.0
PLATE, RISE = 7.0, 3.0
BOLTS, BOLT_CIRCLE, BOLT_HOLE = 6, 37.0, 4.6
STEEL = (0.60, 0.585, 0.565)
GOUGES = (((8.0, 24.0), (46.0, -9.0)), ((17.0, 36.0), (30.0, -4.0)), ((24.0, 34.0), (47.0, 4.0)))
SETTING = Setting(
    View(600, 600, 105, 420, 13),
    Studio(
        (
            Lamp(-80, 50, 24, 14, 3.0, (1.0, 0.99, 0.97), 0.25),
            Lamp(20, 38, 14, 14, 1.6, (0.93, 0.97, 1.0), 0.3),
            Lamp(165, 32, 12, 16, 1.8, (1.0, 0.97, 0.93), 0.3),
        ),
        horizon=0.06,
        zenith=0.26,
    ),
    Sensor(exposure=0.9),
)


def flange(rng: Rng, scratched: bool = False) -> Part:
    """The part, with deep gouges and rust in and around them if ``scratched``."""
    x, y = GRID.points()
    part = Part.table(GRID, (0.028, 0.029, 0.031), 0.45)
    part.height += 0.09 * GRID.grain((0.35, 1.0), rng)
    radius = np.hypot(x, y)
    body = circle(x, y, OUTER) + 0.025 * GRID.noise(2.0, rng)
    holes = np.full(GRID.shape, 99, np.float32)
    for number in range(BOLTS):
        across, along = turned(x, y, 360 / BOLTS * (number + 0.5))
        holes = np.minimum(holes, circle(across - BOLT_CIRCLE, along, BOLT_HOLE))
    bore = circle(x, y, BORE)
    open_ = np.minimum(holes, bore)

    top = PLATE * np.ones(GRID.shape, np.float32)
    top += RISE * smoothstep(radius, HUB + 0.7, HUB - 0.1)
    top -= 0.5 * np.exp(-(((radius - HUB - 1.1) / 0.55) ** 2))
    # Edges are broken with a chamfer: outside, at the hub, at the bore and, small, at the bolt holes.
    hub = np.where(radius < HUB, radius - np.float32(HUB), np.float32(-9))
    for distance, size in ((body, 1.3), (hub, 0.5), (-bore, 1.1), (-holes, 0.6)):
        top -= (distance + np.float32(size)).clip(0, size)
    top += _turning(radius, rng)
    wall = smoothstep(body, 0.15, -0.15) * smoothstep(open_, -0.15, 0.15)
    torn = np.zeros(GRID.shape, np.float32)
    if scratched:
        for start, end in GOUGES:
            depth, bare = _gouge(x, y, start, end, rng)
            top += depth
            torn = np.maximum(torn, bare)
    part.height = part.height * (1 - wall) + top * wall

    tint = np.array(STEEL, np.float32) * (1 + 0.02 * GRID.noise(14, rng)[..., None])
    rough = 0.10 + 0.02 * GRID.noise(9, rng) + 0.012 * GRID.noise(0.5, rng)
    part.cover(wall, tint, 1.0, rough.clip(0.05, 0.3))
    face = wall * smoothstep(body, -0.8, -1.4) * (1 - torn)
    slope = 0.15 * face / np.maximum(radius, 1)
    part.grooves = np.stack([x * slope, y * slope])
    dirt = smoothstep(GRID.noise(0.35, rng), 3.1, 3.6) * 0.6
    part.cover(dirt * wall, (0.16, 0.15, 0.13), 0.0, 0.5)
    if scratched:
        part.cover(torn * wall, (0.52, 0.50, 0.48), 1.0, 0.18)
        _rust(part, wall, torn, rng)
    return part


def _turning(radius: Array, rng: Rng) -> Array:
    """The fine rings that the lathe leaves: the same height all along a circle."""
    fine = rng.standard_normal(2400).astype(np.float32)
    profile = ndimage.gaussian_filter1d(fine, 2.2)
    profile = 0.0035 * profile / profile.std()
    return np.interp(radius, np.arange(2400) * 0.03, profile).astype(np.float32)


def _gouge(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], rng: Rng) -> tuple[Array, Array]:
    """A deep scratch with raised rims and two light ones beside it: height and the share of torn metal."""
    along, across = segment(x, y, start, end)
    across = across + 0.55 * GRID.noise(6.0, rng) + 0.05 * GRID.noise(0.8, rng) + 2.6 * (along - 0.5) ** 2
    ends = smoothstep(along, 0.0, 0.3) * smoothstep(along, 1.0, 0.9)
    half = 1.7 * ends * (1 + 0.10 * GRID.noise(2.5, rng)) + 1e-3
    inside = (1 - np.abs(across / half) ** 1.3).clip(0, 1) * ends
    rims = np.exp(-(((np.abs(across) - half * 1.2) / 0.4) ** 2)) * ends
    # The tool that slipped leaves fine lines along its way, and chatters.
    lines = np.interp(across, np.linspace(-3, 3, 90), rng.standard_normal(90)).astype(np.float32)
    height = inside * (-1.5 + 0.12 * lines + 0.05 * GRID.noise(0.4, rng)) + rims * (0.45 + 0.25 * GRID.noise(0.9, rng))
    for offset, first, last in ((3.4, 0.25, 0.8), (-3.0, 0.5, 0.95)):
        light = smoothstep(along, first, first + 0.1) * smoothstep(along, last, last - 0.1)
        height -= 0.06 * np.exp(-(((across - offset) / 0.16) ** 2)) * light
    return height.astype(np.float32), ((inside > 0.02) + rims).clip(0, 1).astype(np.float32)


def _rust(part: Part, wall: Array, torn: Array, rng: Rng) -> None:
    """Rust that has spread from bare metal: a brown bloom, darker pitted crusts in it."""
    cloud = GRID.grain((0.4, 1.2, 4.0), rng)
    near = ndimage.gaussian_filter(torn, 4.5 / GRID.step) * 2.2
    bloom = wall * smoothstep(near * (1 + 0.45 * cloud), 0.25, 0.7)
    crust = wall * (1 - 0.85 * torn) * smoothstep(near * (1 + 0.8 * GRID.grain((0.5, 1.6), rng)), 0.75, 1.1)
    light, dark = np.array((0.40, 0.16, 0.05), np.float32), np.array((0.15, 0.05, 0.025), np.float32)
    shade = light + (dark - light) * smoothstep(GRID.grain((0.3, 1.5), rng), -0.8, 1.2)[..., None]
    part.cover(bloom * (1 - 0.8 * torn) * 0.75, shade, 0.0, 0.4)
    part.cover(crust * 0.95, shade * 0.6, 0.0, 0.5)
    part.height = part.height + crust * (0.25 + 0.22 * GRID.noise(0.7, rng))
