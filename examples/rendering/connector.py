"""A moulded connector with four rows of six gold-plated pins, on a dark mat."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rendering.camera import Sensor, View
from rendering.fields import Array, Cell, Grid, Rng, box, circle, mix, rounded, segment, smoothstep
from rendering.light import Lamp, Studio
from rendering.part import Part
from rendering.shot import Setting

GRID = Grid(39, 30, 0.03)
COLUMNS, ROWS, PITCH = 6, 4, 4.0
PIN, TALL, FLOOR, RIM = 0.52, 8.0, 1.6, 6.8
PLASTIC = (0.030, 0.031, 0.034)
GOLD = (0.95, 0.70, 0.34)
BENT = (1.4, -2.6)
SETTING = Setting(
    View(800, 600, 35.5, 150, 14),
    Studio(
        (
            Lamp(-75, 61, 26, 15, 4.2, (1.0, 0.99, 0.97), 0.15),
            Lamp(190, 48, 8, 16, 2.4, (0.93, 0.97, 1.0), 0.2),
            Lamp(60, 40, 16, 8, 1.0, (1.0, 0.97, 0.93), 0.2),
        ),
        horizon=0.15,
        zenith=0.45,
    ),
    Sensor(),
)


def connector(rng: Rng, bent: Cell | None = None, rusty: Cell | None = None) -> Part:
    """The part; the pin at column and row ``bent`` leans, the one at ``rusty`` corrodes."""
    part = Part.table(GRID, (0.40, 0.41, 0.41), 0.5)
    part.height += 0.012 * GRID.grain((0.12, 0.3), rng)
    _mould(part, rng)

    pins = np.full(GRID.shape, -1, np.float32)
    for cell, x, y in GRID.cells(COLUMNS, ROWS, PITCH):
        off = rng.uniform(-0.06, 0.06, 2).tolist()
        pins = np.maximum(pins, _leaning(x, y, BENT) if cell == bent else _upright(x - off[0], y - off[1]))
    metal = ndimage.maximum_filter(smoothstep(pins, 0.0, 0.2), 3)
    part.height = np.maximum(part.height, pins + 0.004 * GRID.noise(0.3, rng))
    part.cover(metal, GOLD, 1.0, (0.16 + 0.03 * GRID.noise(0.4, rng)).clip(0.05, 0.4))
    for cell, x, y in GRID.cells(COLUMNS, ROWS, PITCH):
        if cell == rusty:
            _corrode(part, x, y, metal, rng)
    return part


def _mould(part: Part, rng: Rng) -> None:
    """The housing: a shroud around a floor with a collar for each pin."""
    x, y = GRID.points()
    outer = box(x, y, 15.2, 11.2, 2.2)
    inner = box(x, y, 13.2, 9.2, 1.4)
    # Polarising ribs on one long wall and a slot in the other, marks of the ejector pins, an arrow at the first pin.
    for rib in (-7.0, 7.0):
        inner = np.maximum(inner, -box(x - rib, y + 9.4, 0.7, 0.9, 0.15))
    inner = np.minimum(inner, box(x, y - 9.0, 2.2, 1.1, 0.2))
    rim = RIM - 0.45 * (2 - rounded(outer, 0.45) - rounded(-inner, 0.45))
    ejectors = circle(np.abs(x) - 13.0, np.abs(y) - 9.0, 0.75)
    rim -= 0.08 * smoothstep(ejectors, 0.04, -0.04)
    arrow = np.abs(x + 13.0) - 0.3 + np.abs(y + 6) * 0.9 - 0.2
    floor = FLOOR + 0.5 * (1 - rounded(inner, 0.6)) + 0.25 * smoothstep(arrow, 0.05, -0.05)
    for _, px, py in GRID.cells(COLUMNS, ROWS, PITCH):
        floor = np.maximum(floor, FLOOR + 0.45 * smoothstep(circle(px, py, 1.45), 0.06, -0.12))
        floor -= 0.35 * smoothstep(box(px, py, PIN + 0.16, PIN + 0.16, 0.1), 0.05, -0.03)

    wall = (0.5 - outer / 0.3).clip(0, 1)
    cavity = smoothstep(inner, 0.05, -0.05)
    skin = 0.003 * GRID.grain((0.08, 0.2), rng) + 0.01 * GRID.noise(4, rng)
    part.height = mix(part.height, mix(rim, floor, cavity) + skin, wall)
    part.cover(wall, np.array(PLASTIC) * (1 + 0.02 * GRID.noise(5, rng)[..., None]), 0.0, 0.26)


def _upright(x: Array, y: Array) -> Array:
    """The height of a square pin at the origin, negative outside."""
    distance = box(x, y, PIN, PIN, 0.08)
    height = TALL - 1.6 * (distance + 0.34).clip(0, 1)
    return np.where(distance < 0.02, height, -1) * smoothstep(distance, 0.03, -0.01)


def _leaning(x: Array, y: Array, lean: tuple[float, float]) -> Array:
    """The same of a pin whose tip is bent aside by ``lean``. What hangs free is filled in below: away from the camera
    this is not seen."""
    along, across = segment(x, y, (0.0, 0.0), lean)
    length = float(np.hypot(*lean))
    fall = float(np.sqrt((TALL - FLOOR) ** 2 - length**2))
    distance = np.maximum(np.abs(across) - PIN, np.maximum(-along * length - PIN, (along - 1) * length - 0.5))
    height = FLOOR + 1.0 + fall * along.clip(0, 1) - 0.8 * (np.abs(across) - PIN + 0.25).clip(0, 1)
    height -= 1.4 * ((along - 1) * length).clip(0, 1)
    return np.where(distance < 0, height, -1)


def _corrode(part: Part, x: Array, y: Array, metal: Array, rng: Rng) -> None:
    """Rust on one pin and, weaker, on what is around it."""
    cloud = GRID.grain((0.15, 0.5, 1.2), rng)
    away = np.hypot(x, y + 0.5)
    crust = smoothstep(np.exp(-((away / 2.1) ** 2)) * (1 + 0.5 * cloud), 0.4, 0.65)
    dust = smoothstep(np.exp(-((away / 2.9) ** 2)) * (1 + 0.45 * cloud + 0.2 * GRID.noise(0.1, rng)), 0.25, 0.75)
    part.colour = mix(part.colour, (0.30, 0.12, 0.035), dust * (1 - metal) * 0.6)
    brown, dark = np.array((0.36, 0.12, 0.03), np.float32), np.array((0.13, 0.045, 0.02), np.float32)
    rust = brown + (dark - brown) * smoothstep(cloud, -0.5, 1.5)[..., None]
    part.cover(crust, rust, 0.0, 0.5)
    part.height = part.height + crust * (0.10 + 0.06 * GRID.noise(0.2, rng))
