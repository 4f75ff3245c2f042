"""A picture from start to end: a part is made, put under lamps and taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from rendering.camera import Sensor, View
from rendering.fields import Rng
from rendering.light import Studio
from rendering.part import Part
from rendering.renderer import render


@dataclass(frozen=True)
class Setting:
    """Where a kind of part is taken: camera and lamps."""

    view: View
    studio: Studio
    sensor: Sensor


@dataclass(frozen=True)
class Shot:
    """One picture of a part that ``make`` makes; camera and lamps are moved a little, in mm and degrees."""

    make: Callable[[Rng], Part]
    setting: Setting
    seed: int
    centre: tuple[float, float]
    roll: float
    lamps: float

    def taken(self) -> Image.Image:
        """The picture."""
        part_rng, light_rng, sensor_rng = np.random.default_rng(self.seed).spawn(3)
        view = replace(self.setting.view, centre=self.centre, roll=self.roll)
        light = render(self.make(part_rng), view, self.setting.studio.turned(self.lamps), light_rng)
        return Image.fromarray(self.setting.sensor.develop(light, sensor_rng))
