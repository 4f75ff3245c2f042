"""``Projection`` in plain arrays: the same maps, for those who compare pictures and need no torch.

Legend: N views, P patches, L width of the levels that a part reads, D width of the concatenated token, E width of the
descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RANDOM_WIDTH = 128
"""Raw levels wider than this are brought down to it."""


@dataclass(frozen=True)
class TokenMap:
    """One part: the concatenated ``levels`` times ``matrix_LD`` (None: as they are) plus ``offset_D``."""

    levels: tuple[int, ...]
    matrix_LD: Floats | None = None
    offset_D: Floats | None = None

    def __call__(self, levels_NPL: Sequence[Floats]) -> Floats:
        own = [levels_NPL[k] for k in self.levels]
        tokens_NPD = own[0] if len(own) == 1 else np.concatenate(own, -1)
        if self.matrix_LD is not None:
            tokens_NPD = tokens_NPD @ self.matrix_LD
        return tokens_NPD if self.offset_D is None else tokens_NPD + self.offset_D


@dataclass(frozen=True)
class TokenMaps:
    """All parts of a projection; ``levels_NPL`` are an encoder's, float32."""

    parts: tuple[TokenMap, ...]

    @classmethod
    def raw(cls, level_widths: Sequence[int]) -> TokenMaps:
        """One unfitted part per level."""
        return cls(tuple(TokenMap((k,), directions(width)) for k, width in enumerate(level_widths)))

    def tokens(self, levels_NPL: Sequence[Floats]) -> Floats:
        """Unit tokens (N, P, D), the parts concatenated."""
        return _joined([part(levels_NPL) for part in self.parts])

    def descriptor(self, levels_NPL: Sequence[Floats]) -> Floats:
        """One unit vector (N, E) per view: mean and spread of each part over the view. Alike views, alike vectors."""
        parts = [part(levels_NPL) for part in self.parts]
        return _joined([np.concatenate([part.mean(1), part.std(1)], -1) for part in parts])


def directions(width: int) -> Floats | None:
    """Fixed random directions (``width``, ``RANDOM_WIDTH``) for a raw level; None for one that is narrow already."""
    if width <= RANDOM_WIDTH:
        return None
    # NumPy's legacy generator is frozen: the same directions in every version.
    drawn = np.random.RandomState(width).standard_normal((width, RANDOM_WIDTH)) / RANDOM_WIDTH**0.5
    return np.asarray(drawn, np.float32)


def unit(vectors: Floats) -> Floats:
    """Vectors along the last axis at unit length; those of no length stay as they are."""
    length = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(length, np.float32(1e-12)), np.float32)


def _joined(parts: Sequence[Floats]) -> Floats:
    """Parts, each made unit, as one unit vector."""
    return np.concatenate([unit(part) for part in parts], -1) * np.float32(len(parts) ** -0.5)
