"""The camera: which ray each pixel sees, and what lens, sensor and processing make of the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rendering.fields import Array, Rng


@dataclass(frozen=True)
class View:
    """A camera ``distance`` mm away that looks at ``centre`` on the table, its picture ``field`` mm wide there.

    ``tilt`` is the angle to straight down, from the picture's lower side; ``roll`` turns the picture; in degrees.
    """

    width: int
    height: int
    field: float
    distance: float
    tilt: float
    roll: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)

    def rays(self, top: int, rows: int, shift_x: float, shift_y: float) -> tuple[Array, Array]:
        """Start and unit direction, (3, N) each, of the pixels of some rows; the shift is the place in the pixel."""
        tilt, roll = np.radians(self.tilt), np.radians(self.roll)
        right = np.array([np.cos(roll), np.sin(roll), 0])
        back = np.array([-np.sin(roll) * np.sin(tilt), np.cos(roll) * np.sin(tilt), np.cos(tilt)])
        down = np.cross(back, right)
        eye = np.array([*self.centre, 0]) + back * self.distance
        scale = self.field / self.width / self.distance
        a = (np.arange(self.width) + shift_x - self.width / 2) * scale
        b = (np.arange(top, top + rows) + shift_y - self.height / 2) * scale
        aa, bb = (axis.ravel() for axis in np.meshgrid(a, b))
        direction = right[:, None] * aa + down[:, None] * bb - back[:, None]
        direction /= np.linalg.norm(direction, axis=0)
        origin = np.broadcast_to(eye[:, None], direction.shape)
        return origin.astype(np.float32), direction.astype(np.float32)


@dataclass(frozen=True)
class Sensor:
    """From light to pixels. ``white`` is the balance of red, green and blue; ``noise`` the deviation in mid grey."""

    exposure: float = 1.0
    white: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.6
    vignette: float = 0.25
    bloom: float = 0.04
    noise: float = 0.010
    sharpen: float = 0.5

    def develop(self, light: Array, rng: Rng) -> npt.NDArray[np.uint8]:
        """The picture, (H, W, 3) uint8."""
        height, width = light.shape[:2]
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        falloff = 1 - self.vignette * (x * x * (width / height) ** 2 + y * y) / ((width / height) ** 2 + 1)
        image = light * np.array(self.white, np.float32) * (self.exposure * falloff[..., None])
        bright = np.minimum(image, 6)
        halo = ndimage.gaussian_filter(bright, (width / 90, width / 90, 0))
        image = image + self.bloom * (halo - bright)
        image = ndimage.gaussian_filter(np.minimum(image, 12), (self.blur, self.blur, 0))
        image = image + self.sharpen * (image - ndimage.gaussian_filter(image, (1.2, 1.2, 0)))
        # Photons come at random, more in bright places; the readout adds a little; colour is filled in between pixels.
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        grain = ndimage.gaussian_filter(grain, (0.45, 0.45, 0)) * 1.5
        image = image + grain * self.noise * np.sqrt(np.maximum(image, 0) * 0.4 + 0.01)
        toned = _shoulder(np.maximum(image, 0))
        coded = np.where(toned <= 0.0031308, 12.92 * toned, 1.055 * np.maximum(toned, 1e-6) ** (1 / 2.4) - 0.055)
        return np.asarray((coded * 255).round().clip(0, 255), np.uint8)


def _shoulder(light: Array) -> Array:
    """Bright light is pressed together towards white instead of being cut off."""
    knee = np.float32(0.6)
    over = np.maximum(light - knee, 0)
    return np.asarray(np.minimum(light, knee) + (1 - knee) * (1 - np.exp(-over / (1 - knee))), np.float32)
