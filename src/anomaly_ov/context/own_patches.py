"""The image as its own reference: how far each patch lies from the most similar other patch of the same image.

What occurs once is suspicious, what repeats is not; no training and no other image is needed. The nearest
neighbourhood is left out, because neighbouring patches see the same pixels.

Kin: Aota, Tong, Okatani, *Zero-shot versus many-shot: unsupervised texture anomaly detection*, WACV 2023 (mean distance
to the most similar patches of the image). Not covered: objects whose every part is unique; there references help.

Legend: P patches, D token width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anomaly_ov.scoring.cells import Floats

REACH = 1
"""Patches at most so many rows and columns away do not count: 3 x 3 patches."""

MOST_OTHERS = 4096
"""Patches that each patch is compared with; of more, every so-many-th serves."""

BLOCK_VALUES = 2**21
"""Similarities held at once."""


def own_patch_distance(tokens_PD: Floats, places_P2: npt.NDArray[np.int64]) -> Floats:
    """(P,) float32: 1 - cosine to the most similar patch beyond ``REACH``, 0..2.

    ``tokens_PD``: unit vectors; ``places_P2``: row and column of each. Where no patch is far enough away the distance
    is 0: nothing speaks against it.
    """
    count = len(tokens_PD)
    distance_P = np.zeros(count, np.float32)
    if not count:
        return distance_P
    others = np.arange(0, count, -(-count // MOST_OTHERS))
    others_DO, near_PK = tokens_PD[others].T, _near(places_P2, others)
    size = max(1, BLOCK_VALUES // len(others))
    for start in range(0, count, size):
        similar_BO = tokens_PD[start : start + size] @ others_DO
        row, column = np.nonzero(near_PK[start : start + size] >= 0)
        similar_BO[row, near_PK[start + row, column]] = -2
        nearest_B = similar_BO.max(1)
        distance_P[start : start + size] = np.where(nearest_B > -2, 1 - nearest_B, 0)
    return np.maximum(distance_P, np.float32(0))


def _near(places_P2: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(P, K): which of ``others`` lie within ``REACH`` of each patch, itself included; -1 where there is none."""
    rows, columns = places_P2.max(0) + 1 + 2 * REACH
    number_hw = np.full((rows, columns), -1, np.int64)
    number_hw[tuple((places_P2[others] + REACH).T)] = np.arange(len(others))
    offsets = range(2 * REACH + 1)
    return np.stack([number_hw[places_P2[:, 0] + dy, places_P2[:, 1] + dx] for dy in offsets for dx in offsets], axis=1)
