"""What the detector says of one picture, kept for the language model: made once, asked about many times.

Legend: N views of one picture, P = h * w patches, D width, Q = 4 quadrants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.look import score_alone
from anomaly_ov.models.arrays import PictureArrays
from anomaly_ov.models.config import ScoringConfig
from anomaly_ov.models.expert import ExpertOutput
from anomaly_ov.models.features import Features


@dataclass(frozen=True)
class Evidence:
    """``final_NPD``: the encoder's last feature. ``map_Nhw``: the expert's, 0..1. ``local_NQD`` and ``global_D``: its
    tokens. ``score``: 0..1, what the indicative prompt follows. All on one device, without gradients.
    """

    final_NPD: Tensor
    map_Nhw: Tensor
    local_NQD: Tensor
    global_D: Tensor
    score: float
    geometry: Geometry

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches of a view."""
        return self.map_Nhw.shape[1], self.map_Nhw.shape[2]


def of_picture(output: PictureArrays, score: float, geometry: Geometry, device: torch.device | str = "cpu") -> Evidence:
    """From what an engine gave with its features; ``score``: what the indicative prompt shall follow."""
    assert output.features is not None

    def tensor(values: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return Evidence(
        tensor(output.features.final_NPD),
        tensor(output.map_Nhw),
        tensor(output.local_NQD),
        tensor(output.global_D),
        score,
        geometry,
    )


def evidence_of(
    features: Features,
    output: ExpertOutput,
    geometries: Sequence[Geometry],
    scoring: ScoringConfig | None = None,
    patch: float | None = None,
) -> list[Evidence]:
    """One per picture. The score is the head's or, given a ``scoring``, that of the picture alone (``scoring.score``),
    its mirror images left out.
    """
    ends = torch.tensor(output.views_per_image).cumsum(0).tolist()
    found = []
    for index, (end, geometry) in enumerate(zip(ends, geometries, strict=True)):
        own = slice(end - output.views_per_image[index], end)
        map_Nhw, score = output.map_Nhw[own], float(output.score_B[index])
        if scoring is not None:
            levels = [level[own].float().cpu().numpy() for level in features.levels_NPD]
            score = score_alone(levels, map_Nhw.float().cpu().numpy(), score, geometry, scoring, patch)
        final_NPD = features.final_NPD[own]
        found.append(Evidence(final_NPD, map_Nhw, output.local_NQD[own], output.global_BD[index], score, geometry))
    return found
