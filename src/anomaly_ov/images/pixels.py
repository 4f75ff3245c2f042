"""Pixels of any kind -> 8-bit RGB, by the same rules for files and arrays, never a stretch by percentiles.

* 16-bit grey, and integer arrays: the full scale is the smallest of 8, 10, 12, 14, 16 bits that holds the largest
  value (cameras write 12 bits into 16-bit files, which would look black on the 16-bit scale); the top 8 bits of that
  scale are kept. A depth that the file itself declares (a 12-bit TIFF, the maximum of a PGM) goes first. Negative
  values or values past 16 bits are refused. 16-bit colour files keep the high byte, as Pillow decodes them.
* float: 0..1, anything else is refused, because its scale is not known.
* alpha, palette transparency, colour keys: composited on white, on which cut-outs are published and on which people
  look at them; the colours hidden under transparent pixels must not turn into an anomaly. Where *all* of a picture is
  transparent the alpha is ignored: some writers leave that channel at zero.
* CMYK, YCbCr, LAB: Pillow's plain conversion. Embedded colour profiles are not applied.

Not here: files, limits and the turn of a picture (`read`).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from anomaly_ov.images.messages import unreadable

PixelsHW3 = npt.NDArray[np.uint8]

BACKGROUND = (255, 255, 255)
BIT_DEPTHS = (8, 10, 12, 14, 16)
FLOAT_SLACK = 1e-3  # rounding of earlier processing may leave 0..1 by this much; it is clipped
_BITS_PER_SAMPLE = 258  # tag of TIFF 6.0


def declared_bits(image: Image.Image) -> int | None:
    """The bit depth of grey pixels deeper than 8 bits, where ``image``'s file says it; else None.

    That a file stores 16 bits says nothing about the scale.
    """
    if isinstance(image, PpmImageFile):
        return 16  # scaled up by Pillow from the maximum in the header
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_BITS_PER_SAMPLE) == (12,):
        return 12
    return None


def to_rgb(image: Image.Image, bits: int | None, label: str) -> PixelsHW3:
    """(H, W, 3) uint8, read-only, of a loaded Pillow image of any mode; ``bits``: as from ``declared_bits``.

    Raises ``UnreadableImage``, with ``label`` as the picture's name, for values whose scale is not known.
    """
    if image.mode.startswith(("I", "F")):
        return _three_channels(_to_uint8(np.asarray(image), bits, label))
    if image.has_transparency_data:
        image = _flattened(image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA"))
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image)  # of a copy made by Pillow, which numpy marks read-only


def array_to_rgb(array: npt.NDArray[Any], label: str) -> PixelsHW3:
    """(H, W, 3) uint8, read-only, of a non-empty array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.

    Raises ``UnreadableImage``, with ``label`` as the picture's name, for types and values whose scale is not known.
    """
    if array.ndim == 3 and array.shape[2] == 4:
        # Colour and alpha each on a scale of their own: 12-bit colours often come with a 16-bit alpha.
        channels = [_to_uint8(array[..., :3], None, label), _to_uint8(array[..., 3:], None, label)]
        return np.asarray(_flattened(Image.fromarray(np.concatenate(channels, axis=2))))
    return _three_channels(_to_uint8(array, None, label))


def _flattened(image_RGBA: Image.Image) -> Image.Image:
    alpha = image_RGBA.getchannel("A")
    if alpha.getextrema() == (0, 0):
        return image_RGBA.convert("RGB")
    canvas = Image.new("RGB", image_RGBA.size, BACKGROUND)
    canvas.paste(image_RGBA, mask=alpha)
    return canvas


def _three_channels(values: npt.NDArray[np.uint8]) -> PixelsHW3:
    """(H, W), (H, W, 1) or (H, W, 3) as a contiguous read-only copy with three channels."""
    pixels_HW3 = np.empty((*values.shape[:2], 3), np.uint8)
    pixels_HW3[...] = values if values.ndim == 3 else values[..., None]
    pixels_HW3.setflags(write=False)
    return pixels_HW3


def _to_uint8(values: npt.NDArray[Any], bits: int | None, label: str) -> npt.NDArray[np.uint8]:
    """Any bool, integer or float values on the scale stated at the top of this file, same shape."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = (values.min(), values.max()) if values.dtype.kind in "iuf" else (0, 0)
    if values.dtype.kind == "f":
        if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):  # false for NaN too
            unreadable(label, f"float pixels run from {low:.6g} to {high:.6g}", "bring them to 0..1 first")
        return cast("npt.NDArray[np.uint8]", np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
    if values.dtype.kind not in "iu":
        unreadable(label, f"pixels of type {values.dtype} are not known", "give bool, integers or floats in 0..1")
    if low < 0 or high > 65535:
        unreadable(label, f"integer pixels run from {low} to {high}", "bring them to 0..65535 first")
    depth = bits or next(depth for depth in BIT_DEPTHS if high < 2**depth)
    eight_bit = np.empty(values.shape, np.uint8)
    np.right_shift(values, depth - 8, out=eight_bit, casting="unsafe")
    return eight_bit
