"""Exact nearest counterparts: how far each token lies from the most similar token of each reference image.

One matrix product per block of query tokens and references, sized to stay in a core's cache, so memory does not grow
with either side. Each query image is compared on its own: its distances do not depend on a batch.

Legend: P query tokens, R reference images of T tokens each, D width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anomaly_ov.scoring.cells import Floats

BLOCK_VALUES = 2**20
"""Similarities held at once."""

BLOCK_QUERIES = 1024


def nearest(query_PD: Floats, reference_RTD: Floats) -> Floats:
    """(P, R) float32: 1 - cosine to the nearest token of each reference, 0..2. Both sides unit vectors, float32."""
    references, tokens, width = reference_RTD.shape
    queries = max(1, min(len(query_PD), BLOCK_QUERIES, BLOCK_VALUES // tokens))
    step = max(1, min(references, BLOCK_VALUES // (tokens * queries)))
    held = np.empty(step * tokens * queries, np.float32)
    # Queries last: the maximum over a reference's tokens then takes whole rows, several times as fast as along them.
    similar_RP = np.empty((references, len(query_PD)), np.float32)
    for start in range(0, len(query_PD), queries):
        block_DP = query_PD[start : start + queries].T
        for first in range(0, references, step):
            part_RTD = reference_RTD[first : first + step]
            shape = (len(part_RTD), tokens, block_DP.shape[1])
            similar_RTP = held[: len(part_RTD) * tokens * block_DP.shape[1]].reshape(shape)
            np.matmul(part_RTD.reshape(-1, width), block_DP, out=similar_RTP.reshape(-1, shape[2]))
            np.max(similar_RTP, axis=1, out=similar_RP[first : first + step, start : start + queries])
    return np.maximum(1 - np.ascontiguousarray(similar_RP.T), np.float32(0))


def counterparts(query_PD: Floats, reference_RTD: Floats, best_P: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(P,): which token of reference ``best_P`` is nearest to each query."""
    token_P = np.zeros(len(query_PD), np.int64)
    for reference in np.unique(best_P):
        asked = best_P == reference
        token_P[asked] = (query_PD[asked] @ reference_RTD[reference].T).argmax(1)
    return token_P


def lowest_mean(distance_PR: Floats, share: float) -> Floats:
    """(P,) mean of each row's lowest ``share`` of distances, at least one: what most references agree on.

    A few anomalous references hardly move it, and neither does one place of the object that only few of them show.
    """
    count = max(1, int(distance_PR.shape[1] * share))
    if count < distance_PR.shape[1]:
        distance_PR = np.partition(distance_PR, count - 1, axis=1)[:, :count]
    return np.asarray(distance_PR.mean(1))
