"""The way back from a view's cell to image pixels, and where a view shows padding instead of picture.

Three frames: *image* (the picture as read), *capped* (after the cap on the long side) and *canvas* (the capped
picture resized into ``content_box``, the rest padding). The base view shows the whole capped picture, squashed; crop
k >= 1 shows the canvas square at row (k - 1) // columns, column (k - 1) % columns. Without a grid, ``grid_wh`` =
(0, 0), the only view shows the whole canvas, squashed (multi-image input; a picture that needs no crop).

All sizes are (width, height), all boxes (x0, y0, x1, y1); x1, y1 are exclusive, coordinates count from pixel edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Size = tuple[int, int]
Box = tuple[int, int, int, int]
FloatBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Geometry:
    """How one picture became views. ``content_box`` lies on the canvas; ``grid_wh`` = (columns, rows) of crops."""

    image_wh: Size
    capped_wh: Size
    canvas_wh: Size
    content_box: Box
    grid_wh: tuple[int, int]
    base_size: int

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.content_box
        if min(*self.image_wh, *self.capped_wh, *self.canvas_wh, self.base_size) < 1:
            raise ValueError("sizes must be >= 1")
        if not (0 <= x0 < x1 <= self.canvas_wh[0] and 0 <= y0 < y1 <= self.canvas_wh[1]):
            raise ValueError("content_box must be a non-empty box on the canvas")
        columns, rows = self.grid_wh
        crops_fit = self.canvas_wh == (columns * self.base_size, rows * self.base_size)
        if self.grid_wh != (0, 0) and not crops_fit:
            raise ValueError("canvas_wh must be grid_wh x base_size, unless grid_wh is (0, 0)")

    @property
    def views(self) -> int:
        """N, the number of views, base view included."""
        return 1 + self.grid_wh[0] * self.grid_wh[1]

    def to_image(self, view: int) -> FloatBox:
        """(scale_x, scale_y, offset_x, offset_y): image coordinate = view coordinate x scale + offset."""
        window, content = self._frames(view)
        image_w, image_h = self.image_wh
        per_x, per_y = image_w / (content[2] - content[0]), image_h / (content[3] - content[1])
        scale_x = (window[2] - window[0]) / self.base_size * per_x
        scale_y = (window[3] - window[1]) / self.base_size * per_y
        return scale_x, scale_y, (window[0] - content[0]) * per_x, (window[1] - content[1]) * per_y

    def content_in_view(self, view: int) -> FloatBox:
        """Box in view pixels that shows picture; the rest is padding. (0, 0, 0, 0) when the view is all padding."""
        window, content = self._frames(view)
        scale_x, scale_y = self.base_size / (window[2] - window[0]), self.base_size / (window[3] - window[1])
        x0, x1 = (min(max((x - window[0]) * scale_x, 0.0), self.base_size) for x in (content[0], content[2]))
        y0, y1 = (min(max((y - window[1]) * scale_y, 0.0), self.base_size) for y in (content[1], content[3]))
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else (0.0, 0.0, 0.0, 0.0)

    def content_share(self, cells_hw: tuple[int, int], patch: float | None = None) -> npt.NDArray[np.float32]:
        """(N, rows, columns) float32 in 0..1: how much of each view's each cell shows picture rather than padding.

        ``patch``: side of a cell in view pixels; None = the cells span the view evenly.
        """
        rows, columns = cells_hw
        height, width = (self.base_size if patch is None else cells * patch for cells in cells_hw)
        share_Nhw = np.empty((self.views, rows, columns), np.float32)
        for view in range(self.views):
            x0, y0, x1, y1 = self.content_in_view(view)
            share_Nhw[view] = np.outer(_overlap(y0, y1, rows, height), _overlap(x0, x1, columns, width))
        return share_Nhw

    def _frames(self, view: int) -> tuple[Box, Box]:
        """(what the view shows, where the picture lies), both in one frame: capped pixels or canvas pixels."""
        if not 0 <= view < self.views:
            raise IndexError(f"view {view} of {self.views}")
        columns = self.grid_wh[0]
        if view == 0 and columns:
            whole = (0, 0, *self.capped_wh)
            return whole, whole
        if view == 0:
            return (0, 0, *self.canvas_wh), self.content_box
        row, column = divmod(view - 1, columns)
        left, top = column * self.base_size, row * self.base_size
        return (left, top, left + self.base_size, top + self.base_size), self.content_box


def _overlap(start: float, end: float, cells: int, size: float) -> npt.NDArray[np.float64]:
    """Share of each of ``cells`` equal cells on 0..size that start..end covers."""
    edges = np.linspace(0, size, cells + 1)
    covered = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    share: npt.NDArray[np.float64] = np.maximum(covered, 0) * (cells / size)
    return share
