"""The embeddings that stand for one picture: every token through the projector, each at the place ``layout`` gives it.

Follows the released code (reference, section 1): image, global and local tokens pass the projector, the prompt comes
from the language model's own embeddings, reduced crop tokens are interpolated after projection.

Legend: T tokens read, S rows of the table they are taken from, N views, P patches, D width of the features, E of the
language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.images.unpad import unpad
from anomaly_ov.models.reasoning.annotation import Annotation, remarks
from anomaly_ov.models.reasoning.config import AnomalyOVConfig
from anomaly_ov.models.reasoning.evidence import Evidence
from anomaly_ov.models.reasoning.layout import GLOBAL, IMAGE, LOCAL, NEWLINE, PROMPT, REDUCED, Layout, layout, stitched


@dataclass(frozen=True)
class Fusion:
    """Turns evidence into embeddings. The modules belong to the language model; this only uses them."""

    config: AnomalyOVConfig
    projector: nn.Module
    annotation: Annotation | None

    def __call__(self, evidence: Evidence, newline_E: Tensor, prompt_KE: Tensor, reading: str) -> Tensor:
        """(T, E) of one picture; ``prompt_KE``: embeddings of the indicative prompt that its score asks for."""
        config = self.config
        map_Nhw = evidence.map_Nhw.float().cpu().numpy() if reading == "highlight" else None
        order = layout(
            evidence.geometry, evidence.grid_hw, len(prompt_KE), reading, config.max_views, config.crop_budget, map_Nhw
        )
        cells, overall, locals_ = (None,) * 3 if self.annotation is None else remarks(evidence)
        # Crops that are not read are not projected either.
        views = len(evidence.final_NPD) if (order.view_T[order.kind_T == IMAGE] != 0).any() else 1
        final_SD = evidence.final_NPD[:views].flatten(0, 1)
        cells_SE = self._projected(final_SD, None if cells is None else cells[: len(final_SD)])
        reduced_SE = self._reduced(cells_SE, evidence) if (order.view_T == REDUCED).any() else cells_SE[:0]
        global_1E = self._projected(evidence.global_D.unsqueeze(0), overall)
        local_SE = self._projected(evidence.local_NQD.flatten(0, 1), locals_)
        table = [cells_SE, reduced_SE, newline_E.unsqueeze(0), prompt_KE, global_1E, local_SE]
        table_SE = torch.cat([part.to(cells_SE.dtype) for part in table])
        rows_T = _rows(order, evidence.grid_hw, [len(part) for part in table])
        return table_SE.index_select(0, rows_T.to(table_SE.device))

    def _projected(self, tokens_SD: Tensor, remarks_S3: Tensor | None) -> Tensor:
        weight = next(self.projector.parameters())
        projected_SE: Tensor = self.projector(tokens_SD.to(weight.dtype))
        if self.annotation is None or remarks_S3 is None:
            return projected_SE
        return projected_SE + self.annotation(remarks_S3).to(projected_SE.dtype)

    def _reduced(self, cells_SE: Tensor, evidence: Evidence) -> Tensor:
        """The stitched crop tokens on their reduced grid, row-major: (rows x columns, E)."""
        found = unpad(evidence.geometry, evidence.grid_hw, self.config.max_views)
        assert found.reduced_hw is not None
        view_RC, cell_RC = stitched(evidence.geometry, evidence.grid_hw, self.config.max_views)
        patches = evidence.grid_hw[0] * evidence.grid_hw[1]
        index_RC = torch.from_numpy(view_RC * patches + cell_RC).to(cells_SE.device)
        grid_1ERC = cells_SE[index_RC].permute(2, 0, 1).unsqueeze(0)
        return F.interpolate(grid_1ERC, found.reduced_hw, mode="bilinear")[0].flatten(1).T


def _rows(order: Layout, grid_hw: tuple[int, int], sizes: Sequence[int]) -> Tensor:
    """(T,) rows of the table: cells, reduced cells, newline, prompt, global, local."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    kind_T, view_T, cell_T = (torch.from_numpy(part) for part in (order.kind_T, order.view_T, order.cell_T))
    patches = grid_hw[0] * grid_hw[1]
    rows_T = view_T * patches + cell_T
    rows_T = torch.where(view_T == REDUCED, starts[1] + cell_T, rows_T)
    for kind, start, offset_T in (
        (NEWLINE, starts[2], torch.zeros_like(cell_T)),
        (PROMPT, starts[3], cell_T),
        (GLOBAL, starts[4], torch.zeros_like(cell_T)),
        (LOCAL, starts[5], view_T * 4 + cell_T),
    ):
        rows_T = torch.where(kind_T == kind, start + offset_T, rows_T)
    return rows_T
