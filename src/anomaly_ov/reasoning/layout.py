"""Which token stands where: the order in which the language model reads one picture. No torch.

Order of the released code (docs/reference-implementation.md, section 6), golden ``fusion/``:
``[base view] [crop rows, unpadded, newline after each row] [prompt] [global] [4 base local] [local rows + newline]``,
and for one of several pictures ``[view + newline] [prompt] [global] [4 local + newline]``. Two readings go beyond it:
``focus`` leaves the crops' tokens out, because the expert has looked there already; ``highlight`` keeps those where the
expert's map is highest, in reading order, one newline after them. How many tokens there are never depends on the map.

Legend: T tokens of the picture, N views, P = h * w patches of a view, Q = 4 quadrants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.unpad import QUERIES_SIDE, unpad

PAD, TEXT, IMAGE, NEWLINE, PROMPT, GLOBAL, LOCAL = range(7)
REDUCED = -2
"""``view`` of a token of the reduced crop grid, which belongs to no single view."""
POOLED = -3
"""``view`` of a block of the base view's cells."""
NOWHERE = -1

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """``kind_T``: one of the constants above. ``view_T``: whose token, ``cell_T``: which, row-major in its view (or in
    the reduced grid, or the quadrant, or the place in the prompt); ``NOWHERE`` where that means nothing.
    """

    kind_T: Ints
    view_T: Ints
    cell_T: Ints

    def __len__(self) -> int:
        return len(self.kind_T)


def layout(
    geometry: Geometry,
    grid_hw: tuple[int, int],
    prompt: int,
    reading: str = "full",
    max_views: int = 9,
    crop_budget: int = 0,
    pool: int = 1,
    map_Nhw: npt.NDArray[np.floating] | None = None,
) -> Layout:
    """The tokens of one picture; ``grid_hw``: patches of a view, ``prompt``: tokens of the indicative prompt.

    ``pool``: side of the blocks in which all readings but ``full`` read the base view.

    ``map_Nhw``: the expert's map, which only ``highlight`` reads; without it the first crop tokens stand in, so that
    the count is the same.
    """
    rows, columns = blocks_hw(grid_hw, pool if reading != "full" else 1)
    base = _part(IMAGE, 0 if (rows, columns) == tuple(grid_hw) else POOLED, np.arange(rows * columns))
    sentence = [_part(PROMPT, NOWHERE, np.arange(prompt)), _part(GLOBAL, 0, [0]), _part(LOCAL, 0, np.arange(4))]
    if geometry.views == 1:
        return _joined([base, _NEWLINE, *sentence, _NEWLINE])
    crops = [] if reading == "focus" else _full(geometry, grid_hw, max_views)
    if reading == "highlight":
        crops = _highlight(geometry, grid_hw, crop_budget, map_Nhw)
    return _joined([base, *crops, *sentence, *_local_rows(geometry.grid_wh)])


def blocks_hw(grid_hw: tuple[int, int], pool: int) -> tuple[int, int]:
    """Blocks of ``pool`` x ``pool`` cells that cover a view; those on the right and at the bottom may be smaller."""
    return -(-grid_hw[0] // pool), -(-grid_hw[1] // pool)


def _full(geometry: Geometry, grid_hw: tuple[int, int], max_views: int) -> list[Ints]:
    found = unpad(geometry, grid_hw, max_views)
    if found.reduced_hw is None:
        view_RC, cell_RC = stitched(geometry, grid_hw, max_views)
    else:
        cell_RC = np.arange(found.reduced_hw[0] * found.reduced_hw[1]).reshape(found.reduced_hw)
        view_RC = np.full_like(cell_RC, REDUCED)
    rows = zip(view_RC, cell_RC, strict=True)
    return [part for view_C, cell_C in rows for part in (_part(IMAGE, view_C, cell_C), _NEWLINE)]


def _highlight(
    geometry: Geometry, grid_hw: tuple[int, int], budget: int, map_Nhw: npt.NDArray[np.floating] | None
) -> list[Ints]:
    view_RC, cell_RC = stitched(geometry, grid_hw)
    view_S, cell_S = view_RC.ravel(), cell_RC.ravel()
    chosen = np.arange(min(budget, len(view_S)))
    if map_Nhw is not None:
        significance_S = map_Nhw.reshape(len(map_Nhw), -1)[view_S, cell_S]
        chosen = np.sort(np.argsort(-significance_S, kind="stable")[: len(chosen)])
    return [_part(IMAGE, view_S[chosen], cell_S[chosen]), _NEWLINE]


def stitched(geometry: Geometry, grid_hw: tuple[int, int], max_views: int = 9) -> tuple[Ints, Ints]:
    """View and cell of each crop token, (rows, columns) as they lie side by side, padding cut away, never reduced."""
    columns, rows = geometry.grid_wh
    height, width = grid_hw
    down, across = np.divmod(np.arange(rows * height), height), np.divmod(np.arange(columns * width), width)
    view_RC = 1 + down[0][:, None] * columns + across[0][None]
    cell_RC = down[1][:, None] * width + across[1][None]
    found = unpad(geometry, grid_hw, max_views)
    inner = tuple(slice(cut, cut + left) for cut, left in zip(found.offset_hw, found.unpadded_hw, strict=True))
    return view_RC[inner], cell_RC[inner]


def _local_rows(grid_wh: tuple[int, int]) -> list[Ints]:
    """The crops' local tokens as one grid, two rows and columns per crop, a newline after each row."""
    columns, rows = grid_wh
    parts = []
    for row in range(rows):
        for half in range(QUERIES_SIDE):
            for column in range(columns):
                parts.append(_part(LOCAL, 1 + row * columns + column, QUERIES_SIDE * half + np.arange(QUERIES_SIDE)))
            parts.append(_NEWLINE)
    return parts


def _part(kind: int, view: int | Ints, cells: npt.ArrayLike) -> Ints:
    """(3, n): kind, view and cell of some tokens."""
    cell_T = np.asarray(cells, np.int64)
    return np.stack([np.full(cell_T.shape, kind), np.broadcast_to(view, cell_T.shape), cell_T])


_NEWLINE = _part(NEWLINE, NOWHERE, [NOWHERE])


def _joined(parts: list[Ints]) -> Layout:
    return Layout(*np.concatenate(parts, axis=1))
