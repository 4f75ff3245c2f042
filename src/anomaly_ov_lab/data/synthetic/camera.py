"""The camera: one chain of light, colour, blur, noise and JPEG that normal and defective pictures share.

The settings and the noise are drawn once per picture, so the clean twin of a defective picture passes the very same
camera and differs only where the defect changed something. This is what leaves no fingerprint of an edit: noise and
compression come after it, over the whole picture.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from scipy import ndimage

from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between, chance, log_between, pixel_grid, smooth, white
from anomaly_ov_lab.data.synthetic.palette import luminance

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Camera:
    """One picture's settings. ``light_HW`` multiplies, ``noise_HWC`` adds (in 0..1), ``quality`` None means no JPEG."""

    light_HW: Array | None
    gain_3: Array
    gamma: float
    grey: bool
    blur_px: float
    noise_HWC: Array | None
    quality: int | None
    subsampling: int
    flips: tuple[bool, bool, bool]

    def expose(self, image_HW3: Array, rows: slice = slice(None), columns: slice = slice(None)) -> Pixels:
        """Light, colour, gamma, blur and noise: what the sensor delivers, uint8 (h, w, 3), before compression.

        With ``rows`` and ``columns`` only that window, byte for byte as in the whole picture.
        """
        height, width = image_HW3.shape[:2]
        margin = 0 if self.blur_px == 0 else 4 + int(4 * self.blur_px)
        y0, y1, _ = rows.indices(height)
        x0, x1, _ = columns.indices(width)
        top, left = max(0, y0 - margin), max(0, x0 - margin)
        wide = slice(top, min(height, y1 + margin)), slice(left, min(width, x1 + margin))
        image: Array = image_HW3[wide] * self.gain_3
        if self.light_HW is not None:
            image *= self.light_HW[wide][..., None]
        if self.grey:
            image = luminance(image)[..., None]
        np.clip(image, 0, 1, out=image)
        if self.gamma != 1.0:
            image = self.curve.take((image * np.float32(4095)).astype(np.int16))
        if self.blur_px > 0:
            image = _blurred(image, self.blur_px)[y0 - top : y1 - top, x0 - left : x1 - left]
        if self.noise_HWC is not None:
            image = image + self.noise_HWC[y0:y1, x0:x1] * (np.float32(0.4) + image)
        pixels = (np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    @property
    def curve(self) -> Array:
        """The gamma curve at 4096 steps: a look-up costs a fifth of a power."""
        return _curve(self.gamma)

    def compress(self, pixels_HW3: Pixels) -> Pixels:
        """JPEG there and back at the picture's quality; unchanged where it has none."""
        if self.quality is None:
            return pixels_HW3
        buffer = io.BytesIO()
        picture = Image.fromarray(pixels_HW3)
        if self.grey:
            picture = picture.convert("L")
        picture.save(buffer, "JPEG", quality=self.quality, subsampling=self.subsampling)
        return np.asarray(Image.open(buffer).convert("RGB"))

    def reach(self, touched_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Where a change at ``touched_HW`` can show after blur and compression."""
        height, width = touched_HW.shape
        reached = touched_HW
        if self.blur_px > 0:
            reached = ndimage.maximum_filter(reached.astype(np.uint8), 1 + 2 * (4 + int(4 * self.blur_px))) > 0
        if self.quality is None:
            return reached
        # A colour decoder smooths subsampled chroma over the border of its 16-pixel units by up to two pixels.
        unit = 16 if self.subsampling and not self.grey else 8
        rows, columns = np.arange(0, height, unit), np.arange(0, width, unit)
        units = np.logical_or.reduceat(np.logical_or.reduceat(reached, rows, axis=0), columns, axis=1)
        full = np.repeat(np.repeat(units, unit, axis=0), unit, axis=1)[:height, :width]
        return ndimage.maximum_filter(full.astype(np.uint8), 5) > 0 if unit == 16 else full

    def turn(self, array_HW: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The final mirroring and quarter turn, for pictures and masks alike."""
        down, across, swap = self.flips
        if swap:
            array_HW = np.swapaxes(array_HW, 0, 1)
        if down:
            array_HW = array_HW[::-1]
        if across:
            array_HW = array_HW[:, ::-1]
        return np.ascontiguousarray(array_HW)


@lru_cache(maxsize=64)
def _curve(gamma: float) -> Array:
    curve = (np.linspace(0, 1, 4096) ** gamma).astype(np.float32)
    curve.setflags(write=False)
    return curve


def _blurred(image_HWC: Array, radius: float) -> Array:
    """Gaussian blur through Pillow's 8-bit filter: noise comes later, so its rounding does not show."""
    pixels = (image_HWC * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) * np.float32(1 / 255)
    return soft[..., None] if soft.ndim == 2 else soft


def random_camera(rng: Rng, size: int, turnable: bool = True) -> Camera:
    """A camera from good to poor: two in five grey, most compressed, some blurred or unevenly lit."""
    light = None
    if chance(rng, 0.45):
        y, x = pixel_grid(size)
        cy, cx = rng.uniform(0.2, 0.8, 2) * size
        far = ((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2) / np.float32(size * size)
        light = 1 - far * np.float32(between(rng, 0, 0.7))
        if chance(rng, 0.5):
            light = light * (1 + smooth(rng, size, 3) * np.float32(between(rng, 0, 0.3)))
    grey = chance(rng, 0.4)
    tint = rng.uniform(0.88, 1.12, 3) if chance(rng, 0.5) and not grey else np.ones(3)
    noise = None
    if chance(rng, 0.8):
        noise = white(rng, size, size, 1 if grey or chance(rng, 0.5) else 3)
        noise *= np.float32(log_between(rng, 0.002, 0.05))
    return Camera(
        light_HW=light,
        gain_3=(tint * between(rng, 0.7, 1.15)).astype(np.float32),
        gamma=round(log_between(rng, 0.65, 1.6), 2) if chance(rng, 0.5) else 1.0,
        grey=grey,
        blur_px=log_between(rng, 0.35, 1.6) * size / 256 if chance(rng, 0.5) else 0.0,
        noise_HWC=noise,
        quality=int(rng.integers(55, 98)) if chance(rng, 0.65) else None,
        subsampling=2 if chance(rng, 0.35) else 0,
        flips=(chance(rng, 0.5), chance(rng, 0.5), chance(rng, 0.5)) if turnable else (False, chance(rng, 0.5), False),
    )
