"""Chooses a scene: a surface that fills the picture, or objects on a ground."""

from __future__ import annotations

from anomaly_ov.data.synthetic.noise import Rng, chance
from anomaly_ov.data.synthetic.scene import Scene
from anomaly_ov.data.synthetic.surfaces import SURFACES

NAMES = tuple(SURFACES)


def random_scene(rng: Rng, size: int) -> Scene:
    """Any scene, each surface equally likely."""
    chance(rng, 0.5)
    return SURFACES[NAMES[int(rng.integers(len(NAMES)))]](rng, size)
