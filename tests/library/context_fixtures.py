"""Pictures made of tokens alone: an object of places, each with a look of its own, some of them odd.

The base view shows it in 8 x 8 cells, two crops side by side in 8 x 8 cells each: a cell of the base view shows what
two cells of the crops show in detail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from anomaly_ov.context.bank import Reference, reference
from anomaly_ov.context.build import Builder, Encoded
from anomaly_ov.context.tokens import ImageTokens
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source
from anomaly_ov.models.config import ScoringConfig
from anomaly_ov.models.token_maps import unit as of_unit_length
from anomaly_ov.scoring.cells import Cells, Floats, Scales

SIDE, WIDTH = 8, 32
HIGH, WIDE = SIDE, 2 * SIDE
"""Pixels of a picture: one for each cell of the crops."""

CELLS = Scales(SIDE * SIDE, 2 * SIDE * SIDE)
GEOMETRY = Geometry((WIDE, HIGH), (WIDE, HIGH), (WIDE, HIGH), (0, 0, WIDE, HIGH), (2, 1), SIDE)
BOTH = ("whole", "detail")


def digest(name: str) -> str:
    """64 hex digits, as pictures have them."""
    return hashlib.sha256(name.encode()).hexdigest()


def unit(values: np.ndarray) -> Floats:
    """Vectors along the last axis at unit length, float32."""
    return of_unit_length(np.asarray(values, np.float32))


def random_units(generator: np.random.Generator, *shape: int) -> Floats:
    """Unit vectors of all directions."""
    return unit(generator.normal(size=shape))


def own_of(tokens: Scales[Floats]) -> Scales[Floats]:
    """Own evidence that tells which token it belongs to: equal tokens have equal evidence, similar ones similar."""
    return tokens.map(lambda one_PD: np.ascontiguousarray(one_PD[:, 0]) / np.float32(4))


def token_picture(name: str, tokens: Scales[Floats], descriptor_E: Floats) -> ImageTokens:
    """A picture with these tokens; of ``CELLS`` cells where it is to have a map that can be looked at."""
    cells = Cells.of(GEOMETRY, (SIDE, SIDE)) if tokens.map(len) == CELLS else _in_a_row(tokens.map(len))
    return ImageTokens(tokens, own_of(tokens), descriptor_E, cells, digest(name))


def _in_a_row(counts: Scales[int]) -> Cells:
    """So many cells side by side in the base view and in one crop."""
    side = max(counts.whole, counts.detail)
    shown_Nhw = np.arange(side) < np.array([[[counts.whole]], [[counts.detail]]])
    return Cells(shown_Nhw, Geometry((side, side), (side, side), (side, side), (0, 0, side, side), (1, 1), side))


def of_one_view(picture: ImageTokens) -> ImageTokens:
    """The same picture shown by its base view alone."""
    geometry = Geometry((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), (0, 0, SIDE, SIDE), (0, 0), SIDE)
    tokens = Scales(picture.tokens.whole, picture.tokens.detail[:0])
    return replace(picture, tokens=tokens, own=own_of(tokens), cells=Cells.of(geometry, (SIDE, SIDE)))


def detail_of(places: Sequence[int]) -> list[int]:
    """The cells of the crops that show what these cells of the base view show, two each."""
    found = []
    for place in places:
        row, column = divmod(place, SIDE)
        crop, left = divmod(2 * column, SIDE)
        found += [(crop * SIDE + row) * SIDE + left + k for k in (0, 1)]
    return found


def pixels_of(places: Sequence[int]) -> np.ndarray:
    """(H, W) bool: the pixels that these cells of the base view show."""
    mask_HW = np.zeros((HIGH, SIDE, 2), np.bool_)
    for place in places:
        mask_HW[divmod(place, SIDE)] = True
    return mask_HW.reshape(HIGH, WIDE)


def marked(picture: ImageTokens, places: Sequence[int], scales: Sequence[str] = BOTH, seed: int = 3) -> ImageTokens:
    """The same with ``places`` of the base view's cells looking like nothing else, at these scales only."""
    generator = np.random.default_rng(seed)
    whole_QD, detail_PD = picture.tokens.whole.copy(), picture.tokens.detail.copy()
    if "whole" in scales:
        whole_QD[list(places)] = random_units(generator, len(places), whole_QD.shape[1])
    if "detail" in scales:
        detail_PD[detail_of(places)] = random_units(generator, 2 * len(places), detail_PD.shape[1])
    tokens = Scales(whole_QD, detail_PD)
    return replace(picture, tokens=tokens, own=own_of(tokens))


@dataclass
class World:
    """Objects of several kinds. ``picture``: one of them, with ``odd`` of its places looking like nothing else."""

    seed: int = 0
    noise: float = 0.08
    made: dict[str, ImageTokens] = field(default_factory=dict)

    def picture(self, name: str, odd: int = 0, kind: int = 0, noise: float | None = None) -> ImageTokens:
        own = np.random.default_rng([self.seed, int(digest(name)[:8], 16)])
        look = np.random.default_rng([self.seed, kind, 99])
        spread = self.noise if noise is None else noise
        whole_QD, detail_PD = (look.normal(size=(cells, WIDTH)) for cells in (CELLS.whole, CELLS.detail))
        tokens = Scales(whole_QD, detail_PD).map(
            lambda places_PD: unit(places_PD + 3 * spread * own.normal(size=places_PD.shape))
        )
        descriptor_E = unit(look.normal(size=WIDTH) + spread * own.normal(size=WIDTH))
        places = own.permutation(CELLS.whole)[:odd].tolist()
        seed = int(own.integers(2**31))
        self.made[name] = marked(token_picture(name, tokens, descriptor_E), places, seed=seed)
        return self.made[name]

    def reference(self, name: str, odd: int = 0, kind: int = 0, tokens: Scales[int] = CELLS) -> Reference:
        return reference(self.picture(name, odd, kind), tokens)

    def builder(self, config: ScoringConfig | None = None) -> Builder:
        """Builds contexts of the pictures made so far; a source whose name was never made cannot be read."""

        def encode(sources: Sequence[Source]) -> Iterator[Encoded | None]:
            for source in sources:
                made = self.made.get(source.id)
                yield None if made is None else encoded(made)

        return Builder(encode, config or ScoringConfig(), "test", Limits())


def encoded(picture: ImageTokens) -> Encoded:
    """The picture as a context builder gets it; the expert says nothing of it."""
    return Encoded(picture, np.full(picture.cells.shown_Nhw.shape, 0.5, np.float32), 0.5)


def sources(names: Sequence[str]) -> list[Source]:
    """Sources by name. No such file is there, so their names stand for their bytes."""
    return [Source(f"/nowhere/{name}", name) for name in names]


def assert_same(first: Scales[Floats], second: Scales[Floats]) -> None:
    """Bit by bit, at both scales."""
    assert np.array_equal(first.whole, second.whole)
    assert np.array_equal(first.detail, second.detail)


def held(array: Floats) -> int:
    """Bytes that are kept as long as ``array`` is: its own, or those of what it is a part of."""
    return held(array.base) if isinstance(array.base, np.ndarray) else array.nbytes
