"""An encoder's levels as tokens whose cosine says how alike two patches look, at every level equally.

Each level's token is made unit length and all are joined, so the cosine of two joined tokens is the mean of the levels'
cosines. Wide levels go through fixed random directions first, which keep angles (Johnson and Lindenstrauss, 1984).

Legend: N views, P patches, L width of a level, D width of the joined token, E width of the descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RANDOM_WIDTH = 256
"""Levels wider than this are brought down to it."""


def unit_tokens(levels_NPL: Sequence[Floats]) -> Floats:
    """Unit tokens (N, P, D) of an encoder's levels (N, P, L), float32."""
    return _joined([_narrow(level) for level in levels_NPL])


def descriptors(levels_NPL: Sequence[Floats]) -> Floats:
    """One unit vector (N, E) per view: mean and spread of each level over the view. Alike views, alike vectors."""
    levels = [_narrow(level) for level in levels_NPL]
    return _joined([np.concatenate([level.mean(1), level.std(1)], -1) for level in levels])


def unit(vectors: Floats) -> Floats:
    """Vectors along the last axis at unit length; those of no length stay as they are."""
    length = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(length, np.float32(1e-12)), np.float32)


def _narrow(level_NPL: Floats) -> Floats:
    width = level_NPL.shape[-1]
    return level_NPL if width <= RANDOM_WIDTH else level_NPL @ _directions(width)


@lru_cache
def _directions(width: int) -> Floats:
    # NumPy's legacy generator is frozen: the same directions in every version.
    drawn = np.random.RandomState(width).standard_normal((width, RANDOM_WIDTH)) / RANDOM_WIDTH**0.5
    return np.asarray(drawn, np.float32)


def _joined(parts: Sequence[Floats]) -> Floats:
    """Parts, each made unit, as one unit vector."""
    return np.concatenate([unit(part) for part in parts], -1) * np.float32(len(parts) ** -0.5)
