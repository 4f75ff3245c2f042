"""One map in image pixels, blended from the maps of all views, and a score read from it.

Each view's map holds one value per cell. The base view's cells and the crops' cells (stitched to one grid over the
canvas, so crop borders leave no seam) are each interpolated linearly between cell centres to the pixels of the capped
picture, then averaged. Beyond the outermost centres the value stays that of the nearest cell. Cells that show mostly
padding take no part. Nothing is stretched per picture. Interpolation is linear in the cells and separable, hence two
small matrix products.

Shapes: N views, h w cells of one view, r c cells of a stitched grid, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.geometry import Geometry

Floats = npt.NDArray[np.float32]

BASE_WEIGHT = 0.5


@dataclass(frozen=True)
class _Axis:
    """Cells along one axis of a layer that show picture: centres in 0..1 of the picture's extent, and their place."""

    centres: npt.NDArray[np.float64]
    cells: slice


@dataclass(frozen=True)
class _Layer:
    """A grid of cells laid over the whole picture: the base view's, or that of all crops together."""

    values_rc: Floats
    rows: _Axis
    columns: _Axis
    weight: float


def significance_map(
    maps_Nhw: npt.NDArray[np.floating],
    geometry: Geometry,
    *,
    base_weight: float = BASE_WEIGHT,
    patch: float | None = None,
) -> Floats:
    """``blended_pixels`` of probability maps, 0..1."""
    blended_HW = blended_pixels(maps_Nhw, geometry, base_weight=base_weight, patch=patch)
    # Sums of float32 weights may leave 0..1 by a rounding error.
    return np.clip(blended_HW, 0, 1, out=blended_HW)


def blended_pixels(
    maps_Nhw: npt.NDArray[np.floating],
    geometry: Geometry,
    *,
    base_weight: float = BASE_WEIGHT,
    patch: float | None = None,
) -> Floats:
    """(H, W) float32 on the pixels of the capped picture (``geometry.capped_wh``).

    ``maps_Nhw``: one map per view, base view first. ``base_weight``: share of the base view, the crops have the rest.
    ``patch``: side of a cell in view pixels; None = the cells span the view evenly (give it where patches leave a rim:
    27 x 14 of 384). Raises UsageError for maps of another shape or holding NaN.
    """
    width, height = geometry.capped_wh
    return _blend(_layers(maps_Nhw, geometry, base_weight, patch), height, width)


def blended_cells(
    maps_Nhw: npt.NDArray[np.floating],
    geometry: Geometry,
    *,
    base_weight: float = BASE_WEIGHT,
    patch: float | None = None,
) -> Floats:
    """The same blend at the resolution of its finest layer: float32, one value per cell that shows picture.

    Its shape is the map's native resolution (rows, columns), as published in a finding's ``map.grid``.
    """
    layers = _layers(maps_Nhw, geometry, base_weight, patch)
    rows = max(len(layer.rows.centres) for layer in layers)
    columns = max(len(layer.columns.centres) for layer in layers)
    return _blend(layers, rows, columns)


def beneath(values_hw: Floats, geometry: Geometry, patch: float | None = None) -> Floats:
    """(V, h, w): values of the base view's cells (h, w) at the places of the crops' cells, linearly between the cells.

    V crops; zero where a crop's cell shows mostly padding, and no crops at all for an image of one view.
    """
    h, w = values_hw.shape
    columns, rows = geometry.grid_wh
    if not columns:
        return np.empty((0, h, w), np.float32)
    maps_Nhw = np.broadcast_to(values_hw, (geometry.views, h, w))
    base, crops = _layers(maps_Nhw, geometry, 1.0, patch)
    down, across = (
        _interpolation(found.centres, known)
        for found, known in ((crops.rows, base.rows), (crops.columns, base.columns))
    )
    stitched_rc = np.zeros((rows * h, columns * w), np.float32)
    stitched_rc[crops.rows.cells, crops.columns.cells] = (
        down @ base.values_rc[base.rows.cells, base.columns.cells] @ across.T
    )
    return stitched_rc.reshape(rows, h, columns, w).transpose(0, 2, 1, 3).reshape(-1, h, w)


def to_image_pixels(map_HW: Floats, image_wh: tuple[int, int]) -> Floats:
    """The map on the pixels of the picture itself (``image_wh``), bilinearly; unchanged where no cap applied."""
    height, width = map_HW.shape
    if (width, height) == image_wh:
        return map_HW
    image = Image.fromarray(np.ascontiguousarray(map_HW, np.float32))
    return np.asarray(image.resize(image_wh, Image.Resampling.BILINEAR))


def map_score(map_HW: Floats, top: float) -> float:
    """Mean of the highest values of the map, a fraction ``top`` in (0, 1] of all, at least one pixel."""
    if not 0 < top <= 1:
        raise UsageError(f"top = {top} is no fraction of a map", hint="give a number in (0, 1]")
    values = map_HW.ravel()
    count = max(1, round(top * values.size))
    if count == 1:
        return float(values.max())
    return float(np.partition(values, values.size - count)[values.size - count :].mean(dtype=np.float64))


def _layers(
    maps_Nhw: npt.NDArray[np.floating], geometry: Geometry, base_weight: float, patch: float | None
) -> list[_Layer]:
    maps_Nhw = np.asarray(maps_Nhw, np.float32)
    if maps_Nhw.ndim != 3 or len(maps_Nhw) != geometry.views or not maps_Nhw.size:
        raise UsageError(
            f"maps of shape {maps_Nhw.shape} do not belong to {geometry.views} views",
            hint="give one (rows, columns) map per view, base view first",
        )
    if not np.isfinite(maps_Nhw).all():
        raise UsageError("a view's map holds NaN or infinity", hint="run the model in float32 and report the picture")
    if not 0 <= base_weight <= 1:
        raise UsageError(f"base_weight = {base_weight} is no share", hint="give a number in 0..1")
    (columns, rows), base = geometry.grid_wh, geometry.base_size
    h, w = maps_Nhw.shape[1:]
    x0, y0, x1, y1 = geometry.content_box
    if not columns:
        # The only view shows the whole canvas squashed: the content's place shrinks with it.
        shrink_x, shrink_y = base / geometry.canvas_wh[0], base / geometry.canvas_wh[1]
        row_axis = _axis(h, 1, base, patch, y0 * shrink_y, y1 * shrink_y)
        column_axis = _axis(w, 1, base, patch, x0 * shrink_x, x1 * shrink_x)
        return [_Layer(maps_Nhw[0], row_axis, column_axis, 1.0)]
    whole_rows, whole_columns = _axis(h, 1, base, patch, 0, base), _axis(w, 1, base, patch, 0, base)
    stitched_rc = maps_Nhw[1:].reshape(rows, columns, h, w).transpose(0, 2, 1, 3).reshape(rows * h, columns * w)
    crop_rows, crop_columns = _axis(h, rows, base, patch, y0, y1), _axis(w, columns, base, patch, x0, x1)
    return [
        _Layer(maps_Nhw[0], whole_rows, whole_columns, base_weight),
        _Layer(stitched_rc, crop_rows, crop_columns, 1 - base_weight),
    ]


def _axis(cells: int, views: int, base: int, patch: float | None, start: float, end: float) -> _Axis:
    """The cells of ``views`` views in a row that show mostly picture, which lies at ``start``..``end`` of the row.

    A picture thinner than a cell keeps the one cell that shows most of it.
    """
    side = base / cells if patch is None else patch
    if not 0 < side * cells <= base * (1 + 1e-9):
        raise UsageError(f"{cells} cells of {side} pixels exceed a view of {base}", hint="correct the patch size")
    lower = (np.arange(views)[:, None] * base + np.arange(cells) * side).ravel()
    covered = np.minimum(lower + side, end) - np.maximum(lower, start)
    shown = np.flatnonzero(covered >= side / 2)
    first, last = (shown[0], shown[-1]) if shown.size else (covered.argmax(),) * 2
    kept = slice(int(first), int(last) + 1)
    return _Axis((lower[kept] + side / 2 - start) / (end - start), kept)


def _blend(layers: list[_Layer], height: int, width: int) -> Floats:
    """All layers interpolated to (height, width) and added by weight."""
    down = np.concatenate([_interpolation(_pixels(height), layer.rows) for layer in layers], axis=1)
    across_w = _pixels(width)
    across = [
        (layer.weight * layer.values_rc[layer.rows.cells, layer.columns.cells])
        @ _interpolation(across_w, layer.columns).T
        for layer in layers
    ]
    blended_HW: Floats = down @ np.concatenate(across)
    return blended_HW


def _pixels(count: int) -> npt.NDArray[np.float64]:
    """Centres of so many pixels in 0..1 of the picture's extent."""
    return np.asarray((np.arange(count) + 0.5) / count)


def _interpolation(wanted: npt.NDArray[np.float64], axis: _Axis) -> Floats:
    """(places, cells) matrix of linear interpolation from cell centres to ``wanted`` places; each row sums to 1."""
    count = len(axis.centres)
    weights = np.zeros((len(wanted), count), np.float32)
    if count == 1:
        weights[:] = 1
        return weights
    left = np.clip(np.searchsorted(axis.centres, wanted, side="right") - 1, 0, count - 2)
    gap = axis.centres[left + 1] - axis.centres[left]
    share = np.clip((wanted - axis.centres[left]) / gap, 0, 1)
    each = np.arange(len(wanted))
    weights[each, left] = 1 - share
    weights[each, left + 1] = share
    return weights
