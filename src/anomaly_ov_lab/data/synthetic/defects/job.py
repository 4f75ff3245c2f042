"""What every defect works on, and the few ways in which a defect may change a picture.

A defect is a function ``(Job) -> Edit``: the new content of one window, which differs by exactly nothing where the
defect's mask is zero. ``strength`` 0 must return the same content (used as a decoy on normal pictures).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between, chance, fractal_window, log_between
from anomaly_ov_lab.data.synthetic.palette import luminance
from anomaly_ov_lab.data.synthetic.scene import Scene
from anomaly_ov_lab.data.synthetic.shapes import Window, window


@dataclass(frozen=True)
class Job:
    """One defect to be made: ``strength`` 0..1 scales its contrast, ``area`` is its wanted share of the picture."""

    scene: Scene
    image_HW3: Array
    rng: Rng
    strength: float
    area: float

    @property
    def size(self) -> int:
        return self.scene.size

    @property
    def radius(self) -> float:
        """Radius in pixels of a disc of the wanted area."""
        return max(1.2, self.size * math.sqrt(self.area / math.pi))

    def window(self, reach: float, centre: tuple[float, float] | None = None) -> Window:
        """A window of half-side ``reach`` pixels on a random place of the body."""
        return window(self.size, self.scene.spot(self.rng) if centre is None else centre, max(3.0, reach))

    def softness(self, widest: float) -> float:
        """Width in pixels of a mask's edge: half the time the picture's own sharpness, else up to ``widest``."""
        own = self.scene.edge_px * between(self.rng, 0.9, 1.4)
        return own if chance(self.rng, 0.5) or widest <= own else log_between(self.rng, own, widest)

    def view(self, area: Window) -> Array:
        return self.image_HW3[area.rows, area.columns]

    def put(self, area: Window, view_hw3: Array, confined: bool = True) -> Edit:
        """The window's content replaced; ``confined`` to the body where the scene has one, as paint on an object is."""
        view_hw3 = np.clip(view_hw3, 0, 1)
        if confined and self.scene.body_HW is not None:
            body = self.scene.body_HW[area.rows, area.columns]
            before = self.view(area)
            view_hw3 = before + (view_hw3 - before) * body[..., None]
        return Edit(area.rows, area.columns, view_hw3)


@dataclass(frozen=True)
class Edit:
    """The new content of one window of a picture."""

    rows: slice
    columns: slice
    view_hw3: Array

    def applied(self, image_HW3: Array) -> Array:
        """A copy of the picture with the edit in it."""
        image = image_HW3.copy()
        image[self.rows, self.columns] = self.view_hw3
        return image

    def touched(self, image_HW3: Array) -> npt.NDArray[np.bool_]:
        """Where, within the window, the edit changes the picture at all."""
        before = image_HW3[self.rows, self.columns]
        differs: npt.NDArray[np.bool_] = self.view_hw3 != before
        return differs[..., 0] | differs[..., 1] | differs[..., 2]


Defect = Callable[[Job], Edit]


def darker(job: Job, view_hw3: Array, darkness_bias: float = 0.5) -> bool:
    """Whether to darken: forced on very light or very dark ground, else true with probability ``darkness_bias``."""
    level = float(luminance(view_hw3).mean())
    if level < 0.16:
        return chance(job.rng, 0.1 * darkness_bias)
    return True if level > 0.85 else chance(job.rng, darkness_bias)


def shade(view_hw3: Array, alpha_hw: Array, amount: float) -> Array:
    """Multiplies by ``1 - amount`` (0..1) where alpha is 1: shadow, soot, liquid. Texture below stays visible."""
    return view_hw3 * (1 - alpha_hw * np.float32(amount))[..., None]


def lift(view_hw3: Array, alpha_hw: Array, amount: float) -> Array:
    """Moves towards white by ``amount`` where alpha is 1: glare, bare metal, bright tissue."""
    return view_hw3 + ((1 - view_hw3) * np.float32(amount)) * alpha_hw[..., None]


def cover(view_hw3: Array, alpha_hw: Array, colour: Array) -> Array:
    """Alpha-blends a colour (3,) or a picture (h, w, 3) over the view."""
    return view_hw3 + (colour - view_hw3) * alpha_hw[..., None]


def shift_tone(job: Job, view_hw3: Array, alpha_hw: Array, amount: float, darkness_bias: float = 0.5) -> Array:
    """Darkens or lifts by ``amount``, whichever shows."""
    return (shade if darker(job, view_hw3, darkness_bias) else lift)(view_hw3, alpha_hw, amount)


def grained(job: Job, area: Window, base_3: Array, depth: float, slope: float = 1.0) -> Array:
    """A picture (h, w, 3) of material ``base_3`` with multiplicative noise of ``depth``."""
    field = fractal_window(job.rng, area.shape[0], area.shape[1], slope)
    return np.clip(base_3 * (1 + field * np.float32(depth))[..., None], 0, 1)


def natural(alpha_hw: Array, rng: Rng, depth: float) -> Array:
    """Makes a mask's inside uneven: multiplied by noise of ``depth``, still within 0..1 and zero outside."""
    field = fractal_window(rng, alpha_hw.shape[0], alpha_hw.shape[1], 1.5)
    return np.clip(alpha_hw * (1 + field * np.float32(depth)), 0, 1)
