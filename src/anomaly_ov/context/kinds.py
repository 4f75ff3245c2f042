"""Splits a mixed folder into kinds of picture: groups whose looks are connected, far from each other.

Single linkage on descriptors: two pictures are of one kind when a chain of pictures leads from one to the other
without a step much longer than those usual between neighbours. A group of a few pictures is no kind but a handful of
odd ones: it joins the kind that it is nearest to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

STEP = 2.0
"""A step of up to so many times the 95 % quantile of the steps to the nearest picture still connects."""

SMALLEST_SHARE = 0.05
SMALLEST = 8


def kinds(descriptor_RE: npt.NDArray[np.float32]) -> list[int]:
    """Kind 0, 1, ... of each of R pictures from unit descriptors, the largest kind first."""
    count = len(descriptor_RE)
    if count < 2 * SMALLEST:
        return [0] * count
    apart_RR = np.clip(1 - descriptor_RE.astype(np.float64) @ descriptor_RE.T.astype(np.float64), 0, 2)
    np.fill_diagonal(apart_RR, np.inf)
    cut = STEP * float(np.quantile(apart_RR.min(1), 0.95))
    np.fill_diagonal(apart_RR, 0)
    apart_RR = (apart_RR + apart_RR.T) / 2
    group_R = fcluster(linkage(squareform(apart_RR, checks=False), "single"), cut, "distance")
    sizes = np.bincount(group_R)
    large = [g for g in np.argsort(-sizes, kind="stable") if sizes[g] >= max(SMALLEST, SMALLEST_SHARE * count)]
    if len(large) < 2:
        return [0] * count
    # The nearest member decides for the pictures of small groups, as single linkage would at a longer step.
    to_large_RG = np.stack([apart_RR[:, group_R == g].min(1) for g in large], axis=1)
    kind_R = to_large_RG.argmin(1)
    rank_K = np.argsort(np.argsort(-np.bincount(kind_R), kind="stable"))  # who joined may have changed the order
    return [int(rank_K[kind]) for kind in kind_R]
