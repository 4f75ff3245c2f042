"""Features made comparable between pictures: each level's tokens moved into a space where cosine means "looks alike".

A trained encoder keeps what its task needs; cosine distances between its raw tokens also count directions that say
nothing about looks. ``Projection`` applies one linear map per part and normalises each part to unit length, so that the
cosine of two concatenated tokens is the mean of the parts' cosines. Fitted maps come with a model folder. A model
without fitted parts uses its raw levels; wide ones go through fixed random directions first, which keep angles (Johnson
and Lindenstrauss, 1984).

Legend: N views, P patches, D width of the concatenated token, E width of the descriptor.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.models.config import ProjectionPart
from anomaly_ov.models.features import Features

RANDOM_WIDTH = 128
"""Raw levels wider than this are brought down to it."""


class Projection(nn.Module):
    """``projection(features) -> (N, P, D)`` unit tokens, float32. ``parts`` empty: one unfitted part per level."""

    def __init__(self, parts: tuple[ProjectionPart, ...], level_widths: tuple[int, ...]) -> None:
        super().__init__()
        self.sources = tuple(part.levels for part in parts) or tuple((k,) for k in range(len(level_widths)))
        self.maps = nn.ModuleList(
            nn.Linear(sum(level_widths[k] for k in part.levels), part.width, dtype=torch.float32) for part in parts
        )
        if not parts:
            self.maps.extend(_Directions(width) for width in level_widths)
        widths = [part.width for part in parts] or [min(width, RANDOM_WIDTH) for width in level_widths]
        self._width = sum(widths)

    @property
    def width(self) -> int:
        """D."""
        return self._width

    def forward(self, features: Features) -> Tensor:
        """Unit tokens (N, P, D), the parts concatenated; float32 whatever the features' type."""
        return _joined(self._parts(features))

    def descriptor(self, features: Features) -> Tensor:
        """One unit vector (N, E) per view: mean and spread of each part over the view. Alike views, alike vectors."""
        return _joined([torch.cat([part.mean(1), part.std(1, correction=0)], -1) for part in self._parts(features)])

    def _parts(self, features: Features) -> list[Tensor]:
        levels = [level.float() for level in features.levels_NPD]
        chosen = (torch.cat([levels[k] for k in source], -1) for source in self.sources)
        return [linear(tokens) for linear, tokens in zip(self.maps, chosen, strict=True)]


def _joined(parts: list[Tensor]) -> Tensor:
    """Parts, each made unit, as one unit vector."""
    joined: Tensor = torch.cat([F.normalize(part, dim=-1) for part in parts], -1)
    return joined.mul_(len(parts) ** -0.5)


class _Directions(nn.Module):
    """Fixed random directions (no parameters), or nothing at all for tokens that are narrow already."""

    directions: Tensor | None

    def __init__(self, width: int) -> None:
        super().__init__()
        directions = None
        if width > RANDOM_WIDTH:
            # NumPy's legacy generator is frozen: the same directions in every version.
            drawn = np.random.RandomState(width).standard_normal((width, RANDOM_WIDTH)) / RANDOM_WIDTH**0.5
            directions = torch.from_numpy(drawn.astype(np.float32))
        self.register_buffer("directions", directions, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens if self.directions is None else tokens @ self.directions
