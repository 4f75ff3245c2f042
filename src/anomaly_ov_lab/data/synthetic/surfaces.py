"""Procedural surfaces that fill the picture: metal, cloth, leather, wood, stone, paper, board, cell, tile, tissue ...

Each function draws one clean ``Scene`` of side ``size``; lengths scale with ``size / 256``. Regular structure (grids,
holes, bus bars, seams, letters) belongs to the clean picture: it teaches that an edge is not a defect.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from anomaly_ov_lab.data.synthetic.noise import (
    Array,
    Rng,
    between,
    blur,
    chance,
    enlarge,
    fractal,
    log_between,
    pixel_grid,
    relief,
    smooth,
    streaks,
    white,
)
from anomaly_ov_lab.data.synthetic.palette import colour, glyph, mix, near, tint
from anomaly_ov_lab.data.synthetic.scene import Part, Scene, paste, random_light

Surface = Callable[[Rng, int], Scene]


def _scene(name: str, image_HW3: Array, light_yx: tuple[float, float], prefers: tuple[str, ...] = ()) -> Scene:
    image = np.clip(image_HW3, 0, 1)
    return Scene(name, None, image, image, prefers=prefers, light_yx=light_yx)


def _turned(rng: Rng, size: int) -> tuple[Array, Array]:
    """Pixel coordinates along two perpendicular directions, half the time turned by any angle."""
    y, x = pixel_grid(size)
    angle = between(rng, 0, math.pi) if chance(rng, 0.5) else between(rng, -0.06, 0.06)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _wave(phase_HW: Array) -> Array:
    """Triangle wave of period 1 in -1..1: cheaper than a sine and never needs its precision."""
    t = phase_HW - np.floor(phase_HW)
    return np.abs(t * 4 - 2) - 1


def _bars(along_HW: Array, pitch: float, width: float, phase: float = 0.0) -> Array:
    """1 on lines of ``width`` pixels that repeat every ``pitch`` pixels, with antialiased sides."""
    offset = np.abs((along_HW + np.float32(phase)) % np.float32(pitch) - np.float32(pitch / 2))
    line: Array = np.clip(np.float32(width / 2) - offset + np.float32(0.5), 0, 1)
    return line


def brushed_metal(rng: Rng, size: int) -> Scene:
    grain = streaks(rng, size, int(between(rng, 20, 160) * size / 256), chance(rng, 0.5))
    y, x = pixel_grid(size)
    sheen = _wave((x * between(rng, -1, 1) + y * between(rng, -1, 1)) / np.float32(size) + between(rng, 0, 1))
    luma = 1 + grain * between(rng, 0.015, 0.09) + sheen * between(rng, 0.0, 0.25) + white(rng, size, size) * 0.01
    return _scene("brushed metal", tint(luma, colour(rng, (0.3, 0.85), (0.02, 0.3))), random_light(rng),
                  ("scratch", "dent", "stain", "corrosion", "pitting"))  # fmt: skip


def cast_metal(rng: Rng, size: int) -> Scene:
    light = random_light(rng)
    slope = between(rng, 0.75, 1.75)
    shade = relief(fractal(rng, size, slope), light)
    shade = shade / np.float32(max(float(shade.std()), 1e-6))
    mottle = smooth(rng, size, int(rng.integers(3, 9)))
    luma = 1 + shade * between(rng, 0.015, 0.13) + mottle * between(rng, 0.0, 0.14)
    image = tint(luma, colour(rng, (0.12, 0.75), (0.02, 0.2)))
    if chance(rng, 0.35):
        image *= _ledge(rng, size)[..., None]
    return _scene("cast metal", image, light, ("hole", "crack", "pitting", "chipped_edge", "blur", "corrosion"))


def _ledge(rng: Rng, size: int) -> Array:
    """A straight border of the work piece with dark ground beyond, on one or two sides."""
    along, across = _turned(rng, size)
    cut = between(rng, 0.05, 0.22) * size
    edge = np.clip((across - np.float32(float(across.min()) + cut)) / np.float32(between(rng, 1, 8)), 0, 1)
    if chance(rng, 0.5):
        edge = edge * np.clip((np.float32(float(across.max()) - cut) - across) / np.float32(between(rng, 1, 8)), 0, 1)
    dark = np.float32(between(rng, 0.02, 0.5))
    return dark + (1 - dark) * np.broadcast_to(edge, (size, size)) + 0 * along


def fabric(rng: Rng, size: int) -> Scene:
    u, v = _turned(rng, size)
    pitch = log_between(rng, 3.0, 16) * size / 256
    drift = smooth(rng, size, 6) * between(rng, 0, 2.5)
    warp, weft = _wave((u + drift) / np.float32(pitch)), _wave((v + drift) / np.float32(pitch * between(rng, 0.6, 1.6)))
    twill = chance(rng, 0.35)
    weave = _wave((u + v + drift) / np.float32(pitch)) if twill else warp * weft
    thread = fractal(rng, size, 0.5)
    depth = between(rng, 0.04, 0.28)
    luma = 0.9 + weave * depth + thread * between(rng, 0.01, 0.07)
    first = colour(rng, (0.15, 0.95))
    second = near(rng, first, between(rng, 0.0, 0.2))
    image = mix(first, second, np.clip(warp * 0.5 + 0.5, 0, 1)) * luma[..., None]
    if chance(rng, 0.3):
        band = _bars(u, between(rng, 24, 90) * size / 256, between(rng, 4, 20) * size / 256)
        share = np.broadcast_to(band, (size, size)) * between(rng, 0.3, 0.9)
        image = image + (colour(rng) - image) * share[..., None]
    return _scene("woven fabric", image, random_light(rng),
                  ("hole", "stain", "fibre", "colour_shift", "broken_pattern"))  # fmt: skip


def leather(rng: Rng, size: int) -> Scene:
    light = random_light(rng)
    cells = enlarge(white(rng, *(2 * (max(12, int(between(rng, 20, 90))),))), size, size)
    height = -np.abs(cells) * between(rng, 1.0, 3.0)
    shade = relief(blur(height, between(rng, 0.4, 1.2)), light)
    luma = 1 + shade * between(rng, 0.1, 0.8) + fractal(rng, size, 1.0) * between(rng, 0.01, 0.05)
    return _scene("leather", tint(luma, colour(rng, (0.08, 0.7), (0.1, 0.7))), light,
                  ("scratch", "hole", "fold", "stain", "colour_shift"))  # fmt: skip


def rubber(rng: Rng, size: int) -> Scene:
    light = random_light(rng)
    image = 1 + fractal(rng, size, 1.0) * between(rng, 0.02, 0.14) + smooth(rng, size, 4) * between(rng, 0, 0.3)
    u, v = _turned(rng, size)
    if chance(rng, 0.75):
        pitch = between(rng, 20, 80) * size / 256
        skew = u + v * between(rng, -0.9, 0.9)
        groove = _bars(skew, pitch, pitch * between(rng, 0.08, 0.35))
        if chance(rng, 0.5):
            groove = np.maximum(groove, _bars(v, pitch * between(rng, 0.8, 2.5), pitch * between(rng, 0.08, 0.3)))
        soft = blur(np.ascontiguousarray(np.broadcast_to(groove, (size, size))), between(rng, 0.5, 2.0))
        image = image * (1 - soft * between(rng, 0.2, 0.8)) + relief(soft, light) * between(rng, -0.9, 0.9)
    return _scene("dark rubber", tint(image, colour(rng, (0.04, 0.25), (0.0, 0.15))), light,
                  ("scratch", "crack", "contamination", "dent", "missing_part", "hole"))  # fmt: skip


def wood(rng: Rng, size: int) -> Scene:
    u, v = _turned(rng, size)
    stretch = smooth(rng, size, 4) * between(rng, 4, 26) * size / 256
    bow = (u - size / 2) ** 2 * between(rng, -0.001, 0.001)
    rings = _wave((v + stretch + bow) / (between(rng, 5, 40) * size / 256))
    fine = streaks(rng, size, int(between(rng, 20, 90) * size / 256), True)
    pale = colour(rng, (0.5, 0.9), (0.3, 0.6)) * np.asarray([1.0, 0.82, 0.6], np.float32)
    image = mix(pale, pale * between(rng, 0.55, 0.9), rings * 0.5 + 0.5)
    image = image * (1 + fine * between(rng, 0.01, 0.06))[..., None]
    return _scene("wood", image, random_light(rng), ("scratch", "hole", "stain", "crack", "burn", "colour_shift"))


def stone(rng: Rng, size: int) -> Scene:
    base = colour(rng, (0.25, 0.85), (0.0, 0.35))
    image = tint(1 + fractal(rng, size, 1.5) * between(rng, 0.02, 0.12), base)
    for _ in range(int(rng.integers(1, 4))):
        grain = fractal(rng, size, between(rng, 0.5, 1.25))
        share = np.clip((grain - between(rng, 0.3, 1.6)) * between(rng, 1, 5), 0, 1) * between(rng, 0.2, 0.9)
        image = image + (colour(rng, (0.05, 0.95), (0, 0.3)) - image) * share[..., None]
    name = "granite" if chance(rng, 0.5) else "stone"
    return _scene(name, image, random_light(rng), ("crack", "stain", "chipped_edge"))


def concrete(rng: Rng, size: int) -> Scene:
    light = random_light(rng)
    rough = fractal(rng, size, 1.0)
    luma = 1 + fractal(rng, size, 2.0) * between(rng, 0.02, 0.12) + relief(rough, light) * between(rng, 0.01, 0.08)
    return _scene("concrete", tint(luma, colour(rng, (0.4, 0.8), (0, 0.12))), light, ("crack", "stain", "hole"))


def paper(rng: Rng, size: int) -> Scene:
    felt = fractal(rng, size, between(rng, 0.5, 1.5)) * between(rng, 0.004, 0.06)
    hair = streaks(rng, size, int(between(rng, 4, 24)), chance(rng, 0.5)) * between(rng, 0.0, 0.03)
    image = tint(1 + felt + hair, colour(rng, (0.6, 0.97), (0.02, 0.3)))
    return _scene("paper", image, random_light(rng), ("contamination", "fibre", "stain", "hole", "fold", "pitting"))


def carpet(rng: Rng, size: int) -> Scene:
    tuft = blur(white(rng, size, size), between(rng, 0.5, 1.2))
    tuft = tuft / np.float32(tuft.std())
    luma = 1 + tuft * between(rng, 0.08, 0.3) + fractal(rng, size, 1.5) * between(rng, 0, 0.07)
    base = colour(rng, (0.15, 0.8))
    return _scene("carpet", tint(luma, base), random_light(rng), ("stain", "hole", "fibre", "contamination"))


def ceramic(rng: Rng, size: int) -> Scene:
    y, x = pixel_grid(size)
    cy, cx = rng.uniform(-0.2, 1.2, 2) * size
    far = np.sqrt((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2) / np.float32(size)
    luma = 1 - far * between(rng, 0.0, 0.5) + smooth(rng, size, 3) * between(rng, 0, 0.12)
    image = tint(luma, colour(rng, (0.35, 0.97)))
    if chance(rng, 0.5):
        image = image + (np.exp(-(far**2) / between(rng, 0.002, 0.05)) * between(rng, 0.1, 0.7))[..., None]
    return _scene("glazed ceramic", image, random_light(rng),
                  ("crack", "scratch", "hole", "contamination", "chipped_edge"))  # fmt: skip


def painted(rng: Rng, size: int) -> Scene:
    share = np.clip(smooth(rng, size, int(rng.integers(2, 6))) * 0.5 + 0.5, 0, 1)
    first = colour(rng, (0.05, 0.97))
    peel = fractal(rng, size, 1.25) * between(rng, 0.0, 0.03)
    image = mix(first, near(rng, first, between(rng, 0.0, 0.12)), share) * (1 + peel)[..., None]
    return _scene("painted surface", image, random_light(rng))


def tiles(rng: Rng, size: int) -> Scene:
    u, v = _turned(rng, size)
    wide, high = (between(rng, 24, 120) * size / 256 for _ in range(2))
    row = np.floor(v / np.float32(high))
    shift = (row % 2) * np.float32(wide / 2) if chance(rng, 0.5) else np.float32(0) * row
    column = np.floor((u + shift) / np.float32(wide))
    joint = np.maximum(
        _bars(u + shift, wide, between(rng, 1.5, 6) * size / 256, wide / 2),
        _bars(v, high, between(rng, 1.5, 6) * size / 256, high / 2),
    )
    table = rng.normal(0, between(rng, 0.0, 0.12), (64, 64)).astype(np.float32)
    shade = table[row.astype(np.int64) % 64, column.astype(np.int64) % 64]
    base = colour(rng, (0.3, 0.95))
    image = tint(1 + shade + fractal(rng, size, 1.5) * between(rng, 0.0, 0.06), base)
    image = image + (colour(rng, (0.1, 0.9), (0, 0.2)) - image) * (joint * between(rng, 0.4, 1.0))[..., None]
    return _scene("tiles", image, random_light(rng), ("crack", "stain", "chipped_edge", "missing_part", "colour_shift"))


def perforated(rng: Rng, size: int) -> Scene:
    light = random_light(rng)
    u, v = _turned(rng, size)
    pitch = between(rng, 12, 56) * size / 256
    row = np.floor(v / np.float32(pitch))
    offset = (row % 2) * np.float32(pitch / 2) if chance(rng, 0.5) else np.float32(0) * row
    du = (u + offset) % np.float32(pitch) - np.float32(pitch / 2)
    dv = v % np.float32(pitch) - np.float32(pitch / 2)
    reach = np.maximum(np.abs(du), np.abs(dv)) if chance(rng, 0.25) else np.sqrt(du * du + dv * dv)
    hole = np.clip(np.float32(pitch * between(rng, 0.18, 0.38)) - reach + 0.5, 0, 1)
    base = colour(rng, (0.3, 0.9), (0.0, 0.4))
    image = tint(1 + fractal(rng, size, 1.0) * between(rng, 0.0, 0.06), base)
    image = image + (relief(hole, light) * between(rng, 0.0, 0.3))[..., None]
    image = image + (colour(rng, (0.02, 0.35), (0, 0.2)) - image) * hole[..., None]
    return _scene("perforated sheet", image, light, ("missing_part", "deformation", "misplaced_part", "stain", "dent"))


def solar_cell(rng: Rng, size: int) -> Scene:
    """Electroluminescence look: grain, thin fingers, two to five dark bus bars, dark border, soft vignetting."""
    y, x = pixel_grid(size)
    level = between(rng, 0.3, 0.75)
    luma: Array
    if chance(rng, 0.6):  # multicrystalline: patches with soft dark dislocation clouds
        clouds = np.abs(fractal(rng, size, between(rng, 1.0, 1.75)))
        luma = level * (1 - np.clip(1 - clouds * 1.2, 0, 1) * between(rng, 0.05, 0.45))
    else:
        luma = level * (1 + smooth(rng, size, 3) * between(rng, 0.0, 0.2))
    luma = luma * (1 + fractal(rng, size, 0.5) * between(rng, 0.01, 0.06))
    luma = luma * (1 - _bars(y, between(rng, 2.4, 6.0) * size / 256, 1.0) * between(rng, 0.0, 0.2))
    bars = int(rng.integers(2, 6))
    bus = _bars(x, size / bars, between(rng, 2, 9) * size / 256)
    luma = luma * (1 - bus * between(rng, 0.4, 0.95))
    border: Array = np.minimum(np.minimum(x, size - 1 - x), np.minimum(y, size - 1 - y))
    if chance(rng, 0.6):
        chamfer = np.minimum(border, (x + y) * 0.7 - between(rng, 0, 0.09) * size) if chance(rng, 0.5) else border
        luma = luma * np.clip((chamfer - between(rng, 0, 4)) / between(rng, 1, 10), 0.05, 1)
    luma = luma if chance(rng, 0.5) else np.ascontiguousarray(luma.T)
    base = np.ones(3, np.float32) if chance(rng, 0.8) else colour(rng, (0.8, 1.0), (0.2, 0.6))
    return _scene("solar cell", tint(luma, base), random_light(rng),
                  ("crack", "dark_area", "broken_pattern", "dark_area", "crack", "scratch"))  # fmt: skip


def tissue(rng: Rng, size: int) -> Scene:
    """A slice through a head: black ground, bright rim, folded grey and white matter, paired dark ventricles."""
    y, x = pixel_grid(size)
    cy, cx = (size * between(rng, 0.46, 0.54) for _ in range(2))
    ry, rx = size * between(rng, 0.36, 0.49), size * between(rng, 0.3, 0.45)
    v, u = (y - np.float32(cy)) / np.float32(ry), (x - np.float32(cx)) / np.float32(rx)
    half = fractal(rng, size, 2.0)
    half = (half + half[:, ::-1]) * between(rng, 0.3, 0.7) + half * 0.3
    r = np.sqrt(u * u + v * v) + half * np.float32(0.008)
    folds = fractal(rng, size, between(rng, 1.0, 1.75))
    folds = np.abs(folds + folds[:, ::-1] * between(rng, 0, 1))
    grey = between(rng, 0.25, 0.55) + np.clip(folds - 0.5, -0.5, 1) * between(rng, 0.05, 0.25)
    brain = grey * (1 + (0.75 - r) * between(rng, -0.4, 0.6))
    inside = np.clip((0.86 - r) * size / 6, 0, 1)
    image: Array = brain * inside
    image = image + between(rng, 0.2, 0.95) * np.clip(1 - np.abs(r - 0.97) * between(rng, 18, 40), 0, 1)
    image = image * (1 - np.clip(1 - np.abs(u) * between(rng, 40, 80), 0, 1) * inside * between(rng, 0.1, 0.7))
    for side in (-1, 1):  # ventricles, one on either side of the midline
        w = np.sqrt(((np.abs(u) * 1.0 - 0.1) * 7) ** 2 + ((v + 0.05) * 3.2) ** 2) if side > 0 else None
        if w is not None:
            image = image * (1 - np.clip((1 - w + half * 0.1) * 4, 0, 1) * between(rng, 0.0, 0.85))
    image = np.clip(image + np.abs(white(rng, size, size)) * between(rng, 0.0, 0.02), 0, 1)
    scene = _scene("tissue section", tint(image, np.ones(3, np.float32)), random_light(rng),
                   ("bright_blob", "dark_area", "bright_blob", "foreign_patch", "deformation", "stain"))  # fmt: skip
    return Scene(scene.surface, "head", scene.image_HW3, scene.image_HW3, body_HW=np.clip((0.8 - r) * 50, 0, 1),
                 prefers=scene.prefers, light_yx=scene.light_yx)  # fmt: skip


def circuit_board(rng: Rng, size: int) -> Scene:
    """Traces on a grid with bends, pads and vias with holes; each pad is a part."""
    unit = size / 256
    green = colour(rng, (0.15, 0.5), (0.4, 0.9)) if chance(rng, 0.75) else colour(rng, (0.02, 0.98), (0, 0.1))
    copper = np.clip(green * between(rng, 1.2, 2.5) + between(rng, 0.03, 0.5), 0, 0.97)
    plate = np.ones((size, size, 3), np.float32) * green
    plate *= (1 + fractal(rng, size, 1.0) * between(rng, 0.0, 0.04))[..., None]
    tracks = np.zeros((size, size), np.float32)
    pitch = max(6, round(between(rng, 10, 28) * unit))
    wide = max(1, round(pitch * between(rng, 0.2, 0.5)))
    for _ in range(int(rng.integers(6, 26))):
        y, x = (int(rng.integers(0, size // pitch)) * pitch for _ in range(2))
        for leg in range(int(rng.integers(1, 5))):
            far = int(rng.integers(1, 9)) * pitch * (1 if chance(rng, 0.5) else -1)
            y2, x2 = (y, x + far) if leg % 2 else (y + far, x)
            tracks[max(0, min(y, y2)) : max(y, y2) + wide, max(0, min(x, x2)) : max(x, x2) + wide] = 1
            y, x = min(max(y2, 0), size), min(max(x2, 0), size)
    plate += (copper - plate) * (blur(tracks, 0.5) * between(rng, 0.5, 1.0))[..., None]
    image, parts = plate.copy(), []
    metal = colour(rng, (0.6, 0.97), (0.0, 0.4))
    for _ in range(int(rng.integers(3, 24))):
        d = int(between(rng, 0.8, 1.5) * pitch) | 1
        line = np.arange(d, dtype=np.float32) - np.float32(d // 2)
        r = np.sqrt(line[:, None] ** 2 + line[None, :] ** 2)
        ring = np.clip(d / 2 - r, 0, 1)
        bore = np.clip(d * between(rng, 0.1, 0.28) - r + 0.5, 0, 1)
        disc = metal + (np.float32(0.05) - metal) * bore[..., None]
        top, left = (int(rng.integers(0, size // pitch)) * pitch + wide // 2 - d // 2 for _ in range(2))
        parts.append(Part(top, left, ring, disc.astype(np.float32)))
        paste(image, parts[-1])
    return Scene("circuit board", None, np.clip(image, 0, 1), np.clip(plate, 0, 1), parts=tuple(parts),
                 prefers=("missing_part", "broken_pattern", "print_error", "hole", "contamination", "misplaced_part"),
                 light_yx=random_light(rng))  # fmt: skip


def printed_label(rng: Rng, size: int) -> Scene:
    """Rows of letter-like glyphs on a plain ground; each glyph is a part."""
    ground = colour(rng, (0.05, 0.98))
    ink = colour(rng, (0.02, 0.2)) if float(ground.mean()) > 0.4 else colour(rng, (0.75, 0.98))
    plate = np.ones((size, size, 3), np.float32) * ground
    plate *= (1 + fractal(rng, size, 1.25) * between(rng, 0.0, 0.03))[..., None]
    image, parts = plate.copy(), []
    d = max(8, int(log_between(rng, 12, 70) * size / 256))
    alphabet = [glyph(rng, d) for _ in range(int(rng.integers(4, 12)))]
    gap = max(1, int(d * between(rng, 0.05, 0.3)))
    lead = max(1, int(d * between(rng, 0.15, 0.9)))
    margin = int(between(rng, 0.02, 0.3) * size)
    for top in range(margin, size - margin - d + 1, d + lead):
        for left in range(margin, size - margin - d + 1, d + gap):
            part = Part(top, left, alphabet[int(rng.integers(len(alphabet)))], np.broadcast_to(ink, (d, d, 3)))
            paste(image, part)
            parts.append(part)
    return Scene("printed label", None, np.clip(image, 0, 1), np.clip(plate, 0, 1), parts=tuple(parts),
                 prefers=("print_error", "missing_part", "misplaced_part", "scratch", "fold"),
                 light_yx=random_light(rng), regular=True)  # fmt: skip


def ruled(rng: Rng, size: int) -> Scene:
    """Lines, checks or knurls: a strictly regular pattern, sharp or soft."""
    u, v = _turned(rng, size)
    pitch, other = (log_between(rng, 6, 60) * size / 256 for _ in range(2))
    across = _wave(u / np.float32(pitch))
    down = _wave(v / np.float32(other))
    style = int(rng.integers(4))
    field = (across, across * down, np.maximum(across, down), across + down)[style]
    hard = log_between(rng, 0.7, 8)
    share = np.clip(field * hard + 0.5, 0, 1) + np.zeros((size, size), np.float32)
    first = colour(rng, (0.05, 0.95))
    second = near(rng, first, between(rng, 0.03, 0.35))
    image = mix(first, second, share) * (1 + fractal(rng, size, 1.0) * between(rng, 0, 0.06))[..., None]
    return _scene("ruled pattern", image, random_light(rng),
                  ("broken_pattern", "deformation", "missing_part", "scratch"))  # fmt: skip


def bristles(rng: Rng, size: int) -> Scene:
    """Hair, brush or fur: overlapping short streaks with light and shade."""
    angle_field = smooth(rng, size, 3)
    along = streaks(rng, size, int(between(rng, 8, 40)), True)
    across = streaks(rng, size, int(between(rng, 8, 40)), False)
    share = np.clip(angle_field * 2 + 0.5, 0, 1)
    luma = 1 + (along * share + across * (1 - share)) * between(rng, 0.05, 0.25)
    return _scene("bristles", tint(luma, colour(rng, (0.2, 0.9))), random_light(rng), ("deformation", "contamination"))


SURFACES: dict[str, Surface] = {
    f.__name__: f
    for f in (
        brushed_metal, cast_metal, fabric, leather, rubber, wood, stone, concrete, paper, carpet, ceramic, painted,
        tiles, perforated, solar_cell, tissue, circuit_board, printed_label, ruled, bristles,
    )
}  # fmt: skip
