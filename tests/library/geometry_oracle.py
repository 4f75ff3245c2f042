"""Where a cell of a view lies in the picture, cell by cell; the tests compare whole grids with it."""

from __future__ import annotations

from anomaly_ov.images.geometry import FloatBox, Geometry


def cell_box(geometry: Geometry, view: int, row: int, column: int, cells_hw: tuple[int, int]) -> FloatBox:
    """Box in image pixels that a cell of a view shows; ``cells_hw`` = (rows, columns) of cells spanning the view.

    Not clipped: what lies outside 0..width, 0..height is padding.
    """
    rows, columns = cells_hw
    scale_x, scale_y, offset_x, offset_y = geometry.to_image(view)
    cell_w, cell_h = geometry.base_size / columns * scale_x, geometry.base_size / rows * scale_y
    x0, y0 = column * cell_w + offset_x, row * cell_h + offset_y
    return x0, y0, x0 + cell_w, y0 + cell_h
