"""Features made comparable between pictures: each level's tokens moved into a space where cosine means "looks alike".

A trained encoder keeps what its task needs; cosine distances between its raw tokens also count directions that say
nothing about looks. ``Projection`` applies one linear map per part and normalises each part to unit length, so that the
cosine of two concatenated tokens is the mean of the parts' cosines. Fitted maps come with a model folder. A model
without fitted parts uses its raw levels; wide ones go through fixed random directions first, which keep angles (Johnson
and Lindenstrauss, 1984).

The module is what is fitted, saved and loaded; pictures are compared through its ``arrays`` (``token_maps``).

Legend: N views, P patches, D width of the concatenated token, E width of the descriptor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.models.config import ProjectionPart
from anomaly_ov.models.features import Features
from anomaly_ov.models.token_maps import RANDOM_WIDTH, TokenMap, TokenMaps, directions


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

    def arrays(self) -> TokenMaps:
        """A copy of the maps in float32, on the host."""
        return TokenMaps(tuple(_arrays(levels, own) for levels, own in zip(self.sources, self.maps, strict=True)))

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


def _arrays(levels: tuple[int, ...], own: nn.Module) -> TokenMap:
    if isinstance(own, _Directions):
        return TokenMap(levels, None if own.directions is None else _array(own.directions))
    assert isinstance(own, nn.Linear)
    return TokenMap(levels, _array(own.weight.T), _array(own.bias))


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    return np.array(values.detach().float().cpu().numpy(), np.float32, order="C")


class _Directions(nn.Module):
    """Fixed random directions (no parameters), or nothing at all for tokens that are narrow already."""

    directions: Tensor | None

    def __init__(self, width: int) -> None:
        super().__init__()
        drawn = directions(width)
        self.register_buffer("directions", None if drawn is None else torch.from_numpy(drawn), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens if self.directions is None else tokens @ self.directions
