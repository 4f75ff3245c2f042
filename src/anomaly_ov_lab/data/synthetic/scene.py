"""A clean picture before the camera, with what a defect needs to know about it.

``image_HW3`` is the finished picture in 0..1; ``plate_HW3`` the same without its parts, so that a part can go missing
or move; ``body_HW`` says where defects may lie (1 on the object, 0 on its background).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between, chance


@dataclass(frozen=True)
class Part:
    """A thing that lies on the plate: its top-left corner and its cut-out, opacity (d, d) and colour (d, d, 3)."""

    top: int
    left: int
    alpha_hw: Array
    colour_hw3: Array


@dataclass(frozen=True)
class Scene:
    """One clean picture. ``prefers`` names the defect kinds that such a thing suffers in life.

    ``regular``: the parts stand in rows, so that a whole part missing or moved is plain to see.
    """

    surface: str
    object: str | None
    image_HW3: Array
    plate_HW3: Array
    body_HW: Array | None = None
    parts: tuple[Part, ...] = ()
    prefers: tuple[str, ...] = ()
    light_yx: tuple[float, float] = (-0.7, -0.7)
    regular: bool = False
    edge_px: float = 0.8

    @property
    def size(self) -> int:
        return int(self.image_HW3.shape[0])

    def spot(self, rng: Rng, margin: float = 0.04) -> tuple[float, float]:
        """A random (row, column) on the body, at least ``margin`` of the side from the picture's border."""
        size = self.size
        y = x = size / 2
        for _ in range(24):
            y, x = (between(rng, margin * size, (1 - margin) * size) for _ in range(2))
            if self.body_HW is None or self.body_HW[int(y), int(x)] > 0.6:
                break
        return y, x


def random_light(rng: Rng) -> tuple[float, float]:
    """A unit direction in the picture plane; mostly from above."""
    angle = rng.normal(-math.pi / 2, 0.9) if chance(rng, 0.7) else between(rng, 0, 2 * math.pi)
    return float(math.sin(angle)), float(math.cos(angle))


def paste(canvas_HW3: Array, part: Part, alpha_scale: float = 1.0) -> None:
    """Lays ``part`` on the canvas in place, cut at the canvas's border."""
    height, width = part.alpha_hw.shape
    size_y, size_x = canvas_HW3.shape[:2]
    y0, x0 = max(0, part.top), max(0, part.left)
    y1, x1 = min(size_y, part.top + height), min(size_x, part.left + width)
    if y1 <= y0 or x1 <= x0:
        return
    inner = slice(y0 - part.top, y1 - part.top), slice(x0 - part.left, x1 - part.left)
    alpha = part.alpha_hw[inner][..., None] * np.float32(alpha_scale)
    view = canvas_HW3[y0:y1, x0:x1]
    view += alpha * (part.colour_hw3[inner] - view)


def photo_scene(rng: Rng, photo_HW3: npt.NDArray[np.uint8], size: int) -> Scene:
    """Any photograph as a scene: a random square crop of at least 55 % of its shorter side, sometimes all of it."""
    height, width = photo_HW3.shape[:2]
    short = min(height, width)
    crop = short if chance(rng, 0.35) else max(8, int(short * between(rng, 0.55, 1.0)))
    top = int(rng.integers(0, height - crop + 1))
    left = int(rng.integers(0, width - crop + 1))
    picture = Image.fromarray(np.ascontiguousarray(photo_HW3[top : top + crop, left : left + crop]))
    resized = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0))
    image = resized.astype(np.float32) * np.float32(1 / 255)
    return Scene("photo", None, image, image, light_yx=random_light(rng), edge_px=edge_width(image))


def edge_width(image_HW3: Array) -> float:
    """How soft the picture's own edges are, in pixels: from how fast differences grow with distance (1 to 2)."""
    green = image_HW3[..., 1]
    near = float(np.abs(green[:, 1:] - green[:, :-1]).mean())
    far = float(np.abs(green[:, 2:] - green[:, :-2]).mean())
    return 0.8 if near < 1e-6 else 0.7 + 2.0 * min(max(far / near - 1.2, 0.0), 0.8)
