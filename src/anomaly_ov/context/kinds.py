"""Splits a mixed folder into kinds of picture: groups whose cells are connected, far from each other.

How far two pictures lie apart is said by their median cell: a defect changes some cells of a picture, another object
changes nearly all. Single linkage on that: two pictures are of one kind when a chain of pictures leads from one to the
other without a step much longer than those usual between neighbours. A group of a few pictures is no kind; it joins
what is nearest to it, be that another such group, with which it may become a kind.

Legend: R references of T tokens, D token width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anomaly_ov.context.nearest import nearest

Floats = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.float32]

STEP = 1.2
"""A step of up to so many times the usual one still connects."""

USUAL_STEP = 0.75
"""Which quantile of the steps that connect all pictures is the usual one: odd pictures and rare kinds take longer ones.

Not of the steps to the nearest picture: where each picture is there twice these are 0.
"""

COPY, LOOKALIKES = 0.1, 0.1
"""A step shorter than this share of the way to the farthest of a picture's lookalikes, the nearest tenth of the others,
leads to a near-copy and tells nothing."""

PROBED = 64
"""Cells of a picture that are compared."""

SMALLEST_SHARE = 0.05
SMALLEST = 8

UNLIKE = 0.62
"""Median cells farther apart show another kind of object: above 95 % of pairs of good images of one object (30 objects
of the training sets, five images each), below half of the pairs of two objects."""


def apart(distance_P: npt.NDArray[np.floating]) -> float:
    """How far the median cell lies from the references, 0..2."""
    return float(np.median(distance_P))


def kinds_of_references(tokens_RTD: Tokens) -> list[int]:
    """As ``kinds``, of images known to be good: even a single one may be a kind, if it looks like none of the
    others."""
    count = len(tokens_RTD)
    if count == 1 or count >= 2 * SMALLEST:
        return kinds(tokens_RTD)
    apart_RR = cells_apart(tokens_RTD)
    left, found = set(range(count)), list[list[int]]()
    while left:
        group = [left.pop()]
        for one in group:  # it grows while it is walked through
            group += (near := {other for other in left if apart_RR[one, other] <= UNLIKE})
            left -= near
        found.append(group)
    return _numbered(found, count)


def cells_apart(tokens_RTD: Tokens) -> Floats:
    """(R, R), symmetric, 0..2: how far the median cell of one picture lies from the nearest cell of the other."""
    rows = [np.quantile(nearest(tokens_TD[:PROBED], tokens_RTD), 0.5, axis=0) for tokens_TD in tokens_RTD]
    apart_RR = np.stack(rows).astype(np.float64)
    apart_RR = (apart_RR + apart_RR.T) / 2
    np.fill_diagonal(apart_RR, 0)
    return apart_RR


def kinds(tokens_RTD: Tokens) -> list[int]:
    """Kind 0, 1, ... of each of R pictures, the largest kind first."""
    count = len(tokens_RTD)
    if count < 2 * SMALLEST:
        return [0] * count
    # Here, because it takes long to import and few pictures never need it.
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    apart_RR = cells_apart(tokens_RTD)
    merges = linkage(squareform(apart_RR, checks=False), "single")
    cut = _longest_step(merges[:, 2], apart_RR)
    return _numbered(_climb(merges, apart_RR, cut, max(SMALLEST, SMALLEST_SHARE * count)), count)


def _numbered(found: list[list[int]], count: int) -> list[int]:
    """The kind of each picture: the largest group is kind 0, of equal ones that whose first picture comes first."""
    kind_R = [0] * count
    for kind, members in enumerate(sorted(found, key=lambda group: (-len(group), min(group)))):
        for r in members:
            kind_R[r] = kind
    return kind_R


def _longest_step(steps: Floats, apart_RR: Floats) -> float:
    """How long a step may be that still connects two pictures of a kind; ``steps``: those that connect all of them."""
    count = len(apart_RR)
    others_RR = apart_RR[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    to_lookalikes = float(np.median(np.quantile(others_RR, LOOKALIKES, axis=1)))
    telling = steps[steps >= COPY * to_lookalikes]
    return STEP * float(np.quantile(telling if len(telling) else steps, USUAL_STEP))


def _climb(merges: Floats, apart_RR: Floats, cut: float, smallest: float) -> list[list[int]]:
    """The kinds at the root of the tree of ``merges`` (as scipy's ``linkage`` gives them, shortest step first).

    A branch is a list of groups: kinds, or one group that is too small to be a kind yet.
    """
    branches: dict[int, list[list[int]]] = {r: [[r]] for r in range(len(apart_RR))}
    for step, (left, right, height, _) in enumerate(merges):
        one, other = branches.pop(int(left)), branches.pop(int(right))
        if height <= cut:  # the shortest steps come first: neither holds more than one group yet
            joined = [one[0] + other[0]]
        elif len(one[0]) >= smallest and len(other[0]) >= smallest:
            joined = [*one, *other]
        elif len(one[0]) >= smallest:
            joined = _joined(one, other[0], apart_RR)
        else:
            joined = _joined(other, one[0], apart_RR)
        branches[len(apart_RR) + step] = joined
    (root,) = branches.values()
    return root


def _joined(groups: list[list[int]], few: list[int], apart_RR: Floats) -> list[list[int]]:
    """``groups`` with ``few`` in the one that is nearest to any of them."""
    to_group = [apart_RR[np.ix_(few, group)].min() for group in groups]
    nearest_group = int(np.argmin(to_group))
    return [group + few if k == nearest_group else group for k, group in enumerate(groups)]
