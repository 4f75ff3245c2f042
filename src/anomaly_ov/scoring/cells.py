"""The cells of one image at two scales: the image as a whole (base view) and in detail (crops).

The base view's cells see what is around them; the crops' show the image at its own resolution, where a small defect
fills a cell. Neither does the other's work, so evidence is found at both and met in one map. An image whose only crop
shows what its base view shows has no crops here.

Legend: N views, h w cells of a view, Q cells of the base view that show image, P cells of the crops that do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.scoring.anomaly_map import beneath

A = TypeVar("A")
B = TypeVar("B")
Floats = npt.NDArray[np.float32]

SHOWN = 0.5
"""A cell counts when at least this share of it shows image rather than padding."""


@dataclass(frozen=True)
class Scales(Generic[A]):
    """The same thing of the image as a whole (base view) and in detail (crops)."""

    whole: A
    detail: A

    def map(self, change: Callable[[A], B]) -> Scales[B]:
        """``change`` applied to both."""
        return Scales(change(self.whole), change(self.detail))


@dataclass(frozen=True)
class Cells:
    """Where the cells of one image lie. ``shown_Nhw``: which of them show image; ``patch``: side of a cell in view
    pixels, None = the cells span the view evenly.
    """

    shown_Nhw: npt.NDArray[np.bool_]
    geometry: Geometry
    patch: float | None = None

    @classmethod
    def of(cls, geometry: Geometry, grid_hw: tuple[int, int], patch: float | None = None) -> Cells:
        """Cells on a grid of (rows, columns) a view."""
        share_Nhw = geometry.content_share(grid_hw, patch)
        shown_Nhw = share_Nhw >= SHOWN
        for views in (slice(0, 1), slice(1, None)):
            if shown_Nhw[views].size and not shown_Nhw[views].any():
                # A strip thinner than half a cell: the cells that show most of it.
                shown_Nhw[views] = share_Nhw[views] >= share_Nhw[views].max()
        return cls(shown_Nhw, geometry, patch)

    def split(self, values_NhwX: npt.NDArray[np.float32]) -> Scales[Floats]:
        """Values of the shown cells: (Q, ...) of the base view and (P, ...) of the crops, row by row within a view."""
        return Scales(
            values_NhwX[:1][self.shown_Nhw[:1]],
            values_NhwX[1:][self.shown_Nhw[1:]],
        )

    def joined(self, values: Scales[Floats]) -> Floats:
        """The way back: (N, h, w), 0 where no image is shown."""
        values_Nhw = np.zeros(self.shown_Nhw.shape, np.float32)
        values_Nhw[:1][self.shown_Nhw[:1]] = values.whole
        values_Nhw[1:][self.shown_Nhw[1:]] = values.detail
        return values_Nhw

    def beneath(self, whole_Q: Floats) -> Floats:
        """(P,): values of the base view's cells at the places of the crops' cells."""
        base_hw = np.zeros(self.shown_Nhw.shape[1:], np.float32)
        base_hw[self.shown_Nhw[0]] = whole_Q
        return beneath(base_hw, self.geometry, self.patch)[self.shown_Nhw[1:]]

    def stitched(self) -> npt.NDArray[np.int64]:
        """(P, 2): row and column of each shown crop cell on the grid of all crops together, in the order of ``split``.

        A view without crops has none.
        """
        view_P, row_P, column_P = np.nonzero(self.shown_Nhw[1:])
        h, w = self.shown_Nhw.shape[1:]
        columns = max(1, self.geometry.grid_wh[0])
        places_P2 = np.stack([view_P // columns * h + row_P, view_P % columns * w + column_P], axis=1)
        return np.asarray(places_P2, np.int64)
