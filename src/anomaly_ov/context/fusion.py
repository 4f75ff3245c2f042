"""Expert and context as one score and one map, on comparable scales; the weights are fixed on training sets.

``score_context``: a distance of ``half`` times what is usual in this context scores 0.5, the usual one 1 / (1 + half),
none 0. It needs no maximum and no look at the other pictures of the run. The expert enters as its logit's excess over
what it usually says in this context: of a busy but sound surface it may say 0.6 every time.

``ContextConfig`` holds the formula and the weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anomaly_ov.models.config import ContextConfig

Floats = npt.NDArray[np.float32]
FLOOR = 1e-6
"""Values are moved this far from 0 and 1 before their logit is taken."""


def context_score(distance: npt.ArrayLike, usual: float, half: float) -> npt.NDArray[np.float32]:
    """0..1, rising with ``distance`` (>= 0, one or many); ``usual`` > 0 is the context's own."""
    times = np.asarray(distance, np.float32) / np.float32(usual)
    return np.asarray(times / (times + np.float32(half)), np.float32)


def fused_score(score_expert: float, score_context: float, usual_logit: float, config: ContextConfig) -> float:
    """``score`` with a context, 0..1. ``usual_logit``: of ``score_expert`` in this context."""
    expert, context = _logit(score_expert) - usual_logit, _logit(score_context)
    return float(_sigmoid(config.bias + config.expert_weight * expert + config.context_weight * context))


def fused_map(expert_HW: Floats, context_HW: Floats, usual_logit: float, config: ContextConfig) -> Floats:
    """Both maps, 0..1, as one: (H, W) float32 in 0..1."""
    total_HW = np.float32(config.map_context_weight) * _logit(context_HW) + np.float32(config.map_bias)
    if config.map_expert_weight:
        total_HW += np.float32(config.map_expert_weight) * (_logit(expert_HW) - np.float32(usual_logit))
    return _sigmoid(total_HW)


def _logit(value: npt.ArrayLike) -> Floats:
    inside = np.clip(np.asarray(value, np.float32), FLOOR, 1 - FLOOR)
    return np.asarray(np.log(inside / (1 - inside)), np.float32)


def _sigmoid(x: npt.ArrayLike) -> Floats:
    # Beyond 80 nothing changes any more, but float32 would overflow.
    return np.asarray(1 / (1 + np.exp(np.minimum(-np.asarray(x, np.float32), np.float32(80)))), np.float32)
