"""Things that are on a clean surface and are no defect: seams, lettering, rivets, borders, shadows, highlights.

They are regular, reach from border to border, or are plainly made on purpose; a detector has to let them pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between, blur, chance, log_between, pixel_grid, relief
from anomaly_ov_lab.data.synthetic.palette import colour, glyph
from anomaly_ov_lab.data.synthetic.scene import Part, Scene, paste

Extra = Callable[[Rng, Scene], Scene]


def _across(rng: Rng, size: int) -> Array:
    """Signed distance in pixels from a random straight line through the picture's middle half."""
    y, x = pixel_grid(size)
    angle = between(rng, 0, 2 * math.pi) if chance(rng, 0.4) else float(rng.integers(4)) * math.pi / 2
    cy, cx = size * between(rng, 0.25, 0.75), size * between(rng, 0.25, 0.75)
    return (y - cy) * np.float32(math.sin(angle)) + (x - cx) * np.float32(math.cos(angle))


def _with(scene: Scene, image_HW3: Array) -> Scene:
    image = np.clip(image_HW3, 0, 1).astype(np.float32, copy=False)
    return replace(scene, image_HW3=image, plate_HW3=image if not scene.parts else scene.plate_HW3)


def seams(rng: Rng, scene: Scene) -> Scene:
    """One to three straight parallel lines, joints or grooves, from border to border."""
    size, far = scene.size, _across(rng, scene.size)
    wide, pitch = log_between(rng, 0.8, 9) * size / 256, between(rng, 8, 60) * size / 256
    line = np.zeros((size, size), np.float32)
    for k in range(int(rng.integers(1, 4))):
        line = np.maximum(line, np.clip(wide / 2 + 0.5 - np.abs(far - k * pitch), 0, 1))
    lit = relief(blur(line, 0.8), scene.light_yx) * between(rng, 0, 0.4)
    tone = between(rng, -0.8, 0.5)
    return _with(scene, scene.image_HW3 * (1 + line * tone)[..., None] + lit[..., None])


def two_materials(rng: Rng, scene: Scene) -> Scene:
    """A straight border, sharp or soft, beyond which the tone is another."""
    side = np.clip(_across(rng, scene.size) / np.float32(log_between(rng, 1, 20)) + 0.5, 0, 1)
    other = scene.image_HW3 * colour(rng, (0.25, 1.0), (0, 0.3))
    return _with(scene, scene.image_HW3 + (other - scene.image_HW3) * side[..., None])


def highlight(rng: Rng, scene: Scene) -> Scene:
    """A glossy band across the picture."""
    far = np.abs(_across(rng, scene.size)) / np.float32(scene.size * between(rng, 0.03, 0.25))
    band = np.clip(1 - far, 0, 1) ** 2 * between(rng, 0.1, 0.7)
    return _with(scene, scene.image_HW3 + (1 - scene.image_HW3) * band[..., None])


def shadow(rng: Rng, scene: Scene) -> Scene:
    """Half of the picture lies in a shadow with a soft border."""
    side = np.clip(_across(rng, scene.size) / np.float32(between(rng, 3, 60)) + 0.5, 0, 1)
    return _with(scene, scene.image_HW3 * (1 - side * between(rng, 0.1, 0.6))[..., None])


def rivets(rng: Rng, scene: Scene) -> Scene:
    """An evenly spaced row or grid of equal round marks, raised or bored."""
    size = scene.size
    y, x = pixel_grid(size)
    pitch = between(rng, 28, 90) * size / 256
    radius = pitch * between(rng, 0.06, 0.3)
    dy = (y + between(rng, 0, pitch)) % np.float32(pitch) - np.float32(pitch / 2)
    dx = (x + between(rng, 0, pitch)) % np.float32(pitch) - np.float32(pitch / 2)
    mark = np.clip(radius + 0.5 - np.sqrt(dy * dy + dx * dx), 0, 1)
    if chance(rng, 0.6):
        row = between(rng, 0.1, 0.9) * size
        mark = mark * (np.abs((y if chance(rng, 0.5) else x) - np.float32(row)) < pitch / 2)
    lit = relief(blur(mark, 1.0), scene.light_yx) * between(rng, -0.6, 0.6)
    return _with(scene, scene.image_HW3 * (1 + mark * between(rng, -0.8, 0.3))[..., None] + lit[..., None])


def lettering(rng: Rng, scene: Scene) -> Scene:
    """A line of printed or stamped signs."""
    size = scene.size
    d = max(8, int(between(rng, 0.05, 0.16) * size))
    count = int(rng.integers(2, max(3, int(0.8 * size / d))))
    top = int(rng.integers(2, size - d - 1))
    left = int(rng.integers(2, max(3, size - count * d)))
    image = scene.image_HW3.copy()
    ink = np.broadcast_to(colour(rng, (0.02, 0.98)), (d, d, 3))
    opacity = between(rng, 0.3, 1.0)
    for k in range(count):
        paste(image, Part(top, left + k * d, glyph(rng, d), ink), opacity)
    return _with(scene, image)


def cut_out(rng: Rng, scene: Scene) -> Scene:
    """The surface becomes a body of its own: a disc, ring, oval or rounded plate on another ground."""
    size = scene.size
    y, x = pixel_grid(size)
    ry, rx = size * between(rng, 0.3, 0.47), size * between(rng, 0.3, 0.47)
    v = (y - size * between(rng, 0.47, 0.53)) / np.float32(ry)
    u = (x - size * between(rng, 0.47, 0.53)) / np.float32(rx)
    power = float(rng.choice([2.0, 2.0, 4.0, 8.0]))
    radius = (np.abs(u) ** np.float32(power) + np.abs(v) ** np.float32(power)) ** np.float32(1 / power)
    inside = 1 - radius
    if chance(rng, 0.2):
        inside = np.minimum(inside, radius - between(rng, 0.2, 0.5))
    body = np.clip(inside * np.float32(min(ry, rx)) + 0.5, 0, 1)
    round_off = 1 - np.clip(1 - inside * between(rng, 2, 12), 0, 1) ** 2 * between(rng, 0, 0.7)
    ground = colour(rng, (0.02, 0.95), (0, 0.4))
    image = ground + (scene.image_HW3 * round_off[..., None] - ground) * body[..., None]
    cut = _with(replace(scene, parts=()), image)
    return replace(cut, body_HW=body.astype(np.float32))


EXTRAS: tuple[Extra, ...] = (seams, two_materials, highlight, shadow, rivets, lettering, cut_out, cut_out)


def dressed(rng: Rng, scene: Scene) -> Scene:
    """The scene with one extra, now and then two."""
    for _ in range(2 if chance(rng, 0.2) else 1):
        scene = EXTRAS[int(rng.integers(len(EXTRAS)))](rng, scene)
    return scene
