"""Look-twice feature matching: how suspicious each patch of each view is.

First look: the base view's final feature becomes one class vector per image (look-back). Second look: per level, that
vector and the two learned embeddings give a "normal" and an "anomalous" prompt, and every patch is compared with both.
Follows the released code (docs/reference-implementation.md, section 3), paper section 3.2. The arrangement is ours: a
softmax over two cosines is the sigmoid of their difference, and two cosines of one token share its length, so

    map = sigmoid(100 * <y, n - p> / |y|),   y = W x + b,   p, n = the unit prompts,

which is one dot product and one division per patch; unit-length tokens are never built, prompts are made once per
image. Maps travel as logits and logarithms, so that a map far below the smallest float still weighs patches rightly.

Number types: only the products W x run in a half type, when the parameters are half or under autocast; all else is at
least float32, which costs nothing beside them.

Not here: pooling, tokens and score (``selector.py``, ``expert.py``), full-resolution maps (``scoring/anomaly_map.py``).

Legend: N views of B images, P = h * w patches, D width of the encoder, E hidden width, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly_ov.errors import ConfigError
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.features import Features

LOGIT_SCALE = 100.0
EMBEDDING_GAP = 0.25
"""Distance at which the two embeddings start, in units of their own spread (see ``LookTwice``)."""
MIN_DEVIATION = 1e-4
"""Covariance matching: a unit token closer than this to its view's mean token counts as equal to it."""


@dataclass(frozen=True)
class Look:
    """What the second look saw, per patch, in float32 or wider. All three say the same m in (0, 1).

    ``map_NP``: m. ``log_map_NP``: log m, finite even where m underflows. ``logits_NP``: log(m / (1 - m)).
    """

    map_NP: Tensor
    log_map_NP: Tensor
    logits_NP: Tensor


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type for statistics over tokens of ``dtype``: half types are widened, others kept."""
    return torch.promote_types(dtype, torch.float32)


class LookTwice(nn.Module):
    """Parameters and matching of the two looks; the parameter names are those of the released checkpoints.

    Ablations (paper section 4.4). ``look_back=False``: no class vector; prompts are read from the embeddings alone, by
    adaptors E -> E. ``embeddings=False``: no embeddings; both prompts are read from the class vector, by adaptors
    E -> 2E (normal first), since one shared adaptor would make them equal. Parameters of a switched-off part do not
    exist. Without both there is nothing to compare with: ``ConfigError``.

    Initialisation (from torch's seed): PyTorch's defaults for the linear layers, a standard normal ``positive``, and
    ``negative`` = ``positive`` + 0.25 * standard normal. With two independent embeddings the levels' logits start with
    a spread of 5.5, so that 62 % of their probabilities lie within 0.05 of 0 or 1, where little gradient passes; this
    way the spread is 0.95 and 0.4 % lie there (seeded random tokens of the released shape, mean of five seeds).
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        if not (config.look_back or config.embeddings):
            raise ConfigError(
                "expert: look_back and embeddings are both off, so there are no prompts to compare patches with",
                hint="switch at least one of them on",
            )
        self.config = config
        hidden = config.hidden
        if config.embeddings:
            self.positive_embedding = nn.Parameter(torch.randn(1, hidden))
            self.negative_embedding = nn.Parameter(
                self.positive_embedding.detach() + EMBEDDING_GAP * torch.randn(1, hidden)
            )
        if config.look_back:
            self.pooling_layer = nn.Sequential(nn.Linear(math.prod(config.grid_hw), 1))
            self.class_predictor = nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.level_widths = config.level_widths or (config.width,) * config.levels
        self.siglip_adaptors = nn.ModuleList(nn.Linear(width, hidden) for width in self.level_widths)
        reads = hidden * (config.look_back + config.embeddings)
        writes = hidden if config.embeddings else 2 * hidden
        self.prompt_adaptors = nn.ModuleList(nn.Linear(reads, writes) for _ in range(config.levels))

    def look(self, features: Features, owner_N: Tensor, base_B: Tensor, product_type: torch.dtype) -> Look:
        """Matches every patch of N views; ``owner_N``: each view's image, ``base_B``: each image's base view.

        ``product_type`` is the type of the adaptors' products. To be called with autocast off.
        """
        class_BE = self.class_vectors(features.final_NPD.index_select(0, base_B)) if self.config.look_back else None
        directions = [_direction(prompts, owner_N) for prompts in self.prompts(class_BE, len(base_B))]
        passes = self._two_passes if self.config.passes == 2 else self._one_pass
        return _combine(passes(features.levels_NPD, directions, product_type))

    def class_vectors(self, base_BPD: Tensor) -> Tensor:
        """The look-back: (B, P, D) final features of the base views -> (B, E), one vector per image."""
        pooling = cast(nn.Linear, self.pooling_layer[0])
        wide = at_least_float32(pooling.weight.dtype)
        pooled_BD = (pooling.weight.to(wide) @ base_BPD.to(wide)).squeeze(1) + pooling.bias
        return two_layers(pooled_BD, self.class_predictor)

    def prompts(self, class_BE: Tensor | None, images: int) -> list[tuple[Tensor, Tensor]]:
        """Per level the (positive, negative) prompts, each (B, E), before normalisation; negative = anomalous."""
        adaptors = [cast(nn.Linear, adaptor) for adaptor in self.prompt_adaptors]
        if not self.config.embeddings:
            assert class_BE is not None  # the constructor refuses to switch both off
            both_BF = [linear(class_BE, adaptor) for adaptor in adaptors]
            return [(both[:, : self.config.hidden], both[:, self.config.hidden :]) for both in both_BF]
        sides = []
        for embedding_1E in (self.positive_embedding, self.negative_embedding):
            side_BE = embedding_1E.to(at_least_float32(embedding_1E.dtype)).expand(images, -1)
            sides.append(side_BE if class_BE is None else torch.cat((side_BE, class_BE), dim=-1))
        return [(linear(sides[0], adaptor), linear(sides[1], adaptor)) for adaptor in adaptors]

    def _one_pass(self, levels_NPD: Sequence[Tensor], directions: list[Tensor], product_type: torch.dtype) -> Tensor:
        levels = zip(levels_NPD, self._adaptors(), directions, strict=True)
        return torch.stack([self._match(_adapt(x, adaptor, product_type), d) for x, adaptor, d in levels])

    def _two_passes(self, levels_NPD: Sequence[Tensor], directions: list[Tensor], product_type: torch.dtype) -> Tensor:
        """Matches again after x' = x (1 + m); needs no second product, as W x' + b = y + m (y - b).

        The two maps' mean is the mean over twice as many levels.
        """
        levels = zip(levels_NPD, self._adaptors(), strict=True)
        adapted = [_adapt(x, adaptor, product_type) for x, adaptor in levels]
        first_LNP = torch.stack([self._match(y, d) for y, d in zip(adapted, directions, strict=True)])
        map_NP1 = first_LNP.sigmoid().mean(0).unsqueeze(-1)
        again = zip(adapted, self._adaptors(), directions, strict=True)
        second = [self._match(y + map_NP1 * (y - adaptor.bias), d) for y, adaptor, d in again]
        return torch.cat((first_LNP, torch.stack(second)))

    def _adaptors(self) -> list[nn.Linear]:
        return [cast(nn.Linear, adaptor) for adaptor in self.siglip_adaptors]

    def _match(self, tokens_NPE: Tensor, direction_NE: Tensor) -> Tensor:
        """Logit of "anomalous" per patch, (N, P)."""
        matching = _covariance_logits if self.config.match == "covariance" else _cosine_logits
        return matching(tokens_NPE, direction_NE)


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(x)`` in the type of ``x``, whatever the type of the parameters."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def two_layers(x: Tensor, layers: nn.Sequential) -> Tensor:
    """Linear, exact GELU, linear, in the type of ``x``."""
    first, _, last = layers
    return linear(F.gelu(linear(x, cast(nn.Linear, first))), cast(nn.Linear, last))


def _adapt(tokens_NPD: Tensor, adaptor: nn.Linear, product_type: torch.dtype) -> Tensor:
    """W x + b, widened. The bias is added in place: as part of the product it costs a tenth more on a CPU."""
    product_NPE = F.linear(tokens_NPD.to(product_type), adaptor.weight.to(product_type))
    return product_NPE.to(at_least_float32(product_type)).add_(adaptor.bias)


def _direction(prompts: tuple[Tensor, Tensor], owner_N: Tensor) -> Tensor:
    """Unit negative minus unit positive prompt, handed to each view of the image: (N, E)."""
    positive_BE, negative_BE = (F.normalize(side, dim=-1) for side in prompts)
    return (negative_BE - positive_BE).index_select(0, owner_N)


def _cosine_logits(tokens_NPE: Tensor, direction_NE: Tensor) -> Tensor:
    return _dot_over_length(tokens_NPE, direction_NE, 1e-12) * LOGIT_SCALE


def _covariance_logits(tokens_NPE: Tensor, direction_NE: Tensor) -> Tensor:
    """Difference of the two logits 100 * correlation(x_p - mean over patches of x, d_k - (d+ + d-) / 2).

    x and d are the unit vectors that cosine matching compares; both sides are centred over channels. The two prompts'
    deviations from their middle are opposite, hence the factor 2 and one direction.
    """
    unit_NPE = F.normalize(tokens_NPE, dim=-1)
    deviation_NPE = unit_NPE - unit_NPE.mean(1, keepdim=True)
    deviation_NPE = deviation_NPE - deviation_NPE.mean(-1, keepdim=True)
    axis_NE = F.normalize(direction_NE - direction_NE.mean(-1, keepdim=True), dim=-1)
    return _dot_over_length(deviation_NPE, axis_NE, MIN_DEVIATION) * (2 * LOGIT_SCALE)


def _dot_over_length(tokens_NPE: Tensor, direction_NE: Tensor, min_length: float) -> Tensor:
    length_NP: Tensor = torch.linalg.vector_norm(tokens_NPE, dim=-1).clamp_min(min_length)
    return torch.bmm(tokens_NPE, direction_NE.unsqueeze(-1)).squeeze(-1) / length_NP


def _combine(logits_LNP: Tensor) -> Look:
    """The mean of the levels' maps, with its logarithm and logit computed without passing through the mean."""
    log_levels = math.log(len(logits_LNP))
    # log sigmoid(x) = -softplus(-x); exporters write F.logsigmoid as log(sigmoid(x)), minus infinity below -104.
    log_map_NP = (-F.softplus(-logits_LNP)).logsumexp(0) - log_levels
    log_rest_NP = (-F.softplus(logits_LNP)).logsumexp(0) - log_levels
    return Look(logits_LNP.sigmoid().mean(0), log_map_NP, log_map_NP - log_rest_NP)
