"""A blister pack: six tablets in clear pockets on embossed aluminium foil, over a dark blue belt."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rendering.camera import Sensor, View
from rendering.fields import Array, Cell, Grid, Rng, box, circle, mix, rounded, smoothstep, turned
from rendering.light import Lamp, Studio
from rendering.part import Part
from rendering.shot import Setting

GRID = Grid(54, 42, 0.045)
COLUMNS, ROWS, PITCH = 3, 2, 15.0
CARD = (25.5, 19.0)
TABLET, POCKET, DOME = 4.7, 6.0, 4.0
PILL = (0.74, 0.40, 0.29)
FOIL = (0.80, 0.805, 0.81)
SETTING = Setting(
    View(640, 480, 44.5, 260, 10),
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
    """The part; the pocket at column and row ``missing`` is torn open and empty, the tablet at ``burnt`` charred."""
    x, y = GRID.points()
    part = Part.table(GRID, (0.035, 0.075, 0.135), 0.4)
    part.height += _weave(x, y) + 0.015 * GRID.grain((0.3, 1.0), rng)
    pockets = np.full(GRID.shape, 99, np.float32)
    domes = np.zeros(GRID.shape, np.float32)
    tablets = np.full(GRID.shape, -1, np.float32)
    scorched = np.zeros(GRID.shape, np.float32)
    struck = np.full(GRID.shape, 99, np.float32)
    for cell, px, py in GRID.cells(COLUMNS, ROWS, PITCH):
        pockets = np.minimum(pockets, circle(px, py, POCKET))
        dome = _dome(px, py)
        if cell in (missing, burnt):
            struck = np.hypot(px, py)
            dome = dome * (0.45 + 0.22 * GRID.noise(1.8, rng)).clip(0.05, 1)  # pressed in, or molten
        domes = np.maximum(domes, dome)
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
    if burnt is not None:
        _burn(part, scorched, rng)
        _soot(part, struck, lies, rng)
    if missing is not None:
        _tear(part, struck, lies, rng)

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
    """Burns a tablet: black, cracked and swollen, with brown and ashen places."""
    x, y = GRID.points()
    slant = x + y
    slant -= (slant * where).sum() / where.sum()
    cloud = GRID.grain((0.4, 1.0, 2.5), rng) + 0.2 * slant
    part.colour = mix(part.colour, (0.36, 0.19, 0.07), where * smoothstep(cloud, -2.6, -1.6))
    part.colour = mix(part.colour, (0.11, 0.045, 0.018), where * smoothstep(cloud, -1.4, -0.5))
    charred = where * smoothstep(cloud, -0.6, 0.2)
    part.colour = mix(part.colour, (0.015, 0.013, 0.012), charred)
    ash = where * smoothstep(GRID.grain((0.3, 0.9), rng), 0.9, 1.5)
    part.colour = mix(part.colour, (0.50, 0.48, 0.45), ash)
    part.rough = mix(part.rough, 0.25, charred * (1 - ash))
    cracks = where * smoothstep(np.abs(GRID.noise(2.2, rng)), 0.14, 0.04)
    part.height = (
        part.height + 0.35 * GRID.noise(1.1, rng) * where - 1.1 * cracks + 0.1 * GRID.noise(0.4, rng) * charred
    )


def _soot(part: Part, away: Array, lies: Array, rng: Rng) -> None:
    """Browns and blackens what lies around a burnt tablet, buckles the foil and leaves flakes on it."""
    cloud = GRID.grain((0.3, 0.9, 2.5), rng)
    heat = np.exp(-((away / np.float32(12.5)) ** 2))
    foil = lies * smoothstep(away, TABLET - 0.3, TABLET + 0.2)
    part.height = part.height + foil * smoothstep(heat, 0.1, 0.45) * (0.6 * np.abs(GRID.noise(2.2, rng)) - 0.2)
    part.cover(foil * smoothstep(heat * (1 + 0.35 * cloud), 0.15, 0.5) * 0.8, (0.30, 0.16, 0.055), 0.35, 0.35)
    part.cover(foil * smoothstep(heat * (1 + 0.6 * cloud), 0.38, 0.75) * 0.97, (0.02, 0.017, 0.015), 0.0, 0.45)
    hole = foil * smoothstep(heat * (1 + 0.9 * GRID.grain((0.8, 3.0), rng)), 1.0, 1.06)
    part.height = mix(part.height, -0.4, hole)
    flakes = (foil - hole).clip(0, 1) * smoothstep(GRID.grain((0.5, 1.3), rng), 1.2, 1.4) * smoothstep(heat, 0.1, 0.3)
    ash = np.array((0.33, 0.30, 0.27)) * (1 + 0.3 * GRID.noise(0.8, rng)[..., None]).clip(0.2, 2)
    part.cover(flakes, ash, 0.0, 0.5)
    part.height = part.height + 0.4 * flakes


def _tear(part: Part, away: Array, lies: Array, rng: Rng) -> None:
    """Tears the foil under a pocket open and crumples it; crumbs of the tablet are left."""
    rim = away - np.float32(3.9) - 1.1 * GRID.noise(2.6, rng) - 0.25 * GRID.noise(0.6, rng)
    near = lies * smoothstep(away, 14.0, 8.5)
    creases = np.abs(GRID.noise(2.4, rng)) + 0.5 * np.abs(GRID.noise(0.9, rng))
    flaps = smoothstep(rim, 2.2, 0.0) * (0.4 + np.abs(GRID.noise(1.3, rng)))
    part.height = part.height + near * (0.55 * creases - 0.35 + 0.9 * flaps)
    hole = lies * smoothstep(rim, 0.08, -0.08) * smoothstep(away, 7.5, 7.0)
    part.cover(hole, (0.02, 0.028, 0.045), 0.0, 0.4)
    part.height = mix(part.height, np.float32(-0.6) + 0.1 * GRID.noise(0.5, rng), hole)
    crumbs = smoothstep(GRID.grain((0.35, 0.9), rng), 1.25, 1.5) * smoothstep(away, 10.5, 6.0)
    part.cover(crumbs, PILL, 0.0, 0.5)
    part.height = part.height + crumbs * (0.5 + 0.25 * GRID.noise(0.3, rng))
