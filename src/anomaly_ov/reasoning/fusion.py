"""The embeddings that stand for pictures: every token through the projector, each at the place ``layout`` gives it.

Follows the released code (docs/reference-implementation.md, section 6): image, global and local tokens pass the
projector, the prompt comes from the language model's own embeddings, reduced crop tokens are interpolated after
projection. Tokens that are not read are not projected, and those of all pictures are projected at once.

Legend: T tokens read, S rows of the table they are taken from, N views, P patches, D width of the features, E of the
language model, K tokens of the prompt, B pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.images.unpad import unpad
from anomaly_ov.reasoning.annotation import Annotation, remarks
from anomaly_ov.reasoning.config import AnomalyOVConfig
from anomaly_ov.reasoning.evidence import Evidence
from anomaly_ov.reasoning.layout import (
    GLOBAL,
    IMAGE,
    LOCAL,
    NEWLINE,
    POOLED,
    PROMPT,
    REDUCED,
    Layout,
    blocks_hw,
    layout,
    stitched,
)

QUADRANTS = 4
MAP_FLOOR = 1e-6  # keeps a block whose map has underflowed an ordinary mean


@dataclass(frozen=True)
class _Unread:
    """What is to be projected of one picture: image tokens, the global and the local ones, with their remarks."""

    order: Layout
    cells_SD: Tensor
    cells_S3: Tensor | None
    anomaly_SD: Tensor
    anomaly_S3: Tensor | None


@dataclass(frozen=True)
class Fusion:
    """Turns evidence into embeddings. The modules belong to the language model; this only uses them."""

    config: AnomalyOVConfig
    projector: nn.Module
    annotation: Annotation | None

    def __call__(
        self, evidence: Sequence[Evidence], newline_E: Tensor, prompt_BKE: Tensor, readings: Sequence[str]
    ) -> list[Tensor]:
        """(T, E) of each picture; ``prompt_BKE``: embeddings of the indicative prompts that the scores ask for."""
        unread = [
            self._unread(one, prompt_BKE.shape[1], reading) for one, reading in zip(evidence, readings, strict=True)
        ]
        sizes = [len(part) for one in unread for part in (one.cells_SD, one.anomaly_SD)]
        projected = torch.split(self._projected(unread), sizes)
        pairs = zip(projected[::2], projected[1::2], strict=True)
        found = []
        for one, seen, prompt_KE, (cells_SE, anomaly_SE) in zip(unread, evidence, prompt_BKE, pairs, strict=True):
            reduced = bool((one.order.view_T == REDUCED).any())
            reduced_SE = self._reduced(cells_SE, seen) if reduced else cells_SE[:0]
            table = [cells_SE, reduced_SE, newline_E.unsqueeze(0), prompt_KE, anomaly_SE]
            table_SE = torch.cat([part.to(cells_SE.dtype) for part in table])
            rows_T = _rows(one.order, seen.grid_hw, [len(part) for part in table])
            found.append(table_SE.index_select(0, rows_T.to(table_SE.device)))
        return found

    def _unread(self, evidence: Evidence, prompt: int, reading: str) -> _Unread:
        config, grid_hw = self.config, evidence.grid_hw
        map_Nhw = evidence.map_Nhw.float().cpu().numpy() if reading == "highlight" else None
        counts = (config.max_views, config.crop_budget, config.focus_pool)
        order = layout(evidence.geometry, grid_hw, prompt, reading, *counts, map_Nhw)
        of_image_T = order.view_T[order.kind_T == IMAGE]
        views = len(evidence.final_NPD) if ((of_image_T > 0) | (of_image_T == REDUCED)).any() else 1
        cells_NPD = evidence.final_NPD[:views]
        cells, overall, locals_ = (None,) * 3 if self.annotation is None else remarks(evidence)
        cells_NP3 = None if cells is None else cells.reshape(len(evidence.final_NPD), -1, 3)[:views]
        anomaly_SD = torch.cat([evidence.global_D.unsqueeze(0), evidence.local_NQD.flatten(0, 1)])
        anomaly_S3 = None if overall is None or locals_ is None else torch.cat([overall, locals_])
        cells_SD, cells_S3 = cells_NPD.flatten(0, 1), None if cells_NP3 is None else cells_NP3.flatten(0, 1)
        if (order.view_T == POOLED).any():
            share_SP = _blocks(evidence.map_Nhw[0], config.focus_pool).to(cells_NPD.dtype)
            cells_SD = torch.cat([share_SP @ cells_NPD[0], cells_NPD[1:].flatten(0, 1)])
            if cells_NP3 is not None:
                cells_S3 = torch.cat([share_SP.to(cells_NP3.dtype) @ cells_NP3[0], cells_NP3[1:].flatten(0, 1)])
        return _Unread(order, cells_SD, cells_S3, anomaly_SD, anomaly_S3)

    def _projected(self, unread: Sequence[_Unread]) -> Tensor:
        weight = next(self.projector.parameters())
        tokens_SD = torch.cat([part.to(weight.dtype) for one in unread for part in (one.cells_SD, one.anomaly_SD)])
        projected_SE: Tensor = self.projector(tokens_SD)
        said = [part for one in unread for part in (one.cells_S3, one.anomaly_S3) if part is not None]
        if self.annotation is None or not said:
            return projected_SE
        said_SE: Tensor = self.annotation(torch.cat(said))
        return projected_SE + said_SE.to(projected_SE.dtype)

    def _reduced(self, cells_SE: Tensor, evidence: Evidence) -> Tensor:
        """The stitched crop tokens on their reduced grid, row-major: (rows x columns, E)."""
        found = unpad(evidence.geometry, evidence.grid_hw, self.config.max_views)
        assert found.reduced_hw is not None
        view_RC, cell_RC = stitched(evidence.geometry, evidence.grid_hw, self.config.max_views)
        patches = evidence.grid_hw[0] * evidence.grid_hw[1]
        index_RC = torch.from_numpy(view_RC * patches + cell_RC).to(cells_SE.device)
        grid_1ERC = cells_SE[index_RC].permute(2, 0, 1).unsqueeze(0)
        return F.interpolate(grid_1ERC, found.reduced_hw, mode="bilinear")[0].flatten(1).T


def _blocks(map_hw: Tensor, pool: int) -> Tensor:
    """(S, P) weights, rows summing to 1: each block's cells by the expert's map, as the selector weighs quadrants."""
    rows, columns = map_hw.shape
    down, across = blocks_hw((rows, columns), pool)
    block_P = (np.arange(rows)[:, None] // pool * across + np.arange(columns)[None] // pool).ravel()
    own_SP = torch.from_numpy(block_P[None] == np.arange(down * across)[:, None]).to(map_hw.device)
    weight_SP = own_SP * map_hw.flatten().float().clamp_min(MAP_FLOOR)
    return torch.nn.functional.normalize(weight_SP, p=1.0, dim=1)


def _rows(order: Layout, grid_hw: tuple[int, int], sizes: Sequence[int]) -> Tensor:
    """(T,) rows of the table: cells, reduced cells, newline, prompt, global and local tokens."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    kind_T, view_T, cell_T = order.kind_T, order.view_T, order.cell_T
    patches = grid_hw[0] * grid_hw[1]
    pooled = int((view_T == POOLED).sum())
    # The blocks stand in for the base view's cells, so the crops' begin earlier.
    rows_T = np.where(view_T > 0, view_T * patches + cell_T - (patches - pooled if pooled else 0), cell_T)
    rows_T = np.where(view_T == REDUCED, starts[1] + cell_T, rows_T)
    rows_T = np.where(kind_T == NEWLINE, starts[2], rows_T)
    rows_T = np.where(kind_T == PROMPT, starts[3] + cell_T, rows_T)
    rows_T = np.where(kind_T == GLOBAL, starts[4], rows_T)
    rows_T = np.where(kind_T == LOCAL, starts[4] + 1 + view_T * QUADRANTS + cell_T, rows_T)
    return torch.from_numpy(rows_T)
