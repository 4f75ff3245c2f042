"""``score``: what the expert says of one picture, its head and its map as one calibrated number.

``fused_scores`` is the one definition of ``score``, in fitting and in inspecting. Not here: how the weights and the
threshold are found (``calibration``), what a context adds (``context.fusion``). No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.maps import cell_map, map_score, significance_map
from anomaly_ov.models.config import CalibrationConfig

PROBABILITY_FLOOR = 1e-6
"""Probabilities are moved this far from 0 and 1 before their logit is taken."""

Float64 = npt.NDArray[np.float64]


def logit(probability: npt.ArrayLike) -> Float64:
    """log(p / (1 - p)) of probabilities kept ``PROBABILITY_FLOOR`` away from 0 and 1."""
    inside = np.clip(np.asarray(probability, dtype=np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def fused_scores(score_raw: npt.ArrayLike, score_map: npt.ArrayLike, config: CalibrationConfig) -> Float64:
    """``score`` as ``CalibrationConfig`` defines it, in 0..1, elementwise."""
    return sigmoid(config.bias + config.head_weight * logit(score_raw) + config.map_weight * logit(score_map))


@dataclass(frozen=True)
class ExpertAlone:
    """What the expert says of one picture without any context.

    ``map_HW``: significance map in 0..1; ``grid``: rows and columns of its finest layer; ``score``: the fused one.
    """

    map_HW: npt.NDArray[np.float32]
    grid: tuple[int, int]
    score_map: float
    score: float


def expert_alone(
    map_Nhw: npt.NDArray[np.float32],
    score_raw: float,
    geometry: Geometry,
    config: CalibrationConfig,
    patch: float | None = None,
) -> ExpertAlone:
    """Map and scores from the expert's maps per view and its head; ``patch``: as in ``significance_map``."""
    map_HW = significance_map(map_Nhw, geometry, patch=patch)
    rows, columns = cell_map(map_Nhw, geometry, patch=patch).shape
    score_map = map_score(map_HW, config.map_top)
    return ExpertAlone(map_HW, (rows, columns), score_map, float(fused_scores(score_raw, score_map, config)))


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), elementwise, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
