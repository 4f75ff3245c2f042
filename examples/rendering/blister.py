"""A blister pack: twelve tablets in clear pockets on embossed aluminium foil, on a blue conveyor belt."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rendering.camera import Sensor, View
from rendering.fields import Array, Cell, Grid, Rng, box, circle, mix, rounded, smoothstep, turned
from rendering.light import Lamp, Studio
from rendering.part import Part
from rendering.shot import Setting

GRID = Grid(74, 57, 0.048)
COLUMNS, ROWS, PITCH = 4, 3, 15.0
CARD = (32.0, 24.5)
TABLET, POCKET, DOME = 4.7, 6.0, 4.0
PILL = (0.74, 0.40, 0.29)
FOIL = (0.80, 0.805, 0.81)
SETTING = Setting(
    View(800, 600, 71, 260, 10),
    Studio(
        (
            Lamp(-125, 56, 17, 8, 7.5, (1.0, 0.99, 0.97), 0.015),
            Lamp(-15, 40, 10, 16, 1.6, (0.92, 0.97, 1.0), 0.2),
            Lamp(95, 35, 20, 8, 1.0, (1.0, 0.97, 0.93), 0.2),
        ),
        horizon=0.22,
        zenith=0.42,
    ),
    Sensor(exposure=0.95),
)


def blister(rng: Rng, missing: Cell | None = None, burnt: Cell | None = None) -> Part:
    """The part; the pocket at column and row ``missing`` is empty, the tablet at ``burnt`` scorched."""
    x, y = GRID.points()
    part = Part.table(GRID, (0.035, 0.075, 0.135), 0.4)
    part.height += _weave(x, y) + 0.015 * GRID.grain((0.3, 1.0), rng)
    pockets = np.full(GRID.shape, 99, np.float32)
    domes = np.zeros(GRID.shape, np.float32)
    tablets = np.full(GRID.shape, -1, np.float32)
    scorched = np.zeros(GRID.shape, np.float32)
    for cell, px, py in GRID.cells(COLUMNS, ROWS, PITCH):
        pockets = np.minimum(pockets, circle(px, py, POCKET))
        domes = np.maximum(domes, _dome(px, py))
        off, turn = rng.uniform(-0.45, 0.45, 2).tolist(), rng.uniform(0, 180)
        if cell != missing:
            tablets = np.maximum(tablets, _tablet(px - off[0], py - off[1], turn))
        if cell == burnt:
            scorched = smoothstep(circle(px - off[0], py - off[1], TABLET), 0.1, -0.3)

    card = box(x, y, *CARD, 3.0)
    lies = smoothstep(card, 0.06, -0.06)
    sag = 0.5 + 0.10 * GRID.noise(22, rng) + 0.012 * GRID.noise(2.5, rng)
    sealed = smoothstep(pockets, 0.15, 0.5) * smoothstep(card, -0.3, -0.8)
    emboss = _knurl(x, y) * sealed
    foil = sag + 0.05 * emboss - 0.03 * (1 - sealed) + 0.004 * GRID.noise(0.4, rng)
    part.height = mix(part.height, foil, lies)
    tint = np.array(FOIL) * (1 + 0.03 * GRID.noise(6, rng)[..., None])
    part.cover(lies, tint, 1.0, 0.24 + 0.02 * GRID.noise(3, rng))

    chalk = 0.012 * GRID.noise(0.25, rng) - 0.05 * smoothstep(GRID.noise(0.3, rng), 2.2, 3.0)
    part.height = np.where(tablets > 0, foil + tablets + chalk, part.height)
    tint = np.array(PILL) * (1 + 0.015 * GRID.noise(0.3, rng)[..., None])
    part.cover(smoothstep(tablets, 0.0, 0.1), tint, 0.0, 0.45)
    if scorched.any():
        _burn(part, scorched, rng)

    film = sag + 0.10 + 0.02 * emboss + ndimage.gaussian_filter(domes, 2.5) + 0.01 * GRID.noise(3.0, rng)
    part.film = np.where(card < 0, np.maximum(film, part.height + 0.03), part.height)
    return part


def _weave(x: Array, y: Array) -> Array:
    """The fabric of the belt."""
    return 0.02 * np.sin(9 * x) * np.sin(9 * y)


def _knurl(x: Array, y: Array) -> Array:
    """The diamonds that the sealing roller presses into the foil."""
    a, b = turned(x, y, 45)
    waves = [np.abs(np.mod(axis / np.float32(0.95), 1) * 2 - 1) for axis in (a, b)]
    return np.minimum(smoothstep(waves[0], 0.05, 0.75), smoothstep(waves[1], 0.05, 0.75))


def _dome(x: Array, y: Array) -> Array:
    """The height of one pocket's film."""
    distance = circle(x, y, POCKET)
    crown = (1 - (np.hypot(x, y) / np.float32(POCKET)) ** 2).clip(0, 1)
    return np.float32(DOME) * rounded(distance, 2.0) + np.float32(0.9) * crown


def _tablet(x: Array, y: Array, turn: float) -> Array:
    """The height of one tablet, negative outside: a band, two bevels, an arched face with a break line."""
    distance = circle(x, y, TABLET)
    arch = (1 - (np.hypot(x, y) / np.float32(TABLET)) ** 2).clip(0, 1)
    height = 2.0 * rounded(distance, 0.5) + 1.1 * arch
    _, across = turned(x, y, turn)
    height = height - 0.45 * (1 - np.abs(across) / np.float32(0.5)).clip(0, 1)
    return np.where(distance < 0, height, -1).astype(np.float32)


def _burn(part: Part, where: Array, rng: Rng) -> None:
    """Scorches a tablet: brown all over, black and blistered in places."""
    x, y = GRID.points()
    slant = x + y
    slant -= (slant * where).sum() / where.sum()
    cloud = GRID.grain((0.25, 0.6, 1.5, 3.0), rng) + 0.22 * slant
    part.colour = mix(part.colour, (0.36, 0.19, 0.07), where * smoothstep(cloud, -2.2, -1.0) * 0.9)
    part.colour = mix(part.colour, (0.13, 0.055, 0.02), where * smoothstep(cloud, -1.1, 0.2) * 0.95)
    charred = where * smoothstep(cloud, 0.0, 0.9)
    part.colour = mix(part.colour, (0.018, 0.015, 0.013), charred * 0.95)
    part.rough = mix(part.rough, 0.3, charred)
    part.height = part.height + (0.09 * GRID.noise(0.45, rng) - 0.12) * charred
