"""What is known about each cell of one image, before it is weighed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly_ov.scoring.cells import Floats, Scales

FLOOR = 1e-3
"""Distances below it say no more than it does: a copy is not infinitely normal."""


@dataclass(frozen=True)
class References:
    """One image against others. ``distance``: of each cell to its counterparts, 0..2. ``counterpart``: the own
    evidence (as ``Evidence.own``) of the counterpart, so that a part that is unique in *every* image is not suspicious
    for that. ``count``: images that it was compared with.
    """

    distance: Scales[Floats]
    counterpart: Scales[Floats]
    count: int


@dataclass(frozen=True)
class Evidence:
    """``own``: logarithm of the distance to the image's own other patches and mirror image, (Q,) and (P,); None where
    that is switched off. ``expert_Nhw``: the expert's map, 0..1; ``head``: its image score, 0..1. ``symmetry``: 0..1,
    how much the image is like its mirror image: then that is as good as a reference.
    """

    own: Scales[Floats] | None
    expert_Nhw: Floats
    head: float
    references: References | None = None
    symmetry: float = 0.0


def log_distance(distance: Floats) -> Floats:
    """Natural logarithm of distances, those below ``FLOOR`` raised to it."""
    return np.asarray(np.log(np.maximum(distance, np.float32(FLOOR))), np.float32)
