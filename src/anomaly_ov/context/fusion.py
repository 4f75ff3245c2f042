"""Expert and context as one score and one map, on comparable scales; the weights are fixed on training sets.

``score_context``: a distance of ``half`` times what is usual in this context scores 0.5, the usual one 1 / (1 + half),
none 0. It needs no maximum and no look at the other pictures of the run.

Before they are added, both parts are put on one scale: how far beyond what is usual in this context, in units of how
much that varies there. Of a busy but sound surface the expert may say 0.6 every time; among fruit distances vary more
than among machined faces. ``ContextConfig`` holds the formula and the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.context.bank import Usual
from anomaly_ov.models.config import ContextConfig

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
FLOOR = 1e-6
"""Values are moved this far from 0 and 1 before their logit is taken."""


def context_score(distance: npt.ArrayLike, usual: float, half: float) -> npt.NDArray[np.float32]:
    """0..1, rising with ``distance`` (>= 0, one or many); ``usual`` > 0 is the context's own."""
    times = np.asarray(distance, np.float32) / np.float32(usual)
    return np.asarray(times / (times + np.float32(half)), np.float32)


def excesses(score_expert: npt.ArrayLike, score_context: npt.ArrayLike, usual: Usual, half: float) -> list[Floats]:
    """[expert, context]: how far each lies beyond what is usual, in spreads; elementwise."""
    log_distance = _logit(score_context) + np.float32(np.log(half * usual.distance))
    return beyond(_logit(score_expert), log_distance, usual)


def beyond(expert_logit: Array, log_distance: Array, usual: Usual) -> list[Array]:
    """As ``excesses``, from the logit of the expert's score and the logarithm of the distance; in their own type."""
    expert = (expert_logit - usual.expert_logit) / usual.expert_spread
    return [expert, (log_distance - float(np.log(usual.distance))) / usual.distance_spread]


def fused_score(score_expert: float, score_context: float, usual: Usual, config: ContextConfig) -> float:
    """``score`` with a context, 0..1."""
    expert, context = excesses(score_expert, score_context, usual, config.half)
    return float(_sigmoid(config.bias + config.expert_weight * expert + config.context_weight * context))


def fused_map(expert_HW: Floats, context_HW: Floats, usual: Usual, config: ContextConfig) -> Floats:
    """Both maps, 0..1, as one: (H, W) float32 in 0..1."""
    expert, context = excesses(expert_HW, context_HW, usual, config.half)
    weights = np.float32(config.map_expert_weight), np.float32(config.map_context_weight)
    return _sigmoid(np.float32(config.map_bias) + weights[0] * expert + weights[1] * context)


def _logit(value: npt.ArrayLike) -> Floats:
    inside = np.clip(np.asarray(value, np.float32), FLOOR, 1 - FLOOR)
    return np.asarray(np.log(inside / (1 - inside)), np.float32)


def _sigmoid(x: npt.ArrayLike) -> Floats:
    # Beyond 80 nothing changes any more, but float32 would overflow.
    return np.asarray(1 / (1 + np.exp(np.minimum(-np.asarray(x, np.float32), np.float32(80)))), np.float32)
