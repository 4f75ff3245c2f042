"""What the renderer is given: the surface of a part and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rendering.fields import Array, Grid, mix


@dataclass
class Part:
    """A table with a part on it, as fields over a grid.

    ``metal`` is 1 where light is only mirrored and takes the colour, 0 where it is mostly scattered. ``rough`` is the
    slope of the invisible facets: .05 polished, .5 matt. ``grooves`` (2, H, W) are the slopes that machining marks add,
    across the marks. ``film``, if any, is the height of a clear sheet above the surface.
    """

    grid: Grid
    height: Array
    colour: Array
    metal: Array
    rough: Array
    grooves: Array
    film: Array | None = None

    @classmethod
    def table(cls, grid: Grid, colour: tuple[float, float, float], rough: float) -> Part:
        """The bare table."""
        shape = grid.shape
        return cls(
            grid,
            np.zeros(shape, np.float32),
            np.broadcast_to(np.array(colour, np.float32), (*shape, 3)).copy(),
            np.zeros(shape, np.float32),
            np.full(shape, rough, np.float32),
            np.zeros((2, *shape), np.float32),
        )

    def cover(
        self, where: Array, colour: Array | tuple[float, float, float], metal: float, rough: Array | float
    ) -> None:
        """Gives the surface another material where ``where`` is 1."""
        self.colour = mix(self.colour, colour, where)
        self.metal = mix(self.metal, metal, where)
        self.rough = mix(self.rough, rough, where)
        self.grooves = self.grooves * (1 - where)
