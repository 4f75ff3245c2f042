"""Reading one picture safely: whatever comes in, 8-bit RGB pixels or one clear error comes out.

In: a path, bytes, a binary stream, an array or a Pillow image. Out: a `Picture` whose pixels are turned as its EXIF
orientation says. Limits on bytes, pixels and pages hold before anything of that size is allocated; pixel counts come
from the header. Only the decoders listed in `_DECODERS` are ever reached, chosen by the file's first bytes and never
by its name: seldom used decoders are attack surface.

What becomes of other kinds of pixels: `pixels`. Of an animation the first frame is read.
"""

from __future__ import annotations

import errno
import hashlib
import io
import math
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from anomaly_ov.errors import AnomalyOVError, ImageTooLarge, UnreadableImage
from anomaly_ov.images.messages import one_line, printable, unreadable
from anomaly_ov.images.pixels import PixelsHW3, array_to_rgb, declared_bits, to_rgb

Readable = str | Path | bytes | BinaryIO | npt.NDArray[Any] | Image.Image

KNOWN_FORMATS = "JPEG, PNG, TIFF, BMP, WebP, GIF, PBM/PGM/PPM"
_CHUNK = 2**20
_WIDTH, _LENGTH, _STRIP_OFFSETS, _ROWS_PER_STRIP = 256, 257, 273, 278  # tags of TIFF 6.0
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 322, 323, 324

# First bytes -> decoder. An MPO is a JPEG with more of them behind it; the plain JPEG decoder reads the first. The
# classes are called directly, not through Image.open: that one warns or fails at Pillow's own process-wide pixel
# limit, which belongs to the host program and is left alone.
_DECODERS: dict[bytes, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"II*\x00": TiffImageFile,
    b"MM\x00*": TiffImageFile,
    b"II+\x00": TiffImageFile,
    b"MM\x00+": TiffImageFile,
    b"BM": BmpImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    **{b"P%d" % kind: PpmImageFile for kind in range(1, 7)},
}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """The most that one input may hold: bytes of the file, pixels (width x height) of a page, pages of a TIFF.

    WebP and TIFF pictures past twice ``PIL.Image.MAX_IMAGE_PIXELS`` (179 million unless the host program changes it)
    are refused by Pillow as well; raising ``max_pixels`` alone does not admit them.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 200_000_000
    max_pages: int = 1000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_pages"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture.

    ``pixels_HW3``: uint8 RGB, read-only, after the EXIF turn, at the picture's own size. ``path``: as given, or a name
    in angle brackets for inputs that have none. ``sha256``: of the file's bytes; of ``pixels_HW3`` for arrays and
    Pillow images. ``page``: from 0, only where the file holds several; else None.
    """

    pixels_HW3: PixelsHW3 = field(repr=False)
    path: str
    sha256: str
    page: int | None = None

    @property
    def height(self) -> int:
        """Rows of pixels after the EXIF turn."""
        return int(self.pixels_HW3.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels after the EXIF turn."""
        return int(self.pixels_HW3.shape[1])


def read(source: Readable, limits: Limits = DEFAULT_LIMITS, page: int = 0, *, name: str | None = None) -> Picture:
    """The picture in ``source``: a path, bytes, a binary stream (from its position on), an array or a Pillow image.

    Arrays: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; bool, integers 0..65535 or floats 0..1.
    ``page``: of a multi-page TIFF, from 0. ``name``: what errors and ``Picture.path`` call a source without a path.
    Raises ``UnreadableImage`` (missing, damaged, no picture we decode, no such page) or ``ImageTooLarge``.
    """
    label = _label(source, name)
    try:
        if isinstance(source, (np.ndarray, Image.Image)):
            return _read_in_memory(source, limits, page, label)
        return _read_file(_load_bytes(source, limits, label), limits, page, label)
    except AnomalyOVError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        hint = "Pillow's own limit; a program that trusts its pictures raises PIL.Image.MAX_IMAGE_PIXELS"
        raise ImageTooLarge(f"{printable(label)} has too many pixels: {one_line(error)}", hint=hint) from error
    except MemoryError as error:
        raise ImageTooLarge(f"{printable(label)} does not fit in memory", hint="scale the picture down") from error
    except Exception as error:  # third-party decoders on untrusted bytes: almost any type of error can come out
        hint = "the file seems damaged or incomplete; copy or export it again"
        raise UnreadableImage(f"cannot read {printable(label)}: {one_line(error)}", hint=hint) from error


def is_picture(head: bytes) -> bool:
    """Whether the first (16 or more) bytes of a file are those of a format that ``read`` decodes."""
    return _decoder(head) is not None


def open_regular(path: str | Path) -> BinaryIO:
    """``path`` opened for reading if it is a regular file. A pipe or device ends in ``OSError``, never in waiting."""
    # Without O_NONBLOCK, opening a named pipe that nobody writes to would wait forever.
    nonblock = getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblock))  # noqa: SIM115 - handed out
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file (a pipe, socket or device)")
    return file


def _label(source: object, name: str | None) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    inner = getattr(source, "filename", "") if isinstance(source, Image.Image) else getattr(source, "name", "")
    if isinstance(inner, (str, Path)) and str(inner):
        return str(inner)
    if name is not None:
        return name
    kinds = ((np.ndarray, "<array>"), (Image.Image, "<image>"), ((bytes, bytearray, memoryview), "<bytes>"))
    return next((label for kind, label in kinds if isinstance(source, kind)), "<stream>")


# ---- bytes ---------------------------------------------------------------------------------------------------------


def _load_bytes(source: str | Path | bytes | BinaryIO, limits: Limits, label: str) -> bytes:
    if isinstance(source, (str, Path)):
        return _load_path(source, limits, label)
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_bytes(memoryview(source).nbytes, limits, label)
        return bytes(source)
    if hasattr(source, "read"):
        return _load_stream(source, limits, label)
    return unreadable(
        label, f"a {type(source).__name__} is no picture", "give a path, bytes, a binary stream, an array or an image"
    )


def _load_path(path: str | Path, limits: Limits, label: str) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            _check_bytes(size, limits, label)
            return file.read(size)
    except FileNotFoundError:
        unreadable(label, "no such file", "check the spelling and the folder you are in")
    except IsADirectoryError:
        hint = "give a file in it" if os.access(path, os.R_OK | os.X_OK) else "you may not list it; ask for permission"
        unreadable(label, "it is a folder", hint)
    except PermissionError:
        unreadable(label, "permission denied", "ask for permission to read it")
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character
        cause = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        unreadable(label, cause, "give a regular file, or the bytes themselves")


def _load_stream(stream: BinaryIO, limits: Limits, label: str) -> bytes:
    try:
        data = read_bounded(stream, limits)
    except (OSError, ValueError) as error:
        unreadable(label, one_line(error), "give an open binary stream")
    _check_bytes(len(data), limits, label)
    return data


def read_bounded(stream: BinaryIO, limits: Limits) -> bytes:
    """All that is left in ``stream``, or one byte more than ``limits.max_bytes`` where there is more than that."""
    data = bytearray()
    while chunk := stream.read(min(_CHUNK, limits.max_bytes + 1 - len(data))):
        if isinstance(chunk, str):
            raise ValueError("the stream gives text, not bytes; open it in binary mode")
        data += chunk
    return bytes(data)


def _check_bytes(size: int, limits: Limits, label: str) -> None:
    if size > limits.max_bytes:
        hint = f"the limit is {limits.max_bytes} bytes; raise it only for files you trust"
        raise ImageTooLarge(f"{printable(label)} holds {size} bytes or more", hint=hint)


# ---- decoding ------------------------------------------------------------------------------------------------------


def _read_file(data: bytes, limits: Limits, page: int, label: str) -> Picture:
    image = _open(data, limits, label)
    pages = _go_to_page(image, page, limits, label)
    _check_pixels(image, limits, label)
    image.load()
    pixels_HW3 = to_rgb(_turned(image), declared_bits(image), label)
    return Picture(pixels_HW3, label, hashlib.sha256(data).hexdigest(), page if pages else None)


def _decoder(head: bytes) -> Callable[[BinaryIO], ImageFile.ImageFile] | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImageFile
    return next((decoder for magic, decoder in _DECODERS.items() if head.startswith(magic)), None)


def _open(data: bytes, limits: Limits, label: str) -> ImageFile.ImageFile:
    if not data:
        unreadable(label, "the file is empty (0 bytes)", "copy or export it again")
    decoder = _decoder(data[:16])
    if decoder is None:
        is_text = data[:512].isascii() and b"\x00" not in data[:512]
        cause = "it holds text, not a picture" if is_text else "it is in no picture format that we know"
        unreadable(label, cause, f"known formats: {KNOWN_FORMATS}; convert it to one of them")
    if decoder is WebPImageFile:
        _check_size(_webp_canvas(data), limits, label)  # its decoder allocates the canvas on opening
    return decoder(io.BytesIO(data))


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height in a WebP header (RFC 9649); (0, 0) where it is damaged, which the decoder then reports."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _go_to_page(image: ImageFile.ImageFile, page: int, limits: Limits, label: str) -> bool:
    """Turns to ``page``; whether the file holds several. Frames of animations are not pages."""
    if page >= limits.max_pages:
        hint = "split the file, or raise the limit for files you trust"
        raise ImageTooLarge(f"{printable(label)} holds more than {limits.max_pages} pages", hint=hint)
    several = isinstance(image, TiffImageFile) and bool(getattr(image, "is_animated", False))
    if page == 0:
        return several
    try:
        if page < 0 or not several:
            raise EOFError
        image.seek(page)
    except EOFError:
        unreadable(label, f"it has no page {page + 1}", "pages are counted from 0 in Python, from 1 in names")
    return several


def _check_pixels(image: Image.Image, limits: Limits, label: str) -> None:
    _check_size(image.size, limits, label)
    if isinstance(image, TiffImageFile):
        _check_parts(image, limits, label)


def _check_parts(image: TiffImageFile, limits: Limits, label: str) -> None:
    """A TIFF's tiles are within the limits, since one is allocated whole, and its tiles or strips fill the picture.

    Without the second, a header with a wrong height would pass as a picture that is black where it has no data.
    """
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_LENGTH]  # as stored; image.size is that of the turned picture
    columns, rows, offsets = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0), tags.get(_TILE_OFFSETS)
    if offsets is not None:
        _check_size((columns, rows), limits, label)
    else:
        columns, rows, offsets = width, tags.get(_ROWS_PER_STRIP, height), tags.get(_STRIP_OFFSETS, ())
    if len(offsets) < math.ceil(width / columns) * math.ceil(height / rows):
        unreadable(label, "its parts do not fill the picture", "the file seems damaged; export it again")


def _check_size(size: tuple[int, int], limits: Limits, label: str) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        hint = f"the limit is {limits.max_pixels} pixels; scale it down, or raise the limit for files you trust"
        raise ImageTooLarge(f"{printable(label)} has {width} x {height} pixels", hint=hint)


def _turned(image: Image.Image) -> Image.Image:
    """``image`` upright, as its EXIF orientation says (Pillow has already turned a TIFF while loading it)."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata of a sound picture: shown as stored, like everywhere else
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


# ---- arrays and images in memory -----------------------------------------------------------------------------------


def _read_in_memory(source: npt.NDArray[Any] | Image.Image, limits: Limits, page: int, label: str) -> Picture:
    if page:
        unreadable(label, f"it has no page {page + 1}", "arrays and images hold one page; read the file instead")
    if isinstance(source, Image.Image):
        _check_pixels(source, limits, label)
        source.load()
        pixels_HW3 = to_rgb(_turned(source), None, label)
    else:
        _check_array(source, limits, label)
        pixels_HW3 = array_to_rgb(source, label)
    return Picture(pixels_HW3, label, hashlib.sha256(pixels_HW3.data).hexdigest())


def _check_array(array: npt.NDArray[Any], limits: Limits, label: str) -> None:
    shape = array.shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))) or 0 in shape:
        unreadable(label, f"an array of shape {shape} is no picture", "shapes are (H, W) and (H, W, 1 or 3 or 4)")
    _check_size((shape[1], shape[0]), limits, label)
