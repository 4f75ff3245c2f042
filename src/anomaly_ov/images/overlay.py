"""One picture that shows what was found: left the picture, right the same under its map, below a legend and captions.

The colours stand for absolute values 0..1, the same in every overlay: the higher, the lighter and the less
transparent. Under the map the picture is grey, so that every colour seen is the map's. Regions are outlined as they
are, not boxed, and the first 20 numbered in their order.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from anomaly_ov.errors import UsageError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.colours import palette
from anomaly_ov.records import LEVEL_BOUNDS, Region

# Room for one panel, (width, height): with margins, legend and captions no sheet exceeds 1600 pixels.
ROOM_BESIDE, ROOM_STACKED = (768, 1200), (1560, 560)
MAX_LINES, MAX_CAPTION = 8, 2000
MAX_NUMBERS = 20
MIN_LONG_SIDE = 384
MIN_SHORT_SIDE = 8
MIN_WIDTH = 480
STACK_ABOVE = 2.2
STRONGEST, OPACITY_POWER = 0.9, 0.75
GREY_LOW, GREY_HIGH = 32, 200
PAPER, INK, SOFT_INK, MARK, FRAME = (255, 255, 255), (24, 24, 27), (113, 113, 122), (255, 255, 255), (212, 212, 216)

Pixels = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def overlay(
    pixels_HW3: Pixels,
    map_HW: npt.NDArray[np.float32],
    regions: Sequence[Region] = (),
    threshold: float | None = None,
    caption: str | Sequence[str] = (),
) -> Image.Image:
    """RGB image, at most 1600 pixels on its long side.

    ``pixels_HW3``: the picture, uint8 RGB. ``map_HW``: values 0..1 over the whole picture, at any resolution.
    ``regions``: in pixels of the picture. ``threshold``: of the map, marked on the legend. ``caption``: lines of
    text, wrapped where needed, at most 8 in all. Very wide pictures are shown one above the other instead of side by
    side. Raises UsageError for arrays of other shapes.
    """
    _check(pixels_HW3, map_HW)
    look = _Look.of(pixels_HW3.shape[1], pixels_HW3.shape[0])
    picture = Image.fromarray(pixels_HW3).resize(look.panel_wh, Image.Resampling.BICUBIC, reducing_gap=2.0)
    seen = _outlined(coloured(picture, map_HW), regions, pixels_HW3.shape[:2], look)

    width = max(look.panels_wh[0] + 2 * look.margin, MIN_WIDTH)
    lines = [caption] if isinstance(caption, str) else list(caption)
    wrapped = [part for line in lines for part in _wrapped(line, look.font, width - 2 * look.margin)]
    if len(wrapped) > MAX_LINES:
        wrapped[MAX_LINES - 1 :] = ["..."]
    height = look.panels_wh[1] + look.legend_height + len(wrapped) * look.line + 3 * look.margin
    sheet = Image.new("RGB", (width, height), PAPER)
    left = (width - look.panels_wh[0]) // 2
    for panel, x, y in ((picture, left, look.margin), (seen, left + look.step_xy[0], look.margin + look.step_xy[1])):
        sheet.paste(panel, (x, y))
        ImageDraw.Draw(sheet).rectangle((x - 1, y - 1, x + panel.width, y + panel.height), outline=FRAME)
    top = look.panels_wh[1] + 2 * look.margin
    _draw_legend(sheet, top, threshold, look)
    draw = ImageDraw.Draw(sheet)
    for index, line in enumerate(wrapped):
        draw.text((look.margin, top + look.legend_height + index * look.line), line, INK, look.font)
    return sheet


def save_png(image: Image.Image, path: str | Path) -> None:
    """Writes ``image`` as PNG, whole or not at all. Raises UsageError where the file cannot be written."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    write_atomic(path, buffer.getvalue())


@dataclass(frozen=True)
class _Look:
    """Sizes of one sheet, in pixels. ``step_xy``: from the left (upper) panel's corner to the other's."""

    panel_wh: tuple[int, int]
    panels_wh: tuple[int, int]
    step_xy: tuple[int, int]
    margin: int
    stroke: int
    line: int
    legend_height: int
    font: Font
    small: Font

    @classmethod
    def of(cls, width: int, height: int) -> _Look:
        stacked = width > STACK_ABOVE * height
        room_w, room_h = ROOM_STACKED if stacked else ROOM_BESIDE
        scale = min(room_w / width, room_h / height, max(1.0, MIN_LONG_SIDE / max(width, height)))
        # A strip of one pixel is stretched until it can be seen.
        panel_w = min(max(round(width * scale), MIN_SHORT_SIDE), room_w)
        panel_h = min(max(round(height * scale), MIN_SHORT_SIDE), room_h)
        letters = min(max(13, max(panel_w, panel_h) // 38), 20)
        gap = margin = letters
        step = (0, panel_h + gap) if stacked else (panel_w + gap, 0)
        return cls(
            panel_wh=(panel_w, panel_h),
            panels_wh=(panel_w + step[0], panel_h + step[1]),
            step_xy=step,
            margin=margin,
            stroke=max(1, round(min(max(panel_w, panel_h) / 450, min(panel_w, panel_h) / 120))),
            line=round(letters * 1.45),
            legend_height=round(letters * 4.6),
            font=ImageFont.load_default(size=letters),
            small=ImageFont.load_default(size=max(12, round(letters * 0.85))),
        )


def _check(pixels_HW3: Pixels, map_HW: npt.NDArray[np.float32]) -> None:
    if pixels_HW3.dtype != np.uint8 or pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3 or not pixels_HW3.size:
        raise UsageError(
            f"an overlay needs a picture of shape (H, W, 3) and type uint8, got {pixels_HW3.shape} {pixels_HW3.dtype}",
            hint="read the picture with anomaly_ov.images.read first",
        )
    if map_HW.ndim != 2 or not map_HW.size:
        raise UsageError(f"an overlay needs a map of shape (H, W), got {map_HW.shape}", hint="give a finding's map")


def coloured(picture: Image.Image, map_HW: npt.NDArray[np.float32]) -> Image.Image:
    """The picture in grey under the map's colours, at its own size. ``map_HW``: values 0..1, at any resolution."""
    values = Image.fromarray(np.ascontiguousarray(map_HW, np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    value_HW = np.nan_to_num(np.clip(np.asarray(values), 0, 1))
    # Neither white nor black, so that lightness is left to the map.
    grey_HW = np.rint(GREY_LOW + np.asarray(picture.convert("L")) * ((GREY_HIGH - GREY_LOW) / 255)).astype(np.uint8)
    return Image.fromarray(_blended(grey_HW, value_HW))


def _blended(grey_HW: Pixels, value_HW: npt.NDArray[np.floating]) -> Pixels:
    """(H, W, 3): the colour of each value over grey, the more opaque the higher the value."""
    colour_HW3 = palette()[np.rint(value_HW * 255).astype(np.uint8)]
    opacity_HW1 = (STRONGEST * value_HW**OPACITY_POWER)[..., None].astype(np.float32)
    blended_HW3: Pixels = np.rint(grey_HW[..., None] * (1 - opacity_HW1) + colour_HW3 * opacity_HW1).astype(np.uint8)
    return blended_HW3


def _outlined(panel: Image.Image, regions: Sequence[Region], image_hw: tuple[int, ...], look: _Look) -> Image.Image:
    """White outlines with a dark rim, readable on any picture, and each region's number."""
    if not regions:
        return panel
    width, height = panel.size
    number_HW = np.zeros((height, width), np.int32)
    for number, region in enumerate(regions, 1):
        _number_region(number_HW, number, region, image_hw)
    size = 2 * look.stroke + 1
    lowest_HW = ndimage.minimum_filter(number_HW, size, mode="constant", cval=0)
    highest_HW = ndimage.maximum_filter(number_HW, size, mode="constant", cval=0)
    pixels_HW3 = np.array(panel)
    pixels_HW3[(number_HW == 0) & (highest_HW > 0)] = INK
    pixels_HW3[(number_HW > 0) & (lowest_HW != highest_HW)] = MARK
    panel = Image.fromarray(pixels_HW3)
    draw = ImageDraw.Draw(panel)
    for number, region in enumerate(regions[:MAX_NUMBERS], 1):
        _draw_number(draw, str(number), region, (width / image_hw[1], height / image_hw[0]), look)
    return panel


def _number_region(number_HW: npt.NDArray[np.int32], number: int, region: Region, image_hw: tuple[int, ...]) -> None:
    """Writes ``number`` where the region lies on the panel; its run lengths are read at panel pixels' centres only."""
    rows = (2 * np.arange(number_HW.shape[0]) + 1) * image_hw[0] // (2 * number_HW.shape[0])
    columns = (2 * np.arange(number_HW.shape[1]) + 1) * image_hw[1] // (2 * number_HW.shape[1])
    x0, y0, x1, y1 = region.box
    y, x = slice(*np.searchsorted(rows, (y0, y1))), slice(*np.searchsorted(columns, (x0, x1)))
    place = columns[x][None, :] * image_hw[0] + rows[y][:, None]
    inside = np.searchsorted(np.cumsum(region.rle["counts"]), place, side="right") % 2 == 1
    number_HW[y, x][inside] = number


def _draw_number(
    draw: ImageDraw.ImageDraw, text: str, region: Region, scale_xy: tuple[float, float], look: _Look
) -> None:
    """The number on a plate off the region's top left corner, moved to lie within the panel."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=look.small)
    plate_w, plate_h = right - left + 8, bottom - top + 6
    x = min(max(region.box[0] * scale_xy[0] - plate_w, 1), max(1, look.panel_wh[0] - plate_w - 1))
    y = min(max(region.box[1] * scale_xy[1] - plate_h, 1), max(1, look.panel_wh[1] - plate_h - 1))
    draw.rounded_rectangle((x, y, x + plate_w, y + plate_h), 3, fill=INK, outline=MARK)
    draw.text((x + 4 - left, y + 3 - top), text, MARK, look.small)


def _draw_legend(sheet: Image.Image, top: int, threshold: float | None, look: _Look) -> None:
    """Bar of the colours as they appear over mid-grey, ticks below at the bounds of the levels, threshold above."""
    draw = ImageDraw.Draw(sheet)
    left, right = look.margin, sheet.width - look.margin
    bar_top, bar_h = top + look.line, round(look.line * 0.6)
    value_1W = np.linspace(0, 1, right - left)[None]
    bar = Image.fromarray(_blended(np.full(value_1W.shape, (GREY_LOW + GREY_HIGH) // 2, np.uint8), value_1W))
    sheet.paste(bar.resize((right - left, bar_h)), (left, bar_top))
    draw.rectangle((left - 1, bar_top - 1, right, bar_top + bar_h), outline=SOFT_INK)

    foot = bar_top + bar_h
    for tick in (0.0, *LEVEL_BOUNDS, 1.0):
        x = left + tick * (right - left - 1)
        draw.line((x, foot, x, foot + 4), SOFT_INK)
        anchor = "la" if tick == 0 else "ra" if tick == 1 else "ma"
        draw.text((x, foot + 5), f"{tick:g}", SOFT_INK, look.small, anchor=anchor)
    draw.text((left, top), "suspicion", SOFT_INK, look.small)
    if threshold is not None:
        _draw_threshold(draw, threshold, (left, right), bar_top, bar_h, look)


def _draw_threshold(
    draw: ImageDraw.ImageDraw, threshold: float, ends: tuple[int, int], bar_top: int, bar_h: int, look: _Look
) -> None:
    x = ends[0] + min(max(threshold, 0), 1) * (ends[1] - ends[0] - 1)
    draw.line((x, bar_top - 2, x, bar_top + bar_h), INK, 2)
    draw.polygon([(x - 5, bar_top - 7), (x + 5, bar_top - 7), (x, bar_top - 1)], INK)
    text = f"threshold {threshold:.2f}"
    wide = draw.textlength(text, look.small)
    clear_of_title = ends[0] + draw.textlength("suspicion  ", look.small)
    place = x + 9 if x + 9 + wide <= ends[1] else x - 9 - wide
    draw.text((max(place, clear_of_title), bar_top - look.line), text, INK, look.small)


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """``text`` in lines no wider than ``width``, broken at spaces, or within a word that fits no line."""
    lines, line = [], ""
    for word in text[:MAX_CAPTION].split():
        joined = f"{line} {word}".strip()
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width and len(word) > 1:
            fits = _fitting(word, font, width)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line else lines


def _fitting(word: str, font: Font, width: int) -> int:
    """How many letters of ``word`` fit, at least one; found by halving, for a word may be very long."""
    fits, beyond = 1, len(word)
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (middle, beyond) if font.getlength(word[:middle]) <= width else (fits, middle)
    return fits
