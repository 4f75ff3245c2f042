"""A context: what is normal here, according to a folder's own pictures or to pictures known to be good.

Made by ``Inspector.context`` and ``Inspector.folder_context``, saved by ``context_file``; handed to ``inspect`` and
``stream``. It belongs to one model, whose revision it names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_ov.context.bank import Bank, Usual, picture_distance
from anomaly_ov.context.fusion import context_score, fused_map, fused_score
from anomaly_ov.context.tokens import PictureTokens, Scales
from anomaly_ov.errors import ContextMismatch
from anomaly_ov.models.config import ContextConfig
from anomaly_ov.models.token_maps import Floats
from anomaly_ov.records import ContextInfo, ContextKind, ModelInfo

PRIOR = 2
"""What the training sets say counts at least as much as so many references: these were often taken together, and are
more alike than what will come."""

FLOOR = 0.1
"""The usual distance is at least this share of the training sets' one: identical pictures have none of their own."""

SPREAD_FLOOR = 0.2
"""Likewise for spreads: a dozen references may agree by chance."""


@dataclass(frozen=True)
class Compared:
    """One picture against a context. ``cells``: distance of each cell; ``distance``: the picture's.

    ``usual``: what both are measured by. ``kind``: which of the context's kinds of picture it was compared with.
    """

    cells: Scales[Floats]
    distance: float
    usual: Usual
    kind: int


@dataclass(frozen=True)
class Judged:
    """What context and expert come to: all scores and the map (H, W) in 0..1; ``info`` for the record."""

    score: float
    score_context: float | None
    map_HW: npt.NDArray[np.float32]
    info: ContextInfo


@dataclass(frozen=True)
class Context:
    """``kind``: folder or references. ``source``: where the pictures came from. ``revision``: of the model.

    ``notes``: what a person should know about how it came about, one sentence each.
    """

    bank: Bank
    kind: ContextKind
    source: str
    revision: str
    config: ContextConfig
    notes: tuple[str, ...] = ()

    def require_model(self, model: ModelInfo, config: ContextConfig) -> None:
        """Raises ``ContextMismatch`` unless it was made by this model, with this fusion (``config``)."""
        made, ours = (self.revision, self.config), (model.revision, config)
        if made != ours:
            what = "another fusion of the model" if made[0] == ours[0] else f"model revision {made[0]}"
            raise ContextMismatch(
                f"the context of {self.source} was made with {what}, this is {model.name} {ours[0]}",
                hint="build it again with this model: anomaly-ov context build",
            )

    def compare(self, picture: PictureTokens) -> Compared | None:
        """None when nothing is left to compare the picture with: no reference but copies of it."""
        kind = self.bank.kind_of(picture.descriptor_E, picture.digest)
        if kind is None:
            return None
        distances = self.bank.distances(picture.tokens, picture.descriptor_E, picture.digest, kind)
        if distances is None:
            return None
        distance = picture_distance(distances, tops_of(self.config))
        return Compared(distances, distance, self.usual(kind), kind)

    def usual(self, kind: int) -> Usual:
        """What is usual among the references of ``kind``, drawn towards the training sets' figures if they are few."""
        return with_prior(self.bank.usual[kind], self.config)

    def judge(
        self, compared: Compared | None, picture: PictureTokens, score_expert: float, expert_HW: npt.NDArray[np.float32]
    ) -> Judged:
        """Score and map of expert and context together; the expert's alone where ``compared`` is None."""
        if compared is None:
            info = ContextInfo(self.kind, self.source, len(self.bank), note="only copies of it to compare with")
            return Judged(score_expert, None, expert_HW, info)
        config, usual = self.config, compared.usual
        score_context = float(context_score(compared.distance, usual.distance, config.half))
        context_HW = picture.to_map(compared.cells.map(lambda one_P: context_score(one_P, usual.distance, config.half)))
        info = ContextInfo(
            self.kind, self.source, len(self.bank), compared.kind, round(compared.distance / usual.distance, 4)
        )
        return Judged(
            fused_score(score_expert, score_context, usual, config),
            score_context,
            fused_map(expert_HW, context_HW, usual, config),
            info,
        )


def tops_of(config: ContextConfig) -> Scales[float]:
    """At each scale, the share of cells that makes a picture's distance (``bank.picture_distance``)."""
    return Scales(config.whole_top, config.detail_top)


def with_prior(own: Usual, config: ContextConfig) -> Usual:
    """``own`` together with what the training sets say, the more of it the fewer references ``own`` rests on.

    What is usual for an object is known from ``count`` references only so well. It is taken as normally distributed
    around the training sets' figure (``usual_spread``), the references around it (``spread``): the mean of what it may
    be then lies between the two, and what remains unknown widens the spread by which pictures are judged. So an excess
    over two references weighs less than the same over a hundred. One reference has none to be compared with (``count``
    0): the training sets' figures stand alone.
    """
    share = own.count / (own.count + PRIOR)
    spread = max(_between(config.spread, own.distance_spread, share), SPREAD_FLOOR * config.spread)
    expert_spread = max(_between(config.expert_spread, own.expert_spread, share), SPREAD_FLOOR * config.expert_spread)
    log_own = math.log(max(own.distance, FLOOR * config.usual))
    log_usual, spread = _posterior(log_own, own.count, spread, math.log(config.usual), config.usual_spread)
    expert_logit, expert_spread = _posterior(
        own.expert_logit, own.count, expert_spread, config.expert_usual, config.expert_usual_spread
    )
    return Usual(math.exp(log_usual), expert_logit, own.count, spread, expert_spread)


def _between(prior: float, own: float, share: float) -> float:
    return share * own + (1 - share) * prior


def _posterior(own: float, count: int, spread: float, prior: float, prior_spread: float) -> tuple[float, float]:
    """(mean, spread of a new picture around it) of a figure seen in ``count`` references; normal distributions."""
    known = count / (count + max(PRIOR, (spread / prior_spread) ** 2))
    return _between(prior, own, known), math.hypot(spread, prior_spread * math.sqrt(1 - known))
