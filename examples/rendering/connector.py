"""A moulded connector with three rows of four gold-plated pins, on a grey table."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rendering.camera import Sensor, View
from rendering.fields import Array, Cell, Grid, Rng, box, circle, mix, rounded, segment, smoothstep
from rendering.light import Lamp, Studio
from rendering.part import Part
from rendering.shot import Setting

GRID = Grid(29, 23, 0.026)
COLUMNS, ROWS, PITCH = 4, 3, 4.0
PIN, TALL, FLOOR, RIM = 0.52, 8.0, 1.6, 6.8
PLASTIC = (0.030, 0.031, 0.034)
GOLD = (0.95, 0.70, 0.34)
BENT = {(1, 0): (2.9, 1.6), (2, 0): (-1.2, 2.9), (2, 1): (2.6, -1.9), (3, 1): (-2.9, 1.2)}
LOST = (3, 0)
SETTING = Setting(
    View(640, 480, 25.4, 150, 14),
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


def connector(rng: Rng, bent: bool = False, rusty: Cell | None = None) -> Part:
    """The part; if ``bent``, a blow has bent pins and broken the wall; around the pin at ``rusty`` all is corroded."""
    part = Part.table(GRID, (0.40, 0.41, 0.41), 0.5)
    part.height += 0.012 * GRID.grain((0.12, 0.3), rng)
    _mould(part, bent, rng)

    pins = np.full(GRID.shape, -1, np.float32)
    for cell, x, y in GRID.cells(COLUMNS, ROWS, PITCH):
        off = rng.uniform(-0.06, 0.06, 2).tolist()
        if bent and cell in BENT:
            pins = np.maximum(pins, _leaning(x, y, BENT[cell]))
        elif not (bent and cell == LOST):
            pins = np.maximum(pins, _upright(x - off[0], y - off[1]))
    metal = ndimage.maximum_filter(smoothstep(pins, 0.0, 0.2), 3)
    part.height = np.maximum(part.height, pins + 0.004 * GRID.noise(0.3, rng))
    part.cover(metal, GOLD, 1.0, (0.16 + 0.03 * GRID.noise(0.4, rng)).clip(0.05, 0.4))
    for cell, x, y in GRID.cells(COLUMNS, ROWS, PITCH):
        if cell == rusty:
            _corrode(part, x, y, metal, rng)
    return part


def _mould(part: Part, broken: bool, rng: Rng) -> None:
    """The housing: a shroud around a floor with a collar for each pin."""
    x, y = GRID.points()
    outer = box(x, y, 11.2, 9.2, 2.0)
    inner = box(x, y, 9.2, 7.2, 1.3)
    # Polarising ribs on one long wall and a slot in the other, marks of the ejector pins, an arrow at the first pin.
    for rib in (-5.0, 5.0):
        inner = np.maximum(inner, -box(x - rib, y + 7.4, 0.7, 0.9, 0.15))
    inner = np.minimum(inner, box(x, y - 7.0, 2.2, 1.1, 0.2))
    rim = RIM - 0.45 * (2 - rounded(outer, 0.45) - rounded(-inner, 0.45))
    ejectors = circle(np.abs(x) - 9.2, np.abs(y) - 7.2, 0.75)
    rim -= 0.08 * smoothstep(ejectors, 0.04, -0.04)
    arrow = np.abs(x + 9.0) - 0.3 + np.abs(y + 4) * 0.9 - 0.2
    floor = FLOOR + 0.5 * (1 - rounded(inner, 0.6)) + 0.25 * smoothstep(arrow, 0.05, -0.05)
    for _, px, py in GRID.cells(COLUMNS, ROWS, PITCH):
        floor = np.maximum(floor, FLOOR + 0.45 * smoothstep(circle(px, py, 1.45), 0.06, -0.12))
        floor -= 0.35 * smoothstep(box(px, py, PIN + 0.16, PIN + 0.16, 0.1), 0.05, -0.03)

    wall = (0.5 - outer / 0.3).clip(0, 1)
    cavity = smoothstep(inner, 0.05, -0.05)
    skin = 0.003 * GRID.grain((0.08, 0.2), rng) + 0.01 * GRID.noise(4, rng)
    part.height = mix(part.height, mix(rim, floor, cavity) + skin, wall)
    part.cover(wall, np.array(PLASTIC) * (1 + 0.02 * GRID.noise(5, rng)[..., None]), 0.0, 0.26)
    if broken:
        _break(part, wall, cavity, rng)


def _break(part: Part, wall: Array, cavity: Array, rng: Rng) -> None:
    """Breaks a corner out of the wall: a rough, pale fracture, splinters and cracks in the floor."""
    x, y = GRID.points()
    blow = np.hypot(x - 8.6, y + 6.8)
    edge = blow - np.float32(5.9) - 0.7 * GRID.grain((0.5, 2.0), rng)
    gone = wall * smoothstep(edge, 0.1, -0.1) * (1 - cavity)
    stump = np.float32(2.2) + 0.9 * GRID.grain((0.4, 1.0, 2.5), rng) + 0.25 * blow
    part.height = mix(part.height, np.minimum(part.height, stump), gone)
    part.cover(gone * 0.9, np.array((0.20, 0.20, 0.205)) * (1 + 0.2 * GRID.noise(0.4, rng)[..., None]), 0.0, 0.5)
    pale = wall * smoothstep(np.abs(edge), 0.6, 0.0) * (0.5 + 0.3 * GRID.noise(0.5, rng)).clip(0, 1)
    part.cover(pale, (0.30, 0.30, 0.31), 0.0, 0.5)
    cracks = cavity * smoothstep(np.abs(GRID.noise(3.0, rng)), 0.08, 0.03) * smoothstep(blow, 13, 8)
    part.height = part.height - 0.5 * cracks
    bits = wall * smoothstep(GRID.grain((0.5, 1.0), rng), 1.45, 1.6) * smoothstep(blow, 13, 8)
    part.height = part.height + bits * (0.6 + 0.2 * GRID.noise(0.3, rng))
    part.cover(bits, (0.14, 0.14, 0.145), 0.0, 0.45)


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
    """Rust and verdigris on pins and on what is around them, thick near the origin."""
    cloud = GRID.grain((0.15, 0.5, 1.6), rng)
    near = np.exp(-((np.hypot(x, y) / np.float32(4.6)) ** 2))
    crust = smoothstep(near * (1 + 0.6 * cloud), 0.32, 0.6)
    dust = smoothstep(near * (1 + 0.45 * cloud + 0.2 * GRID.noise(0.1, rng)), 0.15, 0.6)
    part.colour = mix(part.colour, (0.30, 0.12, 0.035), dust * (1 - metal) * 0.7)
    brown, dark = np.array((0.42, 0.15, 0.035), np.float32), np.array((0.11, 0.04, 0.02), np.float32)
    rust = brown + (dark - brown) * smoothstep(GRID.grain((0.2, 0.8), rng), -0.8, 1.0)[..., None]
    part.cover(crust, rust, 0.0, 0.5)
    green = smoothstep(near * (1 + 0.8 * GRID.grain((0.25, 1.0), rng)), 0.75, 1.0)
    part.cover(green * 0.9, (0.20, 0.46, 0.38), 0.0, 0.5)
    part.height = (
        part.height + crust * (0.22 + 0.2 * GRID.noise(0.45, rng)) + green * (0.3 + 0.2 * GRID.noise(0.3, rng))
    )
