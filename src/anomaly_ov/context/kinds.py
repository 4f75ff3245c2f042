"""Splits a mixed folder into kinds of picture: groups whose looks are connected, far from each other.

Single linkage on descriptors: two pictures are of one kind when a chain of pictures leads from one to the other
without a step much longer than those usual between neighbours. A group of a few pictures is no kind but a handful of
odd ones: it joins the kind that it is nearest to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from anomaly_ov.context.nearest import lowest_mean, nearest

STEP = 2.0
"""A step of up to so many times the 95 % quantile of the steps to the nearest picture still connects."""

APART = 1.5
"""Cells of another kind lie at least so many times as far from this kind as from their own (see ``truly_apart``)."""

PROBED = 8
SMALLEST_SHARE = 0.05
SMALLEST = 8


def kinds(descriptor_RE: npt.NDArray[np.float32]) -> list[int]:
    """Kind 0, 1, ... of each of R pictures from unit descriptors, the largest kind first."""
    count = len(descriptor_RE)
    if count < 2 * SMALLEST:
        return [0] * count
    # Here, because it takes long to import and few pictures never need it.
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

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


def truly_apart(kind_R: list[int], tokens_RTD: torch.Tensor) -> list[int]:
    """``kind_R`` with those kinds joined whose cells are the same: a defect may change the look, but not the object.

    In an anomalous picture of the same object most cells are as near to the normal pictures as to each other; in a
    picture of another object hardly any are. Each kind is probed against the larger ones, by the median cell. The
    largest kind comes first.
    """
    count = max(kind_R) + 1
    joined = list(range(count))
    for kind in range(1, count):
        for larger in range(kind):
            if joined[larger] == larger and _ratio(kind, larger, kind_R, tokens_RTD) < APART:
                joined[kind] = larger
                break
    found_R = [joined[kind] for kind in kind_R]
    ranked = sorted(set(joined), key=lambda kept: (-found_R.count(kept), kept))  # who joined may change the order
    return [ranked.index(kept) for kept in found_R]


def _ratio(kind: int, other: int, kind_R: list[int], tokens_RTD: torch.Tensor) -> float:
    """How much farther the median cell of ``kind`` lies from ``other`` than from the rest of its own kind."""
    own = [r for r, k in enumerate(kind_R) if k == kind]
    others = [r for r, k in enumerate(kind_R) if k == other]
    count = min(len(own) - 1, len(others))  # as many on both sides: more references lie nearer
    if count < 1:
        return 0.0
    ratios = []
    for probe in own[:PROBED]:
        rest = [r for r in own if r != probe][:count]
        to_own = _median_cell(tokens_RTD, probe, rest)
        ratios.append(_median_cell(tokens_RTD, probe, others[:count]) / max(to_own, 1e-6))
    return float(np.median(ratios))


def _median_cell(tokens_RTD: torch.Tensor, probe: int, references: list[int]) -> float:
    return float(lowest_mean(nearest(tokens_RTD[probe], tokens_RTD[references]), 0.6).median())
