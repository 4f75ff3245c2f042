"""Which pictures of an unlabelled folder may say what is normal.

Up to 40 % of a folder may be anomalous, it may hold copies, and what is normal may come in several looks. Candidates
are drawn by digest (order does not matter, copies count once), compared with each other, and those kept that lie no
farther from their lookalikes than half of these do. The rule is local on purpose: the most uniform half of a folder of
single- and multi-crystalline cells would be all of one sort.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anomaly_ov.context.bank import Reference, stacked
from anomaly_ov.context.nearest import lowest_mean, nearest

CANDIDATES = 192
"""Pictures drawn from a folder; enough that half of a minority look of 10 % still gives ten references."""

NEIGHBOURS = 96
"""Lookalikes that a candidate is ranked among."""

COMPARED = 24
"""Of these, evenly spread, so many it is compared with."""

FEWEST = 8
AGREE = 0.5
TOP = 0.2


def drawn(digests: Sequence[str], count: int = CANDIDATES) -> list[int]:
    """Positions of at most ``count`` distinct digests, smallest first: a random sample that no order can change."""
    first: dict[str, int] = {}
    for position, digest in enumerate(digests):
        first.setdefault(digest, position)
    return [first[digest] for digest in sorted(first)[:count]]


def kept(candidates: Sequence[Reference]) -> list[int]:
    """Positions of the candidates of one kind that may serve as references, in order; all when there are few."""
    if len(candidates) <= FEWEST:
        return list(range(len(candidates)))
    descriptor_RE = torch.stack([candidate.descriptor_E for candidate in candidates])
    centred_RE = torch.nn.functional.normalize(descriptor_RE - descriptor_RE.mean(0), dim=-1)
    similar_RR = (centred_RE @ centred_RE.T).fill_diagonal_(-torch.inf)
    near_RK = similar_RR.topk(min(NEIGHBOURS, len(candidates) - 1)).indices
    tokens_RTD = stacked(candidates)
    score_R = torch.stack([_score(tokens_RTD, r, near_RK[r]) for r in range(len(candidates))])
    median_R = score_R[near_RK].quantile(0.5, dim=1)
    chosen = (score_R <= median_R).nonzero()[:, 0]
    if len(chosen) < FEWEST:
        chosen = score_R.argsort()[:FEWEST].sort().values
    return [int(r) for r in chosen]


def _score(tokens_RTD: torch.Tensor, r: int, near_K: torch.Tensor) -> torch.Tensor:
    """How far candidate ``r`` lies from its lookalikes."""
    step = -(-len(near_K) // COMPARED)
    distance_T = lowest_mean(nearest(tokens_RTD[r], tokens_RTD[near_K[::step]]), AGREE)
    return distance_T.topk(max(1, round(TOP * len(distance_T)))).values.mean()
