"""Where a token lies in the picture and how suspicious the expert finds it, as something added to its embedding.

Beyond the paper, and off in the released models. A vision transformer's tokens carry their position; those of a
convolutional network do not, nor does any token say what the expert thought of it. Both are known exactly, so both are
told: the place as sines of wavelengths 2, 1, 1/2 and 1/4 of a side, the suspicion as a logit.

Legend: S tokens of one picture, E width of the language model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anomaly_ov.models.selector import quadrants
from anomaly_ov.reasoning.evidence import Evidence

OCTAVES = 4
HIDDEN = 64
SHARPNESS = 3.0
LOGIT_UNIT = 4.0
"""Logits are divided by this, so that what enters the network lies within about -3..3."""


class Annotation(nn.Module):
    """(S, 3) places in 0..1 and logits of suspicion -> (S, E)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(4 * OCTAVES + 2, HIDDEN)
        self.linear_2 = nn.Linear(HIDDEN, width)

    def forward(self, remarks_S3: Tensor) -> Tensor:
        annotated: Tensor = self.linear_2(self.hidden(remarks_S3))
        return annotated

    def hidden(self, remarks_S3: Tensor) -> Tensor:
        """What the second layer reads, (S, ``HIDDEN``)."""
        place_S2, suspicion_S1 = remarks_S3[:, :2], remarks_S3[:, 2:] / LOGIT_UNIT
        frequency_O = math.pi * 2.0 ** torch.arange(OCTAVES, device=remarks_S3.device)
        angle_SF = (place_S2.unsqueeze(-1) * frequency_O).flatten(1)
        said = torch.cat([angle_SF.sin(), angle_SF.cos(), suspicion_S1, suspicion_S1.abs()], dim=1)
        return nn.functional.gelu(self.linear_1(said.to(self.linear_1.weight.dtype)))


def remarks(evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, logit of suspicion), float32, of the image tokens (N P, 3), the global (1, 3) and the local ones (N Q, 3).

    A local token lies where its quadrant's suspicion is highest; the global one where the picture's is, and its
    suspicion is the score. "Where it is highest" is the mean place weighted by a power of the odds: the plain centre
    of a map lies near the middle of the picture, whatever is in it.
    """
    map_NP = evidence.map_Nhw.flatten(1).float()
    sharp_NP = SHARPNESS * _logit(map_NP)
    place_NP2 = _places(evidence).to(map_NP)
    cells_S3 = torch.cat([place_NP2, _logit(map_NP).unsqueeze(-1)], -1).flatten(0, 1)
    bins_QP = quadrants(evidence.grid_hw, map_NP.device)
    share_NQP = sharp_NP.unsqueeze(1).masked_fill(~bins_QP, -math.inf).softmax(-1)
    local_NQ3 = torch.cat([share_NQP @ place_NP2, _logit((share_NQP * map_NP.unsqueeze(1)).sum(-1, keepdim=True))], -1)
    peak_2 = sharp_NP.flatten().softmax(0) @ place_NP2.flatten(0, 1)
    score_1 = _logit(torch.tensor([evidence.score], device=map_NP.device))
    return cells_S3, torch.cat([peak_2, score_1]).unsqueeze(0), local_NQ3.flatten(0, 1)


def _places(evidence: Evidence) -> Tensor:
    """(N, P, 2): centre of each cell in shares of the picture's width and height."""
    geometry, (rows, columns) = evidence.geometry, evidence.grid_hw
    row_h, column_w = torch.arange(rows) + 0.5, torch.arange(columns) + 0.5
    places = []
    for view in range(geometry.views):
        scale_x, scale_y, offset_x, offset_y = geometry.to_image(view)
        x_w = (column_w * (geometry.base_size / columns) * scale_x + offset_x) / geometry.image_wh[0]
        y_h = (row_h * (geometry.base_size / rows) * scale_y + offset_y) / geometry.image_wh[1]
        places.append(torch.stack([x_w.expand(rows, -1), y_h.unsqueeze(1).expand(-1, columns)], -1).flatten(0, 1))
    return torch.stack(places)


def _logit(probability: Tensor) -> Tensor:
    return torch.logit(probability.float(), eps=1e-5)
