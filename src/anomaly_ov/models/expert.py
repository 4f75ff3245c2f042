"""The anomaly expert: features of a batch of images in, map per view, tokens and one score per image out.

Look-twice matching (``look_twice.py``) -> token selector (``selector.py``) -> global token and score head (here).
Follows the released code (docs/reference-implementation.md, sections 3 to 5) to the tolerances of its section 11 and
carries its 32 parameter names, so that a released checkpoint loads key by key (``convert.py``). One path for training
and inference, CPU and accelerator.

Not here: the encoder, full-resolution maps, calibration, thresholds.

Legend: N views of B images, P = h * w patches, D width, E hidden width, Q = 4 quadrants, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from anomaly_ov.errors import UsageError
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.features import Features
from anomaly_ov.models.look_twice import LookTwice, two_layers
from anomaly_ov.models.selector import Selector


@dataclass(frozen=True)
class ExpertOutput:
    """All tensors in float32 or wider, whatever the features' type.

    ``map_Nhw``: probability in 0..1 that a patch is anomalous. ``map_logits_Nhw``: its logit, stable, for map losses.
    ``significance_N``: mean of each view's map. ``local_NQD``: four tokens per view, quadrants in row-major order.
    ``global_BD``: one token per image. ``logit_B``/``score_B``: the head's logit and its sigmoid (1 = anomalous).
    ``views_per_image``: as given; the views of an image are neighbours, base view first.
    """

    map_Nhw: Tensor
    map_logits_Nhw: Tensor
    significance_N: Tensor
    local_NQD: Tensor
    global_BD: Tensor
    logit_B: Tensor
    score_B: Tensor
    views_per_image: tuple[int, ...]


class Expert(LookTwice):
    """``expert(features, views_per_image)``; see ``ExpertConfig`` for the switches, ``LookTwice`` for initialisation.

    The default configuration is the released one: 7,086,811 parameters in 32 tensors.
    """

    def __init__(self, config: ExpertConfig | None = None) -> None:
        config = config or ExpertConfig()
        super().__init__(config)
        self.final_predictor = nn.Sequential(
            nn.Linear(config.width, config.hidden), nn.GELU(), nn.Linear(config.hidden, 1)
        )
        self.q_former = Selector(config.width, config.hidden, config.grid_hw, attend=config.q_former)

    def forward(self, features: Features, views_per_image: Sequence[int]) -> ExpertOutput:
        """``features`` of N views, ``views_per_image`` e.g. (5, 3, 10), base view first in each image.

        Raises ``UsageError`` when the features do not have this expert's grid, levels and widths, or the views do not
        add up to N.
        """
        self._check(features, views_per_image)
        device = features.final_NPD.device
        autocast = torch.is_autocast_enabled(device.type)
        product_type = torch.get_autocast_dtype(device.type) if autocast else next(self.parameters()).dtype
        with torch.autocast(device.type, enabled=False):
            return self._forward(features, views_per_image, product_type)

    def of_one(self, features: Features) -> ExpertOutput:
        """As ``forward`` for one image that all the views belong to, unchecked and without reading their number.

        So it can be traced for any number of views; ``views_per_image`` stays empty.
        """
        owner_N = features.final_NPD.new_zeros(features.final_NPD.shape[0], dtype=torch.int64)
        return self._judge(features, owner_N, owner_N[:1], (owner_N == 0).unsqueeze(0), torch.float32)

    def _forward(self, features: Features, views_per_image: Sequence[int], product_type: torch.dtype) -> ExpertOutput:
        views_B = torch.tensor(views_per_image)
        device = features.final_NPD.device
        owner_N = torch.arange(len(views_B)).repeat_interleave(views_B).to(device)
        own_BN = owner_N == torch.arange(len(views_B), device=device).unsqueeze(1)
        output = self._judge(features, owner_N, (views_B.cumsum(0) - views_B).to(device), own_BN, product_type)
        return replace(output, views_per_image=tuple(views_per_image))

    def _judge(
        self, features: Features, owner_N: Tensor, base_B: Tensor, own_BN: Tensor, product_type: torch.dtype
    ) -> ExpertOutput:
        """``owner_N``: each view's image, ``base_B``: each image's base view, ``own_BN``: the images' own views."""
        look = self.look(features, owner_N, base_B, product_type)
        selection = self.q_former(features.final_NPD.to(look.log_map_NP.dtype), look.log_map_NP)
        log_significance_N1 = look.log_map_NP.logsumexp(-1, keepdim=True)
        global_BD = _global_tokens(selection.local_NQD, selection.log_pooled_NQ + log_significance_N1, own_BN)
        logit_B = two_layers(global_BD, self.final_predictor).squeeze(-1)
        return ExpertOutput(
            map_Nhw=look.map_NP.reshape(-1, *features.grid_hw),
            map_logits_Nhw=look.logits_NP.reshape(-1, *features.grid_hw),
            significance_N=look.map_NP.mean(-1),
            local_NQD=selection.local_NQD,
            global_BD=global_BD,
            logit_B=logit_B,
            score_B=logit_B.sigmoid(),
            views_per_image=(),
        )

    def _check(self, features: Features, views_per_image: Sequence[int]) -> None:
        config = self.config
        views, patches = len(features.final_NPD), math.prod(config.grid_hw)
        if not views_per_image or min(views_per_image) < 1 or sum(views_per_image) != views:
            raise UsageError(
                f"expert: views_per_image = {list(views_per_image)} does not describe {views} views",
                hint="give the number of views of each image, at least 1 each, adding up to the features' first size",
            )
        expected = [(views, patches, width) for width in (config.width, *self.level_widths)]
        found = [tuple(tokens.shape) for tokens in (features.final_NPD, *features.levels_NPD)]
        if tuple(features.grid_hw) != tuple(config.grid_hw) or found != expected:
            raise UsageError(
                f"expert: features on grid {tuple(features.grid_hw)} with final and level shapes {found} do not fit; "
                f"expected grid {tuple(config.grid_hw)} with {expected}",
                hint="use the encoder this expert was trained with",
            )


def _global_tokens(local_NQD: Tensor, log_weight_NQ: Tensor, own_BN: Tensor) -> Tensor:
    """Mean of each image's local tokens weighted by exp(``log_weight_NQ``): (B, D).

    The weight is (pooled map) x (view's significance), both as logarithms for the reason given in ``selector.py``;
    ``own_BN``: which views belong to which image.
    """
    own_BM = own_BN.repeat_interleave(local_NQD.shape[1], dim=1)
    weight_BM = log_weight_NQ.flatten().masked_fill(~own_BM, -math.inf).softmax(-1)
    return weight_BM @ local_NQD.flatten(0, 1)
