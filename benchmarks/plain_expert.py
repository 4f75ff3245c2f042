"""The expert written down as the reference describes it, step after step: what ``benchmarks/expert.py`` compares with.

Same parameter names and results as ``anomaly_ov.models.expert.Expert``, none of its rearrangements: unit tokens, a
softmax over two cosines per level, keys for every patch, look-back per view and quadrants by adaptive average pooling
of (feature x map). Float types only, no options, no protection against underflow.

Legend: N views of B images, P = h * w patches, D width, E hidden width, Q = 4 quadrants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly_ov.models.features import Features


class PlainOutput(NamedTuple):
    """As ``ExpertOutput``, where it has the same."""

    map_Nhw: Tensor
    significance_N: Tensor
    local_NQD: Tensor
    global_BD: Tensor
    score_B: Tensor


class QFormer(nn.Module):
    """Single-head attention with raw features as values."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query_proj = nn.Linear(width, hidden)
        self.key_proj = nn.Linear(width, hidden)

    def forward(self, query_NQD: Tensor, tokens_NPD: Tensor) -> Tensor:
        query_NQE, key_NPE = self.query_proj(query_NQD), self.key_proj(tokens_NPD)
        logits_NQP = query_NQE @ key_NPE.transpose(1, 2) / math.sqrt(query_NQE.shape[-1])
        return logits_NQP.softmax(-1) @ tokens_NPD


class PlainExpert(nn.Module):
    def __init__(
        self, width: int = 1152, hidden: int = 512, grid_hw: tuple[int, int] = (27, 27), levels: int = 4
    ) -> None:
        super().__init__()
        self.positive_embedding = nn.Parameter(torch.zeros(1, hidden))
        self.negative_embedding = nn.Parameter(torch.zeros(1, hidden))
        self.pooling_layer = nn.Sequential(nn.Linear(math.prod(grid_hw), 1))
        self.class_predictor = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.siglip_adaptors = nn.ModuleList(nn.Linear(width, hidden) for _ in range(levels))
        self.prompt_adaptors = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(levels))
        self.final_predictor = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.q_former = QFormer(width, hidden)

    def forward(self, features: Features, views_per_image: Sequence[int]) -> PlainOutput:
        class_NE = self.look_back(features.final_NPD, views_per_image)
        levels = zip(features.levels_NPD, self.siglip_adaptors, self.prompt_adaptors, strict=True)
        maps_LNP = torch.stack([self.match(*level, class_NE) for level in levels])
        map_N1hw = maps_LNP.mean(0).unflatten(1, features.grid_hw).unsqueeze(1)
        significance_N = map_N1hw.mean((1, 2, 3))

        image_NDhw = features.final_NPD.transpose(1, 2).unflatten(2, features.grid_hw)
        pooled_N1qq = F.adaptive_avg_pool2d(map_N1hw, 2)
        query_NDqq = F.adaptive_avg_pool2d(image_NDhw * map_N1hw, 2) / pooled_N1qq
        local_NQD = self.q_former(query_NDqq.flatten(2).transpose(1, 2), features.final_NPD)

        weight_NQ1 = (pooled_N1qq.flatten(2) * significance_N[:, None, None]).transpose(1, 2)
        images = zip(weight_NQ1.split(list(views_per_image)), local_NQD.split(list(views_per_image)), strict=True)
        global_BD = torch.stack([(w * tokens).sum((0, 1)) / w.sum() for w, tokens in images])
        score_B = self.final_predictor(global_BD).sigmoid().squeeze(-1)
        return PlainOutput(map_N1hw.squeeze(1), significance_N, local_NQD, global_BD, score_B)

    def look_back(self, final_NPD: Tensor, views_per_image: Sequence[int]) -> Tensor:
        """One class vector per view, read from the base view of its image."""
        base_NPD = torch.cat([views[:1].expand(len(views), -1, -1) for views in final_NPD.split(list(views_per_image))])
        pooled_ND = self.pooling_layer(base_NPD.transpose(1, 2)).squeeze(-1)
        class_NE: Tensor = self.class_predictor(pooled_ND)
        return class_NE

    def match(
        self, tokens_NPD: Tensor, token_adaptor: nn.Module, prompt_adaptor: nn.Module, class_NE: Tensor
    ) -> Tensor:
        """Probability that a patch is nearer to the negative than to the positive prompt, (N, P)."""
        sides = (self.positive_embedding, self.negative_embedding)
        prompts_N2E = torch.stack(
            [prompt_adaptor(torch.cat((side.expand(len(class_NE), -1), class_NE), dim=-1)) for side in sides], dim=1
        )
        tokens_NPE = F.normalize(token_adaptor(tokens_NPD), dim=-1)
        logits_NP2 = 100.0 * tokens_NPE @ F.normalize(prompts_N2E, dim=-1).transpose(1, 2)
        return logits_NP2.softmax(-1)[..., 1]
