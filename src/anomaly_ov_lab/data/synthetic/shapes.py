"""Random soft masks in a window of the picture: blobs, strokes, polygons, speckle.

A ``Window`` is the part of the picture an edit may touch, with pixel coordinates relative to its centre, so that the
cost of a defect follows its size. Masks are float32 in 0..1, shaped like the window, and are exactly 0 on the
window's border unless that border is the picture's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between, blur, fractal_window

Point = tuple[float, float]
OVERSAMPLING = 3


@dataclass(frozen=True)
class Window:
    """Rows and columns of the picture, and each pixel's offset from ``centre`` (row, column)."""

    rows: slice
    columns: slice
    centre: Point
    y_hw: Array
    x_hw: Array
    size: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def rim(self, width: float = 2.0) -> Array:
        """1 inside, falling to 0 at the window's border, except where that border is the picture's own."""
        height, breadth = self.shape
        margin = np.full((height, breadth), np.inf, dtype=np.float32)
        lines = np.arange(height, dtype=np.float32)[:, None], np.arange(breadth, dtype=np.float32)[None, :]
        for line, part, count in ((lines[0], self.rows, height), (lines[1], self.columns, breadth)):
            if part.start > 0:
                margin = np.minimum(margin, line)
            if part.stop < self.size:
                margin = np.minimum(margin, count - 1 - line)
        rim: Array = np.clip(margin / np.float32(width), 0, 1)
        return rim


def window(size: int, centre: Point, half: float) -> Window:
    """The square of half-side ``half`` pixels about ``centre``, cut at the picture's border."""
    cy, cx = centre
    top, left = max(0, int(cy - half)), max(0, int(cx - half))
    bottom, right = min(size, int(cy + half) + 2), min(size, int(cx + half) + 2)
    y = (np.arange(top, bottom, dtype=np.float32) - np.float32(cy))[:, None]
    x = (np.arange(left, right, dtype=np.float32) - np.float32(cx))[None, :]
    shape = (bottom - top, right - left)
    return Window(
        slice(top, bottom), slice(left, right), centre, np.broadcast_to(y, shape), np.broadcast_to(x, shape), size
    )


def ramp(signed_px: Array, softness: float) -> Array:
    """Smooth step from 0 (outside, negative) to 1 (inside) over ``softness`` pixels about zero."""
    t: Array = np.clip(signed_px / np.float32(max(softness, 0.5)) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def blob(
    rng: Rng, area: Window, radius: float, softness: float, ragged: float = 0.25, stretch: float | None = None
) -> Array:
    """A star-shaped blob: an ellipse whose outline waves; ``ragged`` 0 gives an ellipse, 0.6 a splash."""
    angle = between(rng, 0, np.pi)
    ratio = between(rng, 1.0, 2.2) if stretch is None else stretch
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (area.x_hw * cos + area.y_hw * sin) / np.float32(np.sqrt(ratio))
    v = (area.y_hw * cos - area.x_hw * sin) * np.float32(np.sqrt(ratio))
    distance = np.sqrt(u * u + v * v)
    outline: Array | np.float32 = np.float32(1)
    if ragged > 0:
        theta = np.arctan2(v, u)
        for k in range(2, 7):
            weight = np.float32(ragged * rng.normal() / k)
            outline = outline + weight * np.cos(np.float32(k) * theta + np.float32(rng.uniform(0, 2 * np.pi)))
        if ragged > 0.3:
            outline = outline + np.float32(0.25 * ragged) * fractal_window(rng, *area.shape, slope=1.5)
    mask = ramp(np.float32(radius) * outline - distance, softness)
    return mask * area.rim()


def polygon(area: Window, corners: Sequence[Point], softness: float = 1.0) -> Array:
    """A filled polygon; corners are (y, x) offsets from the window's centre."""
    return _draw(area, [(list(corners), 0.0)], softness)


def strokes(area: Window, lines: Sequence[tuple[Sequence[Point], float]], softness: float = 0.0) -> Array:
    """Polylines of (y, x) offsets, each with its width in pixels, antialiased, then blurred by ``softness``."""
    return _draw(area, [(list(points), width) for points, width in lines], softness)


def _draw(area: Window, lines: list[tuple[list[Point], float]], softness: float) -> Array:
    height, width = area.shape
    canvas = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    y0, x0 = area.centre[0] - area.rows.start, area.centre[1] - area.columns.start
    for points, thickness in lines:
        pixels = [((x + x0 + 0.5) * OVERSAMPLING, (y + y0 + 0.5) * OVERSAMPLING) for y, x in points]
        if thickness <= 0:
            pen.polygon(pixels, fill=255)
        else:
            pen.line(pixels, fill=255, width=max(1, round(thickness * OVERSAMPLING)), joint="curve")
    small = canvas.resize((width, height), Image.Resampling.BOX)
    mask = np.asarray(small, dtype=np.float32) / np.float32(255)
    return np.clip(blur(mask, softness), 0, 1) * area.rim()


def wander(rng: Rng, start: Point, angle: float, length: float, step: float, turn: float) -> list[Point]:
    """A path of ``length`` pixels whose heading drifts by ``turn`` radians (deviation) per step."""
    count = max(2, round(length / step))
    headings = angle + np.cumsum(rng.normal(0, turn, count))
    ys = start[0] + np.concatenate([[0.0], np.cumsum(np.sin(headings) * step)])
    xs = start[1] + np.concatenate([[0.0], np.cumsum(np.cos(headings) * step)])
    return list(zip(ys.tolist(), xs.tolist(), strict=True))


def speckle(rng: Rng, area: Window, envelope_hw: Array, cover: float, slope: float) -> Array:
    """Grains inside ``envelope_hw``: thresholded noise that keeps about ``cover`` of it."""
    field = fractal_window(rng, *area.shape, slope=slope)
    level = np.float32(np.quantile(field, 1 - min(max(cover, 0.02), 0.98)))
    grains: Array = np.clip((field - level) * np.float32(2.5) + np.float32(0.5), 0, 1)
    return grains * envelope_hw
