"""Reading pictures: every kind of pixels, every way to be damaged, and the limits."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from anomaly_ov.errors import ImageError, ImageTooLarge, UnreadableImage
from anomaly_ov.images.read import Limits, Picture, is_picture, read

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (13, 21, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:130:10, 0:210:10], np.uint8(90)), axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of(width: int, height: int, body: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


# ---- formats and kinds of pixels


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_lossless_formats_give_the_same_pixels(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    data = encoded(Image.fromarray(COLOUR), kind, **options)
    path = tmp_path / "a picture.dat"  # the bytes decide, not the name
    path.write_bytes(data)
    for source in (path, str(path), data, io.BytesIO(data)):
        picture = read(source)
        np.testing.assert_array_equal(picture.pixels_HW3, COLOUR)
        assert (picture.height, picture.width, picture.page) == (13, 21, None)
        assert picture.sha256 == hashlib.sha256(data).hexdigest()
    assert read(path).path == str(path)
    assert read(data).path == "<bytes>"
    assert read(data, name="-").path == "-"


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 95, "progressive": True}])
def test_jpeg_is_close(options: dict[str, object]) -> None:
    pixels_HW3 = read(encoded(Image.fromarray(SMOOTH), "JPEG", **options)).pixels_HW3
    assert np.abs(pixels_HW3.astype(int) - SMOOTH).max() <= 12


def test_first_picture_of_an_mpo_and_of_animations() -> None:
    first, second = Image.fromarray(SMOOTH), Image.new("RGB", (21, 13), "red")
    for kind, options in (("MPO", {}), ("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(first, kind, save_all=True, append_images=[second], **options)
        picture = read(data)
        assert np.abs(picture.pixels_HW3.astype(int) - SMOOTH).mean() < 12, kind
        assert picture.page is None
        with pytest.raises(UnreadableImage, match="no page 2"):
            read(data, page=1)


def test_grey_one_bit_palette() -> None:
    grey_HW = COLOUR[..., 0]
    for kind in ("PNG", "TIFF", "BMP", "PPM", "GIF"):
        pixels_HW3 = read(encoded(Image.fromarray(grey_HW), kind)).pixels_HW3
        np.testing.assert_array_equal(pixels_HW3, np.repeat(grey_HW[..., None], 3, axis=2))
    bits_HW = grey_HW > 128
    for options in ({"format": "PNG"}, {"format": "TIFF", "compression": "group4"}, {"format": "BMP"}):
        file = io.BytesIO()
        Image.fromarray(bits_HW).save(file, **options)
        np.testing.assert_array_equal(read(file.getvalue()).pixels_HW3[..., 1], bits_HW * np.uint8(255))
    palette = Image.fromarray(COLOUR).quantize(256)
    np.testing.assert_array_equal(read(encoded(palette, "PNG")).pixels_HW3, np.asarray(palette.convert("RGB")))


def test_palette_transparency_shows_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([200, 10, 10, 0, 0, 0, 10, 10, 200])
    image.putdata([0, 1, 2])
    key = read(encoded(image, "PNG", transparency=1)).pixels_HW3
    np.testing.assert_array_equal(key[0], [[200, 10, 10], [255, 255, 255], [10, 10, 200]])
    levels = read(encoded(image, "PNG", transparency=bytes([255, 0, 128]))).pixels_HW3
    np.testing.assert_array_equal(levels[0, :2], [[200, 10, 10], [255, 255, 255]])
    np.testing.assert_allclose(levels[0, 2].astype(int), [132, 132, 227], atol=1)
    gif = read(encoded(image, "GIF", transparency=1)).pixels_HW3
    np.testing.assert_array_equal(gif[0, 1], [255, 255, 255])


def test_colour_key_of_grey_and_rgb_shows_white() -> None:
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    np.testing.assert_array_equal(read(encoded(grey, "PNG", transparency=7)).pixels_HW3[0, :, 0], [255, 9])
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    pixels_HW3 = read(encoded(colour, "PNG", transparency=(1, 2, 3))).pixels_HW3
    np.testing.assert_array_equal(pixels_HW3[0], [[255, 255, 255], [4, 5, 6]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_hides_what_is_under_it(kind: str) -> None:
    rgba = np.dstack([COLOUR, np.full((13, 21), 255, np.uint8)])
    rgba[:5, :, 3] = 0
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels_HW3 = read(encoded(Image.fromarray(rgba), kind, **options)).pixels_HW3
    assert (pixels_HW3[:5] == 255).all()
    np.testing.assert_array_equal(pixels_HW3[5:], COLOUR[5:])


def test_grey_with_alpha_and_premultiplied_images() -> None:
    la = Image.fromarray(np.array([[[50, 255], [50, 0]]], np.uint8))
    assert la.mode == "LA"
    for source in (encoded(la, "PNG"), la, la.convert("La")):
        np.testing.assert_array_equal(read(source).pixels_HW3[0, :, 2], [50, 255])
    rgba = Image.fromarray(np.array([[[50, 60, 70, 255], [9, 9, 9, 0]]], np.uint8))
    np.testing.assert_array_equal(read(rgba.convert("RGBa")).pixels_HW3[0], [[50, 60, 70], [255, 255, 255]])


def test_alpha_that_is_zero_everywhere_is_ignored() -> None:
    rgba = np.dstack([COLOUR, np.zeros((13, 21), np.uint8)])
    np.testing.assert_array_equal(read(encoded(Image.fromarray(rgba), "PNG")).pixels_HW3, COLOUR)
    np.testing.assert_array_equal(read(rgba).pixels_HW3, COLOUR)


def test_cmyk_jpeg_keeps_its_colours() -> None:
    pixels_HW3 = read(encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95)).pixels_HW3
    assert np.abs(pixels_HW3.astype(int) - SMOOTH).mean() < 6


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX", "PA"])
def test_other_modes_of_pillow_images(mode: str) -> None:
    image = Image.fromarray(SMOOTH).quantize(64).convert("PA") if mode == "PA" else Image.fromarray(SMOOTH)
    image = image if mode == "PA" else image.convert(mode)
    assert np.abs(read(image).pixels_HW3.astype(int) - SMOOTH).mean() < 12


# ---- more than 8 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 32768, 65535], [0, 1, 128, 255]),  # 16 bits
        ([0, 16, 2048, 4095], [0, 1, 128, 255]),  # 12 bits in 16: not black
        ([0, 64, 8192, 16383], [0, 1, 128, 255]),
        ([0, 4, 512, 1023], [0, 1, 128, 255]),
        ([0, 4, 200, 255], [0, 4, 200, 255]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([0, 16, 2048, 4096], [0, 0, 32, 64]),  # one value past 12 bits is the next scale, 14
    ],
)
def test_16_bit_grey_on_the_scale_of_a_camera(kind: str, values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.uint16))
    assert image.mode == "I;16"
    for source in (encoded(image, kind), image, np.array([values], np.uint16), np.array([values], ">u2")):
        np.testing.assert_array_equal(read(source).pixels_HW3[0, :, 1], expected)


def test_16_bit_scale_is_absolute_not_stretched() -> None:
    dark = np.array([[300, 500, 700, 900]], np.uint16)  # all on the 10-bit scale: contrast as it is
    np.testing.assert_array_equal(read(dark).pixels_HW3[0, :, 0], [75, 125, 175, 225])


def test_big_endian_and_signed_tiff() -> None:
    values = np.array([[0, 2048, 4095]])
    for dtype, sample_format in ((">u2", 1), ("<i2", 2), ("<u4", 1), ("<i4", 2)):
        data = raw_tiff(values.astype(dtype), sample_format)
        np.testing.assert_array_equal(read(data).pixels_HW3[0, :, 0], [0, 128, 255])
    with pytest.raises(UnreadableImage, match="from -3 to 7"):
        read(raw_tiff(np.array([[-3, 7]], "<i2"), 2))
    with pytest.raises(UnreadableImage, match="to 70000"):
        read(raw_tiff(np.array([[3, 70000]], "<i4"), 2))


def test_declared_depth_goes_before_the_largest_value() -> None:
    pgm = b"P5 2 1 4095\n" + np.array([100, 1000], ">u2").tobytes()
    np.testing.assert_allclose(read(pgm).pixels_HW3[0, :, 0].astype(int), [6, 62], atol=1)
    packed = bytes([0x06, 0x43, 0xE8])  # 100 and 1000, 12 bits each
    np.testing.assert_allclose(read(raw_tiff(packed, 1, (2, 1), 12)).pixels_HW3[0, :, 0].astype(int), [6, 62], atol=1)


def test_16_bit_colour_keeps_the_high_byte() -> None:
    body = b"\x00" + np.array([0x0102, 0x80FF, 0xFFFF], ">u2").tobytes()
    np.testing.assert_array_equal(read(png_of(1, 1, body, depth=16)).pixels_HW3[0, 0], [1, 0x80, 255])


def test_float_tiff() -> None:
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    np.testing.assert_array_equal(read(encoded(unit, "TIFF")).pixels_HW3[0, :, 0], [0, 128, 255])
    with pytest.raises(UnreadableImage, match=r"float pixels run from 0 to 2\.5.*0\.\.1 first"):
        read(encoded(Image.fromarray(np.array([[0, 2.5]], np.float32)), "TIFF"))


def raw_tiff(
    pixels: np.ndarray | bytes,
    sample_format: int,
    size: tuple[int, int] | None = None,
    bits: int = 0,
    tags: dict[int, int] | None = None,
) -> bytes:
    """A one-strip (or one-tile) uncompressed grey TIFF, written by hand, for kinds that Pillow does not write."""
    big = isinstance(pixels, np.ndarray) and pixels.dtype.byteorder == ">"
    body = pixels.tobytes() if isinstance(pixels, np.ndarray) else pixels
    width, height = size or (pixels.shape[1], pixels.shape[0])  # type: ignore[union-attr]
    bits = bits or pixels.dtype.itemsize * 8  # type: ignore[union-attr]
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height, 279: len(body)}
    values[339] = sample_format
    values |= tags or {}
    tiled = 324 in values
    if tiled:
        values = {tag: value for tag, value in values.items() if tag not in (273, 278, 279)}
    values[324 if tiled else 273] = 8 + 2 + 12 * len(values) + 4
    order = ">" if big else "<"
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    head = (b"MM\x00*" if big else b"II*\x00") + struct.pack(order + "IH", 8, len(values))
    return head + entries + bytes(4) + body


# ---- EXIF


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


STORED = {  # how an upright picture is stored under each orientation, so that a viewer turns it back
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](COLOUR)))
    for kind, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        data = encoded(stored, kind, exif=oriented(orientation), **options)
        picture = read(data)
        np.testing.assert_array_equal(picture.pixels_HW3, COLOUR, err_msg=f"{kind} {options}")
        assert (picture.width, picture.height) == (21, 13)
        np.testing.assert_array_equal(read(Image.open(io.BytesIO(data))).pixels_HW3, COLOUR)
    smooth = Image.fromarray(np.ascontiguousarray(STORED[orientation](SMOOTH)))
    jpeg = read(encoded(smooth, "JPEG", quality=95, exif=oriented(orientation))).pixels_HW3
    assert np.abs(jpeg.astype(int) - SMOOTH).max() <= 12


def test_turned_tiff_in_one_strip() -> None:
    stored_HW = np.ascontiguousarray(np.rot90(COLOUR[..., 0], 1))
    data = raw_tiff(stored_HW, 1, tags={274: 6})
    image = Image.open(io.BytesIO(data))
    for source in (data, image, image):  # the second time already loaded
        np.testing.assert_array_equal(read(source).pixels_HW3[..., 0], COLOUR[..., 0])


def test_16_bit_pictures_are_turned_too() -> None:
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    pixels_HW3 = read(encoded(deep, "PNG", exif=oriented(6))).pixels_HW3
    np.testing.assert_array_equal(pixels_HW3[:, 0, 0], [0, 255])


@pytest.mark.parametrize(
    "exif", [oriented(9).tobytes(), b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"]
)
def test_bad_exif_does_not_cost_the_picture(exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(encoded(Image.fromarray(SMOOTH), "JPEG", exif=exif)).pixels_HW3.shape == (13, 21, 3)


# ---- pages


def paged_tiff(count: int, **options: object) -> bytes:
    pages = [Image.new("L", (4 + index, 3), 10 * index) for index in range(count)]
    return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], **options)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_pages_of_a_tiff(options: dict[str, object]) -> None:
    data = paged_tiff(3, **options)
    for index in range(3):
        picture = read(data, page=index)
        assert (picture.width, picture.page) == (4 + index, index)
        assert (picture.pixels_HW3 == 10 * index).all()
    for page in (3, -1):
        with pytest.raises(UnreadableImage, match=f"no page {page + 1}"):
            read(data, page=page)
    with pytest.raises(ImageTooLarge, match="more than 2 pages"):
        read(data, Limits(max_pages=2), page=2)


def test_single_pictures_have_no_second_page() -> None:
    for source in (paged_tiff(1), COLOUR, Image.fromarray(COLOUR)):
        assert read(source).page is None
        with pytest.raises(UnreadableImage, match="no page 2"):
            read(source, page=1)


# ---- arrays and Pillow images


def test_array_shapes_and_types() -> None:
    grey_HW = COLOUR[..., 0]
    for array in (grey_HW, grey_HW[..., None], grey_HW.astype(np.int64), grey_HW / 255, (grey_HW / 255).astype("f2")):
        picture = read(array)
        np.testing.assert_array_equal(picture.pixels_HW3, np.repeat(grey_HW[..., None], 3, axis=2))
    np.testing.assert_array_equal(read(COLOUR / np.float32(255)).pixels_HW3, COLOUR)
    np.testing.assert_array_equal(read(COLOUR[:, ::-1]).pixels_HW3, COLOUR[:, ::-1])
    np.testing.assert_array_equal(read(grey_HW > 99).pixels_HW3[..., 0], (grey_HW > 99) * 255)
    rgba = np.dstack([COLOUR, np.full((13, 21), 255, np.uint8)])
    np.testing.assert_array_equal(read(rgba).pixels_HW3, COLOUR)


def test_alpha_of_arrays_has_its_own_depth() -> None:
    deep = np.array([[[4095, 0, 2048, 65535], [4095, 0, 2048, 0]]], np.uint16)
    np.testing.assert_array_equal(read(deep).pixels_HW3[0], [[255, 0, 128], [255, 255, 255]])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\)"),
        (np.zeros((3, 8, 9), np.uint8), r"shape \(3, 8, 9\)"),
        (np.zeros((0, 5), np.uint8), r"shape \(0, 5\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.full((2, 2), 1.5), "from 1.5 to 1.5"),
        (np.full((2, 2), -0.5), "from -0.5 to -0.5"),
        (np.full((2, 2), np.nan), "nan"),
        (np.full((2, 2), np.inf), "inf"),
        (np.full((2, 2), -1), "from -1 to -1"),
        (np.full((2, 2), 65536), "to 65536"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.full((2, 2), None, object), "object"),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray, words: str) -> None:
    with pytest.raises(UnreadableImage, match=words) as caught:
        read(array)
    assert "<array>" in str(caught.value)
    assert caught.value.hint


def test_floats_just_past_one_are_rounding() -> None:
    assert (read(np.full((1, 1), 1.0004)).pixels_HW3 == 255).all()


def test_picture_keeps_nothing_of_the_callers_array() -> None:
    mine = COLOUR.copy()
    view = mine.view()
    view.setflags(write=False)
    for array in (mine, view):
        picture = read(array)
        before = picture.pixels_HW3.copy()
        mine[...] = 255 - mine
        np.testing.assert_array_equal(picture.pixels_HW3, before)
        assert picture.sha256 == hashlib.sha256(before.tobytes()).hexdigest()
    image = Image.fromarray(COLOUR)
    picture = read(image)
    image.paste("red", (0, 0, 21, 13))
    np.testing.assert_array_equal(picture.pixels_HW3, COLOUR)


def test_pixels_are_read_only() -> None:
    for source in (COLOUR, COLOUR / 255, Image.fromarray(COLOUR), encoded(Image.fromarray(COLOUR), "PNG")):
        with pytest.raises(ValueError, match="read-only"):
            read(source).pixels_HW3[0, 0, 0] = 1


def test_lazily_opened_image_keeps_its_name_and_fails_by_it(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    whole = encoded(Image.fromarray(COLOUR), "PNG")
    path.write_bytes(whole)
    with Image.open(path) as image:
        assert read(image).path == str(path)
    path.write_bytes(whole[:200])
    with Image.open(path) as image, pytest.raises(UnreadableImage, match=r"cut\.png"):
        read(image)


def test_strips_of_one_pixel() -> None:
    for size in ((1, 2000), (2000, 1), (1, 1)):
        picture = read(encoded(Image.new("RGB", size, (1, 2, 3)), "PNG"))
        assert (picture.width, picture.height) == size


# ---- streams


def test_stream_is_read_from_its_position_on_and_gives_its_name(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(COLOUR), "PNG")
    path = tmp_path / "x.bin"
    path.write_bytes(b"skip" + data)
    with path.open("rb") as file:
        file.read(4)
        picture = read(file)
    np.testing.assert_array_equal(picture.pixels_HW3, COLOUR)
    assert picture.path == str(path)


def test_stream_in_drips_and_its_limit() -> None:
    class Drip(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.left = data
            self.given = 0

        def read(self, size: int = -1) -> bytes:
            part, self.left = self.left[: min(size, 7)], self.left[min(size, 7) :]
            self.given += len(part)
            return part

    data = encoded(Image.fromarray(COLOUR), "PNG")
    np.testing.assert_array_equal(read(Drip(data)).pixels_HW3, COLOUR)  # type: ignore[arg-type]
    endless = Drip(data + bytes(10_000))
    with pytest.raises(ImageTooLarge, match="<stream>"):
        read(endless, Limits(max_bytes=1000))  # type: ignore[arg-type]
    assert endless.given == 1001


def test_text_and_closed_streams() -> None:
    with pytest.raises(UnreadableImage, match="binary"):
        read(io.StringIO("hello"))  # type: ignore[arg-type]
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(UnreadableImage, match="closed"):
        read(closed)
    with pytest.raises(UnreadableImage, match="a dict is no picture"):
        read({})  # type: ignore[arg-type]


# ---- files that are no pictures


def test_missing_file_folder_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"nowhere\.png: no such file"):
        read(tmp_path / "nowhere.png")
    with pytest.raises(UnreadableImage, match="it is a folder"):
        read(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(UnreadableImage, match=r"empty\.png: the file is empty"):
        read(tmp_path / "empty.png")
    (tmp_path / "file").touch()
    with pytest.raises(UnreadableImage, match="Not a directory"):
        read(tmp_path / "file" / "x.png")
    with pytest.raises(UnreadableImage, match="null"):
        read("a\0b.png")
    with pytest.raises(UnreadableImage, match="''"):
        read("")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.fromarray(COLOUR), "PNG"))
    if os.geteuid() == 0:  # nothing is denied to root

        def deny(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", deny)
    else:
        path.chmod(0)
    with pytest.raises(UnreadableImage, match=r"secret\.png: permission denied"):
        read(path)


def test_text_under_a_pictures_name(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>Not found</html>")
    with pytest.raises(UnreadableImage, match=r"page\.png: it holds text") as caught:
        read(tmp_path / "page.png")
    assert "\n" not in str(caught.value)
    with pytest.raises(UnreadableImage, match="no picture format that we know"):
        read(b"\x00\x01\x02\x03" * 9)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "JPEG2000", "PDF", "EPS", "DDS", "SGI"])
def test_seldom_used_decoders_are_out_of_reach(kind: str) -> None:
    data = encoded(Image.fromarray(np.resize(COLOUR, (16, 16, 3))), kind)
    assert not is_picture(data[:16])
    with pytest.raises(UnreadableImage):
        read(data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    errors: list[Exception] = []

    def attempt() -> None:
        for path in (pipe, Path("/dev/zero")):
            try:
                read(path)
            except UnreadableImage as error:
                errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert [("not a regular file" in str(error)) for error in errors] == [True, True]


def test_odd_names_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\x1b[31m.png"
    path.write_bytes(b"hello")
    with pytest.raises(UnreadableImage) as caught:
        read(path)
    assert str(caught.value).isprintable()


# ---- limits


def peak_bytes_of_failure(data: bytes, limits: Limits) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge):
            read(data, limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_allocation(*_: object) -> None:
        raise AssertionError("allocated")

    png = png_of(60000, 60000)
    jpeg = bytearray(encoded(Image.new("L", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    bmp = bytearray(encoded(Image.new("RGB", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    tiff = raw_tiff(bytes(8), 1, (60000, 60000), 8)
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\x5f\xea\x00" * 2
    pgm = b"P5 60000 60000 255\n" + bytes(8)
    gif = bytearray(encoded(Image.new("L", (8, 8)), "GIF"))
    gif[6:10] = struct.pack("<HH", 60000, 60000)
    monkeypatch.setattr(Image.core, "new", no_allocation)
    monkeypatch.setattr(Image.core, "fill", no_allocation)
    for data in (png, bytes(jpeg), bytes(bmp), tiff, webp, pgm, bytes(gif)):
        assert peak_bytes_of_failure(data, Limits()) < 2**20
        with pytest.raises(ImageTooLarge, match="60000 x 60000 pixels"):
            read(data)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, {"lossless": True, "exif": oriented(1)}])
def test_webp_size_is_known_before_its_decoder_runs(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.new("RGB", (300, 20), "blue"), "WEBP", **options)
    assert read(data, Limits(max_pixels=6000)).width == 300
    monkeypatch.setattr("anomaly_ov.images.read.WebPImageFile", lambda _: pytest.fail("decoder ran"))
    with pytest.raises(ImageTooLarge, match="300 x 20 pixels"):
        read(data, Limits(max_pixels=5999))


def test_huge_tiles_in_a_small_tiff_are_refused() -> None:
    tiles = {322: 50_000, 323: 50_000, 324: 8, 325: 64}
    with pytest.raises(ImageTooLarge, match="50000 x 50000"):
        read(raw_tiff(bytes(64), 1, (8, 8), 8, tiles))
    assert read(raw_tiff(bytes(256), 1, (8, 8), 8, {322: 16, 323: 16, 324: 8, 325: 256})).width == 8


def test_tiff_with_rows_that_no_strip_holds_is_damaged() -> None:
    data = bytearray(raw_tiff(bytes(64), 1, (8, 8), 8))
    assert read(bytes(data)).height == 8
    at = data.index(struct.pack("<HHII", 257, 4, 1, 8))
    data[at : at + 12] = struct.pack("<HHII", 257, 4, 1, 9)
    with pytest.raises(UnreadableImage, match="do not fill the picture"):
        read(bytes(data))
    with pytest.raises(UnreadableImage, match="do not fill the picture"):
        read(raw_tiff(bytes(256), 1, (17, 8), 8, {322: 16, 323: 16, 324: 8, 325: 256}))


def test_pixel_limit_of_every_way_in() -> None:
    limits = Limits(max_pixels=13 * 21 - 1)
    image = Image.fromarray(COLOUR)
    for source in (COLOUR, image, encoded(image, "PNG"), encoded(image, "TIFF"), encoded(image, "WEBP")):
        with pytest.raises(ImageTooLarge, match=r"21 x 13 pixels.*limit is 272 pixels"):
            read(source, limits)
        assert read(source, Limits(max_pixels=13 * 21)).width == 21


def test_byte_limit_of_every_way_in(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(COLOUR), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for make in (lambda: path, lambda: data, lambda: io.BytesIO(data), lambda: bytearray(data)):
        with pytest.raises(ImageTooLarge, match="bytes"):
            read(make(), Limits(max_bytes=len(data) - 1))  # type: ignore[arg-type]
        assert read(make(), Limits(max_bytes=len(data))).width == 21  # type: ignore[arg-type]


def test_a_sparse_giant_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "giant.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ImageTooLarge, match=r"giant\.png holds 1099511627776 bytes"):
        read(path)


def test_pillows_own_limit_is_neither_used_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(COLOUR)
    jpeg, tiff = encoded(image, "JPEG"), encoded(image, "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(jpeg).width == 21
        with pytest.raises(ImageTooLarge, match="own limit"):  # Pillow itself insists for TIFF
            read(tiff)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels", "max_pages"])
def test_limits_are_checked(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Limits(**{field: 0})


# ---- damage


SEEDS = [
    encoded(Image.fromarray(SMOOTH), "JPEG", exif=oriented(6)),
    encoded(Image.fromarray(SMOOTH), "JPEG", progressive=True),
    encoded(Image.fromarray(COLOUR), "PNG"),
    encoded(Image.fromarray(COLOUR).quantize(16), "PNG", transparency=3),
    encoded(Image.fromarray(COLOUR[..., 0].astype(np.uint16) * 16), "PNG"),
    encoded(Image.fromarray(COLOUR), "TIFF"),
    encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw", exif=oriented(3)),
    encoded(Image.fromarray(COLOUR[..., 0] / np.float32(255)), "TIFF"),
    paged_tiff(3),
    encoded(Image.fromarray(COLOUR), "BMP"),
    encoded(Image.fromarray(COLOUR), "GIF"),
    encoded(Image.fromarray(COLOUR), "WEBP"),
    encoded(Image.fromarray(COLOUR), "WEBP", lossless=True, exif=oriented(8)),
    encoded(Image.fromarray(COLOUR), "PPM"),
    b"P2 3 2 15\n# grey\n0 1 2\n3 4 15\n",
]


def outcome(data: bytes, page: int = 0) -> None:
    """A picture or one of the two errors; anything else fails the test."""
    result: Picture | ImageError
    try:
        result = read(data, Limits(max_pixels=100_000), page=page)
    except (UnreadableImage, ImageTooLarge) as error:
        result = error
    if isinstance(result, ImageError):
        assert str(result).isprintable()
        assert "<bytes>" in result.message
        assert result.hint
        assert result.exit_code == 3
    else:
        assert result.pixels_HW3.dtype == np.uint8
        assert result.pixels_HW3.shape == (result.height, result.width, 3)
        assert 0 < result.height * result.width <= 100_000


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_every_truncation(seed: int) -> None:
    data = SEEDS[seed]
    assert isinstance(read(data), Picture)
    for length in sorted({*range(min(len(data), 64)), *range(0, len(data), 17)}):
        outcome(data[:length])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
    in_header=st.booleans(),
    cut=st.one_of(st.none(), st.integers(0, 2000)),
    page=st.integers(0, 3),
)
def test_flipped_bits(data: bytes, flips: list[tuple[int, int]], in_header: bool, cut: int | None, page: int) -> None:
    damaged = bytearray(data)
    for at, value in flips:
        damaged[at % (min(len(damaged), 128) if in_header else len(damaged))] ^= value
    outcome(bytes(damaged[:cut]), page)


@settings(max_examples=100, deadline=None)
@given(start=st.sampled_from([seed[:16] for seed in SEEDS] + [b""]), rest=st.binary(max_size=300))
@pytest.mark.filterwarnings("ignore")
def test_noise_behind_a_true_start(start: bytes, rest: bytes) -> None:
    outcome(start + rest)


def test_truncated_files_say_so(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM"):
        path = tmp_path / f"half.{kind.lower()}"
        noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        data = encoded(noise, kind)
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(UnreadableImage, match=rf"half\.{kind.lower()}") as caught:
            read(path)
        assert isinstance(caught.value, ImageError)
        assert "damaged or incomplete" in caught.value.hint
