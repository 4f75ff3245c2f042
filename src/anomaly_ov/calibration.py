"""The weights of ``score`` (``models.score``) and the threshold it is compared with, fixed on training sets alone.

``fit_calibration`` takes scores that were made leave-one-set-out: each set scored by weights that never saw it. So
neither the fusion nor the threshold has seen what it is applied to. Every set counts the same, whatever its size, and
so does each label: the figures do not follow one large set or one that is mostly anomalous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import DataError
from anomaly_ov.models.config import CalibrationConfig
from anomaly_ov.models.score import Float64, fused_scores, logit, sigmoid


@dataclass(frozen=True)
class SetScores:
    """One set's labels (n,) 0 or 1, with the head's and the map's scores (n,) in 0..1 of each picture."""

    labels: npt.ArrayLike
    score_raw: npt.ArrayLike
    score_map: npt.ArrayLike


def f1_max_threshold(scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """The threshold of the best F1 under ``score >= threshold``; of several equally good, the highest.

    It lies halfway between the lowest score that it flags and the highest that it does not, which carries over to new
    pictures better than either. ``weights``: how much each picture counts. Raises ``DataError`` unless both labels
    occur and the scores are finite.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    w = np.ones(s.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(y, s)
    values, group = np.unique(-s, return_inverse=True)
    hits = np.cumsum(np.bincount(group, weights=w * (y == 1)))
    flagged = np.cumsum(np.bincount(group, weights=w))
    f1 = 2 * hits / (flagged + hits[-1])
    best = int(np.argmax(f1))
    lowest_flagged = -float(values[best])
    if best + 1 == len(values):
        return lowest_flagged
    middle = (lowest_flagged - float(values[best + 1])) / 2
    return middle if -float(values[best + 1]) < middle <= lowest_flagged else lowest_flagged


def fit_calibration(
    sets: Mapping[str, SetScores], map_top: float = 0.01, map_threshold: float = 0.5, l2: float = 1e-2
) -> CalibrationConfig:
    """Fits bias, head and map weight by logistic regression on the two logits, then the threshold by F1.

    ``sets``: name -> leave-one-set-out scores. Weights are kept >= 0: a higher head or map score never lowers the
    fused one. ``l2`` times the squared weights, each in units of its logit's spread, is added to the mean loss; so
    perfectly separable scores give finite weights. ``map_top`` and ``map_threshold`` are passed through.
    Raises ``DataError`` if a label is absent altogether or scores are not finite.
    """
    if not sets:
        raise DataError("no scores to calibrate on", hint="score the training sets leave-one-set-out first")
    labels = np.concatenate([np.asarray(scores.labels) for scores in sets.values()])
    head = np.concatenate([np.asarray(scores.score_raw, dtype=np.float64) for scores in sets.values()])
    maps = np.concatenate([np.asarray(scores.score_map, dtype=np.float64) for scores in sets.values()])
    _check(labels, head)
    _check(labels, maps)
    owner = np.repeat(np.arange(len(sets)), [np.asarray(scores.labels).size for scores in sets.values()])
    weights = balanced_weights(labels, owner)
    bias, (head_weight, map_weight) = fit_logistic(np.stack([logit(head), logit(maps)], axis=1), labels, weights, l2)
    config = CalibrationConfig(head_weight, map_weight, bias, map_top, map_threshold=map_threshold)
    return replace(
        config,
        threshold=f1_max_threshold(fused_scores(head, maps, config), labels, weights),
        threshold_source=f"F1-max on leave-one-set-out scores of {', '.join(sets)} (n = {len(labels)}, balanced)",
    )


def balanced_weights(labels: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]) -> Float64:
    """Weights that sum to 1: half to each label, and within a label the same to every set that has it."""
    weights = np.zeros(len(labels))
    for label in (0, 1):
        counts = np.bincount(owner[labels == label], minlength=int(owner.max()) + 1)
        share = np.divide(0.5 / (counts > 0).sum(), counts, out=np.zeros(len(counts)), where=counts > 0)
        weights[labels == label] = share[owner[labels == label]]
    return weights


def fit_logistic(
    inputs_NK: Float64, labels: npt.NDArray[np.int64], weights: Float64, l2: float = 1e-2
) -> tuple[float, tuple[float, ...]]:
    """(bias, K slopes >= 0) of the smallest weighted logistic loss, a convex problem with bounds.

    ``weights`` sum to 1; ``l2`` as in ``fit_calibration``.
    """
    from scipy.optimize import minimize  # here, because only fitting needs it

    centre = weights @ inputs_NK
    spread = np.sqrt(weights @ np.square(inputs_NK - centre))
    scaled_NK = (inputs_NK - centre) / np.where(spread > 0, spread, 1)
    signs = np.where(labels == 1, 1.0, -1.0)

    def loss(parameters: Float64) -> tuple[float, Float64]:
        slopes = parameters[1:]
        margin = signs * (parameters[0] + scaled_NK @ slopes)
        pull = -weights * signs * sigmoid(-margin)
        gradient = np.concatenate([[pull.sum()], pull @ scaled_NK + 2 * l2 * slopes])
        return float(weights @ np.logaddexp(0, -margin) + l2 * slopes @ slopes), gradient

    slopes_count = inputs_NK.shape[1]
    bounds = [(None, None), *[(0, None)] * slopes_count]
    found = minimize(
        loss,
        np.zeros(1 + slopes_count),
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    slopes = found.x[1:] / np.where(spread > 0, spread, 1)
    return float(found.x[0] - slopes @ centre), tuple(float(slope) for slope in slopes)


def _check(labels: npt.NDArray[np.int64], scores: Float64) -> None:
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise DataError(f"{labels.shape} labels against {scores.shape} scores", hint="give one label per score")
    if not np.isfinite(scores).all():
        raise DataError("scores to calibrate on are not finite", hint="the detector's output is broken")
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise DataError("calibration needs pictures of both labels, 0 and 1", hint="leave out the unlabelled ones")
