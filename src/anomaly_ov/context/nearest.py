"""Exact nearest counterparts: how far each token lies from the most similar token of each reference picture.

One product per block of query tokens, sized to stay in a core's cache (or to fill an accelerator), so memory does not
grow with either side. Each query picture is compared on its own: its distances do not depend on a batch.

Legend: P query tokens, R reference pictures of T tokens each, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_VALUES = {"cpu": 2**20, "cuda": 2**25}
"""Similarities held at once."""


def nearest(query_PD: Tensor, reference_RTD: Tensor) -> Tensor:
    """(P, R) float32: 1 - cosine to the nearest token of each reference, 0..2. Both sides unit vectors, float32."""
    references, tokens, width = reference_RTD.shape
    flat_MD = reference_RTD.reshape(-1, width)
    step = max(1, BLOCK_VALUES.get(query_PD.device.type, 2**24) // max(1, len(flat_MD)))
    distance_PR = query_PD.new_empty(len(query_PD), references)
    for start in range(0, len(query_PD), step):
        block = query_PD[start : start + step]
        similar = (block @ flat_MD.T).view(len(block), references, tokens)
        torch.amax(similar, -1, out=distance_PR[start : start + step])
    return distance_PR.neg_().add_(1).clamp_min_(0)


def lowest_mean(distance_PR: Tensor, share: float) -> Tensor:
    """(P,) mean of each row's lowest ``share`` of distances, at least one: what most references agree on.

    A few anomalous references hardly move it, and neither does one place of the object that only few of them show.
    """
    count = max(1, int(distance_PR.shape[1] * share))
    if count == distance_PR.shape[1]:
        return distance_PR.mean(1)
    return distance_PR.topk(count, dim=1, largest=False, sorted=False).values.mean(1)
