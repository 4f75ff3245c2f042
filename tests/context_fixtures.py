"""Pictures made of tokens alone: an object of 8 x 8 places, each with a look of its own, some of them odd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anomaly_ov.context.bank import Reference, reference
from anomaly_ov.context.build import Builder, Encoded
from anomaly_ov.context.tokens import PictureTokens
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source
from anomaly_ov.models.config import ContextConfig

SIDE, WIDTH = 8, 32
GEOMETRY = Geometry((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), (0, 0, SIDE, SIDE), (0, 0), SIDE)


def digest(name: str) -> str:
    """64 hex digits, as pictures have them."""
    return hashlib.sha256(name.encode()).hexdigest()


def unit(values: np.ndarray) -> Tensor:
    """Vectors along the last axis at unit length, float32."""
    return torch.nn.functional.normalize(torch.from_numpy(np.asarray(values, np.float32)), dim=-1)


def token_picture(name: str, tokens_PD: Tensor, descriptor_E: Tensor) -> PictureTokens:
    """A picture of 8 x 8 cells with these tokens."""
    return PictureTokens(tokens_PD, descriptor_E, np.ones((1, SIDE, SIDE), np.bool_), GEOMETRY, digest(name))


@dataclass
class World:
    """Objects of several kinds. ``picture``: one of them, with ``odd`` of its places looking like nothing else."""

    seed: int = 0
    noise: float = 0.08
    made: dict[str, PictureTokens] = field(default_factory=dict)

    def picture(self, name: str, odd: int = 0, kind: int = 0, noise: float | None = None) -> PictureTokens:
        own = np.random.default_rng([self.seed, int(digest(name)[:8], 16)])
        look = np.random.default_rng([self.seed, kind, 99])
        spread = self.noise if noise is None else noise
        places_PD = look.normal(size=(SIDE * SIDE, WIDTH))
        tokens_PD = places_PD + 3 * spread * own.normal(size=places_PD.shape)
        tokens_PD[own.permutation(SIDE * SIDE)[:odd]] = own.normal(size=(odd, WIDTH))
        descriptor_E = look.normal(size=WIDTH) + spread * own.normal(size=WIDTH)
        self.made[name] = token_picture(name, unit(tokens_PD), unit(descriptor_E))
        return self.made[name]

    def reference(self, name: str, odd: int = 0, kind: int = 0, tokens: int = 64) -> Reference:
        return reference(self.picture(name, odd, kind), 0.0, tokens)

    def builder(self, expert_logit: float = 0.0, config: ContextConfig | None = None) -> Builder:
        """Builds contexts of the pictures made so far; a source whose name was never made cannot be read."""

        def encode(sources: Sequence[Source]) -> Iterator[Encoded | None]:
            for source in sources:
                made = self.made.get(source.id)
                yield None if made is None else Encoded(made, expert_logit)

        return Builder(encode, config or ContextConfig(), "test", torch.device("cpu"), Limits())


def sources(names: Sequence[str]) -> list[Source]:
    """Sources by name. No such file is there, so their names stand for their bytes."""
    return [Source(f"/nowhere/{name}", name) for name in names]
