"""Procedural objects: small solids drawn from a distance field, lit by the scene's light.

Each maker returns a ``Solid`` on a (d, d) patch: opacity, height (in patch radii, for the shading) and colour. Layouts
(one, a row, an array, loose) put them on a plain ground, as parts that may go missing or be displaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anomaly_ov_lab.data.synthetic.noise import (
    Array,
    Rng,
    between,
    blur,
    chance,
    enlarge,
    fractal_window,
    log_between,
    relief,
    white,
)
from anomaly_ov_lab.data.synthetic.palette import colour, near
from anomaly_ov_lab.data.synthetic.scene import Part, Scene, paste, random_light

METAL = ((0.45, 0.9), (0.0, 0.25))


@dataclass(frozen=True)
class Solid:
    """Opacity and height (d, d), colour (d, d, 3) or (3,), and how glossy it is (0 matt .. 1)."""

    alpha_hw: Array
    height_hw: Array
    colour: Array
    gloss: float = 0.3


Maker = Callable[[Rng, int], Solid]


@lru_cache(maxsize=32)
def _disc(d: int) -> tuple[Array, Array, Array, Array]:
    """y (d, 1), x (1, d) in -1..1, radius and angle (d, d)."""
    line = ((np.arange(d, dtype=np.float32) + np.float32(0.5)) / np.float32(d / 2) - 1).astype(np.float32)
    y, x = line[:, None], line[None, :]
    radius, theta = np.sqrt(y * y + x * x), np.arctan2(y, x)
    for array in (line, radius, theta):
        array.setflags(write=False)
    return y, x, radius, theta


def _fill(inside: Array, d: int) -> Array:
    """Opacity of a signed distance in patch radii (positive inside), antialiased over a pixel."""
    alpha: Array = np.clip(inside * np.float32(d / 2) + np.float32(0.5), 0, 1)
    return alpha


def _dome(inside: Array, bevel: float) -> Array:
    """Height of a body with a round border of width ``bevel`` and a flat top."""
    t: Array = np.clip(inside / np.float32(bevel), 0, 1)
    height: Array = np.sqrt(t * (2 - t)) * np.float32(bevel)
    return height


def washer(rng: Rng, d: int) -> Solid:
    _, _, radius, _ = _disc(d)
    inside = np.minimum(0.95 - radius, radius - between(rng, 0.25, 0.7))
    return Solid(_fill(inside, d), _dome(inside, between(rng, 0.05, 0.25)), colour(rng, *METAL), between(rng, 0.2, 1))


def nut(rng: Rng, d: int) -> Solid:
    y, x, radius, _ = _disc(d)
    hexagon = 0.82 - np.maximum(np.abs(x), np.abs(x) * 0.5 + np.abs(y) * 0.866)
    bore = radius - between(rng, 0.35, 0.5)
    thread = np.sin(radius * between(rng, 30, 60)) * 0.02 * (bore < 0.1)
    return Solid(_fill(np.minimum(hexagon, bore), d), _dome(np.minimum(hexagon, bore), 0.15) + thread,
                 colour(rng, *METAL), between(rng, 0.2, 1))  # fmt: skip


def gear(rng: Rng, d: int) -> Solid:
    _, _, radius, theta = _disc(d)
    teeth = int(rng.integers(8, 30))
    outline = 0.82 + 0.1 * np.clip(np.cos(theta * teeth) * 2.5, -1, 1)
    inside = np.minimum((outline - radius) * 0.8, radius - between(rng, 0.12, 0.35))
    if chance(rng, 0.5):
        spokes = int(rng.integers(3, 7))
        inside = np.minimum(inside, 0.12 - np.minimum(0.25 - np.abs(radius - 0.5), np.cos(theta * spokes) * 0.15))
    return Solid(_fill(inside, d), _dome(inside, 0.08), colour(rng, *METAL), between(rng, 0.1, 0.8))


def screw_head(rng: Rng, d: int) -> Solid:
    y, x, radius, _ = _disc(d)
    inside = 0.92 - radius
    slot = np.maximum(0.09 - np.abs(x), 0) * (np.abs(y) < 0.6)
    if chance(rng, 0.6):
        slot = np.maximum(slot, np.maximum(0.09 - np.abs(y), 0) * (np.abs(x) < 0.6))
    cut = np.clip(slot * 20, 0, 1)
    base = colour(rng, *METAL)
    height = _dome(inside, between(rng, 0.2, 0.9)) - cut * 0.12
    return Solid(_fill(inside, d), height, base * (1 - 0.6 * cut)[..., None], between(rng, 0.2, 1))


def bolt(rng: Rng, d: int) -> Solid:
    """A screw or ball screw from the side: a cylinder with helical grooves, with or without a head."""
    y, x, _, _ = _disc(d)
    wide, pitch, lean = between(rng, 0.16, 0.34), between(rng, 0.07, 0.2), between(rng, 0.05, 0.4)
    groove = np.cos((y + x * lean) * np.float32(2 * math.pi / pitch))
    shaft = np.minimum(wide + groove * 0.025 - np.abs(x), 0.93 - np.abs(y))
    round_ = np.sqrt(np.clip(1 - (x / wide) ** 2, 0, 1)) * wide
    height = round_ + groove * np.float32(pitch * 0.15)
    inside = shaft
    if chance(rng, 0.6):
        head = np.minimum(wide * between(rng, 1.4, 2.2) - np.abs(x), 0.12 - np.abs(y + 0.8))
        inside, height = np.maximum(shaft, head), np.where(head > 0, round_ * 1.2, height)
    return Solid(_fill(inside, d), height, colour(rng, *METAL), between(rng, 0.3, 1))


def capsule(rng: Rng, d: int) -> Solid:
    y, x, _, _ = _disc(d)
    wide = between(rng, 0.22, 0.45)
    inside = wide - np.sqrt(np.clip(np.abs(y) - (0.92 - wide), 0, None) ** 2 + x * x)
    upper, lower = colour(rng, (0.3, 0.97), (0.2, 0.9)), colour(rng, (0.3, 0.97), (0.2, 0.9))
    split = np.clip((y + between(rng, -0.15, 0.15)) * d / 2, 0, 1)[..., None] * np.ones((1, d, 1), np.float32)
    return Solid(_fill(inside, d), _dome(inside, wide), upper + (lower - upper) * split, between(rng, 0.3, 1))


def pill(rng: Rng, d: int) -> Solid:
    y, x, radius, _ = _disc(d)
    inside = 0.92 - np.sqrt((y * between(rng, 1, 1.6)) ** 2 + x * x)
    score = np.clip(0.05 - np.abs(x), 0, 1) * 2 if chance(rng, 0.5) else np.float32(0) * radius
    height = _dome(inside, between(rng, 0.2, 0.9)) - score
    return Solid(_fill(inside, d), height, colour(rng, (0.5, 0.98), (0, 0.5)), 0.2)


def bottle_top(rng: Rng, d: int) -> Solid:
    """Concentric rings: a bottle's neck from above, a cap, a coin."""
    _, _, radius, theta = _disc(d)
    rings = np.cos(radius * between(rng, 6, 26) + between(rng, 0, 6)) * between(rng, 0.02, 0.08)
    outline = 0.93 + (np.cos(theta * int(rng.integers(16, 28))) * 0.03 if chance(rng, 0.4) else 0)
    inside = outline - radius
    base = colour(rng, (0.1, 0.95)) * (1 + rings * 4)[..., None]
    return Solid(_fill(inside, d), _dome(inside, 0.2) + rings, base, between(rng, 0.1, 1))


def chip(rng: Rng, d: int) -> Solid:
    """A black package with rows of legs, dot and lettering."""
    y, x, radius, _ = _disc(d)
    wide, tall = between(rng, 0.35, 0.7), between(rng, 0.5, 0.9)
    body = np.minimum(wide - np.abs(x), tall - np.abs(y))
    pitch = between(rng, 0.1, 0.25)
    comb = pitch * 0.27 - np.abs(y % pitch - pitch / 2)
    leg = np.minimum(np.minimum(wide + 0.22 - np.abs(x), tall - np.abs(y)), comb)
    dot = np.clip((0.06 - np.sqrt((x + wide * 0.7) ** 2 + (y + tall * 0.8) ** 2)) * d, 0, 1)
    shade = colour(rng, (0.05, 0.25), (0, 0.1))
    tone = shade + (colour(rng, (0.6, 0.9), (0, 0.1)) - shade) * ((body < 0) * np.float32(1))[..., None]
    tone = tone + (0.5 * dot)[..., None]
    inside = np.maximum(body, leg)
    return Solid(_fill(inside, d), _dome(np.clip(body, 0, None), 0.06) + 0 * radius, tone, 0.2)


def fruit(rng: Rng, d: int) -> Solid:
    """A round or drawn-out organic body with mottled skin and soft shading."""
    y, x, radius, theta = _disc(d)
    stretch = between(rng, 1.0, 2.2) if chance(rng, 0.4) else between(rng, 1.0, 1.2)
    outline = 0.9 + 0.04 * np.cos(theta * 2 + between(rng, 0, 6)) + 0.03 * np.cos(theta * 3 + between(rng, 0, 6))
    bend = x + y * y * between(rng, -0.35, 0.35)
    inside = outline - np.sqrt((bend * stretch) ** 2 + y * y)
    base = colour(rng, (0.45, 0.95), (0.5, 0.95))
    other = near(rng, base, between(rng, 0.0, 0.25))
    patch = np.clip(fractal_window(rng, d, d, slope=2.0) * 0.5 + 0.5, 0, 1)
    skin = base + (other - base) * patch[..., None]
    if chance(rng, 0.5):  # stripes from pole to pole
        skin = skin * (1 + np.cos(theta * int(rng.integers(6, 20))) * between(rng, 0, 0.15))[..., None]
    if chance(rng, 0.5):  # stem
        skin = skin * (1 - 0.7 * np.clip(1 - radius * between(rng, 6, 14), 0, 1))[..., None]
    return Solid(_fill(inside, d), _dome(inside, 0.9), skin, between(rng, 0.0, 0.6))


def biscuit(rng: Rng, d: int) -> Solid:
    _, _, radius, theta = _disc(d)
    outline = 0.9 + sum(between(rng, -0.02, 0.02) * np.cos(theta * k + between(rng, 0, 6)) for k in range(2, 9))
    inside = outline - radius
    rough = fractal_window(rng, d, d, slope=1.25)
    crumb = np.clip(fractal_window(rng, d, d, slope=1.0) - between(rng, 1.0, 2.0), 0, 1)
    base = colour(rng, (0.5, 0.85), (0.3, 0.6)) * np.asarray([1, 0.85, 0.6], np.float32)
    skin = base * (1 + rough * 0.06 - crumb * 0.6)[..., None]
    return Solid(_fill(inside, d), _dome(inside, 0.5) + rough * 0.012, skin, 0.05)


def cable(rng: Rng, d: int) -> Solid:
    """A cable's cut: a sheath with three to seven coloured cores of bare strands."""
    y, x, radius, _ = _disc(d)
    inside = 0.93 - radius
    count = int(rng.integers(3, 8))
    tone = np.broadcast_to(colour(rng, (0.2, 0.9)), (d, d, 3)).copy()
    height = _dome(inside, 0.1)
    ring, core = 0.52, min(0.33, 0.5 * math.sin(math.pi / count))
    for k in range(count):
        angle = 2 * math.pi * k / count
        far = np.sqrt((y - ring * math.sin(angle)) ** 2 + (x - ring * math.cos(angle)) ** 2)
        cut = np.clip((core - far) * d / 2, 0, 1)[..., None]
        tone += (colour(rng, (0.2, 0.95), (0.3, 0.9)) - tone) * cut
        strands = np.clip((core * 0.72 - far) * d / 2, 0, 1)[..., None]
        copper = np.asarray([0.8, 0.5, 0.3], np.float32) * (1 + 0.2 * white(rng, d, d))[..., None]
        tone += (copper - tone) * strands
    return Solid(_fill(inside, d), height, np.clip(tone, 0, 1), 0.2)


def pin(rng: Rng, d: int) -> Solid:
    y, x, _, _ = _disc(d)
    inside = np.minimum(between(rng, 0.15, 0.35) - np.abs(x), 0.95 - np.abs(y))
    return Solid(_fill(inside, d), _dome(inside, 0.2), colour(rng, (0.6, 0.95), (0, 0.6)), 0.8)


def block(rng: Rng, d: int) -> Solid:
    """A moulded rectangular piece, often with holes in its corners or a raised frame."""
    y, x, _, _ = _disc(d)
    wide, tall, corner = between(rng, 0.5, 0.9), between(rng, 0.5, 0.9), between(rng, 0.02, 0.3)
    over_x, over_y = np.abs(x) - (wide - corner), np.abs(y) - (tall - corner)
    outside = np.sqrt(np.clip(over_x, 0, None) ** 2 + np.clip(over_y, 0, None) ** 2)
    inside = corner - outside - 0 * np.minimum(over_x, over_y)
    inside = np.where((over_x < 0) & (over_y < 0), np.maximum(inside, np.minimum(-over_x, -over_y)), inside)
    if chance(rng, 0.5):
        far = np.sqrt((np.abs(x) - wide * 0.7) ** 2 + (np.abs(y) - tall * 0.7) ** 2)
        inside = np.minimum(inside, far - between(rng, 0.06, 0.14))
    grain = fractal_window(rng, d, d, slope=1.0) * between(rng, 0, 0.05)
    skin = colour(rng, (0.1, 0.95)) * (1 + grain)[..., None]
    return Solid(_fill(inside, d), _dome(inside, between(rng, 0.04, 0.3)), skin, between(rng, 0, 0.8))


MAKERS: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "washer": (washer, ("scratch", "dent", "corrosion", "deformation", "contamination")),
    "nut": (nut, ("scratch", "dent", "corrosion", "chipped_edge", "misplaced_part")),
    "gear": (gear, ("missing_part", "chipped_edge", "corrosion", "scratch")),
    "screw head": (screw_head, ("scratch", "corrosion", "dent", "deformation")),
    "screw": (bolt, ("pitting", "corrosion", "scratch", "deformation", "dent")),
    "capsule": (capsule, ("dent", "crack", "print_error", "hole", "stain")),
    "tablet": (pill, ("crack", "chipped_edge", "stain", "contamination", "colour_shift")),
    "bottle top": (bottle_top, ("contamination", "scratch", "chipped_edge", "print_error")),
    "chip": (chip, ("misplaced_part", "missing_part", "burn", "scratch", "print_error")),
    "fruit": (fruit, ("rot", "dent", "stain", "rot", "dark_area", "hole")),
    "biscuit": (biscuit, ("crack", "missing_part", "burn", "contamination", "hole")),
    "cable": (cable, ("missing_part", "misplaced_part", "crack", "colour_shift")),
    "pin": (pin, ("misplaced_part", "missing_part", "deformation", "corrosion")),
    "moulded part": (block, ("scratch", "crack", "stain", "chipped_edge", "deformation", "blur")),
}


def lit(rng: Rng, solid: Solid, light_yx: tuple[float, float], roughness: float) -> tuple[Array, Array]:
    """The solid as a cut-out: opacity and shaded colour (d, d, 3)."""
    d = solid.alpha_hw.shape[0]
    slope = relief(solid.height_hw * np.float32(d / 2), light_yx)
    diffuse = 1 - np.clip(slope, -1.5, 1.5) * np.float32(0.45)
    if roughness > 0:
        diffuse = diffuse + white(rng, d, d) * np.float32(roughness)
    shine = np.clip(-slope - np.float32(0.35), 0, 1) ** 2 * np.float32(1.6 * solid.gloss)
    tone = np.clip(solid.colour * diffuse[..., None] + shine[..., None], 0, 1)
    return solid.alpha_hw.astype(np.float32), tone.astype(np.float32)


def objects_on(rng: Rng, ground: Scene) -> Scene:
    """One to many objects of a kind on the ``ground``'s picture, with shadows, as parts."""
    name = list(MAKERS)[int(rng.integers(len(MAKERS)))]
    maker, prefers = MAKERS[name]
    size, light = ground.size, ground.light_yx
    layout = str(rng.choice(["one", "one", "row", "array", "loose"]))
    places, d = _places(rng, layout, size)
    plate, image = ground.image_HW3, ground.image_HW3.copy()
    cuts = _variants(rng, maker, d, light, 1 if layout in ("row", "array") else min(3, len(places)))
    drop = max(1, round(d * between(rng, 0.01, 0.06)))
    edge, depth = 2 * drop + 2, np.float32(between(rng, 0.0, 0.6))
    shadows = [blur(np.pad(alpha, edge), max(0.8, drop * 0.8)) * depth for alpha, _ in cuts]
    fall_y, fall_x = round(-light[0] * drop) - edge, round(-light[1] * drop) - edge
    body, parts = np.zeros((size, size, 1), np.float32), []
    for number, (top, left) in enumerate(places):
        alpha, tone = cuts[number % len(cuts)]
        shadow = shadows[number % len(cuts)]
        paste(image, Part(top + fall_y, left + fall_x, shadow, np.zeros((*shadow.shape, 3), np.float32)))
        part = Part(top, left, alpha, tone)
        paste(image, part)
        paste(body, Part(top, left, alpha, np.ones((d, d, 1), np.float32)))
        parts.append(part)
    return Scene(ground.surface, name, np.clip(image, 0, 1), plate, body[..., 0] if chance(rng, 0.85) else None,
                 tuple(parts), prefers, light, regular=layout in ("row", "array") and len(parts) > 3)  # fmt: skip


def _variants(rng: Rng, maker: Maker, d: int, light_yx: tuple[float, float], count: int) -> list[tuple[Array, Array]]:
    """``count`` cut-outs of the same make, each turned by a multiple of a quarter (lit after turning)."""
    state = int(rng.integers(1 << 62))
    cuts = []
    for _ in range(count):
        solid = maker(np.random.Generator(np.random.PCG64(state)), d)
        turn = int(rng.integers(4))
        tone = np.broadcast_to(solid.colour, (d, d, 3))
        alpha, height, tone = (np.ascontiguousarray(np.rot90(a, turn)) for a in (solid.alpha_hw, solid.height_hw, tone))
        turned = Solid(alpha, height, tone, solid.gloss)
        cuts.append(lit(rng, turned, light_yx, between(rng, 0, 0.04)))
    return cuts


def _places(rng: Rng, layout: str, size: int) -> tuple[list[tuple[int, int]], int]:
    """Top-left corners and the patch side of a layout."""
    if layout == "one":
        d = int(size * between(rng, 0.45, 1.15)) // 2 * 2
        shift = max(2, (size - d) // 2) if d < size else 8
        jitter = [int(rng.integers(-shift // 2, shift // 2 + 1)) for _ in range(2)]
        return [((size - d) // 2 + jitter[0], (size - d) // 2 + jitter[1])], d
    d = max(12, int(size * log_between(rng, 0.1, 0.32)) // 2 * 2)
    gap = max(1, int(d * between(rng, 0.02, 0.5)))
    count = max(1, (size - gap) // (d + gap))
    start = (size - count * (d + gap) + gap) // 2
    line = [start + k * (d + gap) for k in range(count)]
    if layout == "row":
        top = int(rng.integers(gap, max(gap + 1, size - d - gap)))
        return [(top, left) for left in line], d
    wobble = 0 if layout == "array" else gap
    places = [(y + int(rng.integers(-wobble, wobble + 1)), x + int(rng.integers(-wobble, wobble + 1)))
              for y in line for x in line]  # fmt: skip
    if layout == "loose":
        places = [place for place in places if not chance(rng, 0.4)] or places[:1]
    return places, d


def plain_ground(rng: Rng, size: int) -> Scene:
    """A backdrop: one tone with a soft gradient and a little grain."""
    ramp = enlarge(rng.uniform(-1, 1, (3, 3)).astype(np.float32), size, size) * np.float32(between(rng, 0, 0.12))
    base = colour(rng, (0.02, 0.98), (0, 0.5))
    image = np.clip(base * (1 + ramp)[..., None], 0, 1)
    return Scene("plain backdrop", None, image, image, light_yx=random_light(rng))
