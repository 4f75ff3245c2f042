"""Chooses a scene: a surface that fills the picture, or objects on a ground."""

from __future__ import annotations

from anomaly_ov_lab.data.synthetic.extras import dressed
from anomaly_ov_lab.data.synthetic.noise import Rng, chance
from anomaly_ov_lab.data.synthetic.objects import objects_on, plain_ground
from anomaly_ov_lab.data.synthetic.scene import Scene
from anomaly_ov_lab.data.synthetic.surfaces import SURFACES

GROUNDS = ("painted", "paper", "rubber", "fabric", "brushed_metal", "wood", "concrete", "circuit_board", "stone")
OFTEN = ("solar_cell", "tissue", "cast_metal", "rubber", "circuit_board")  # drawn twice as often: they vary most
NAMES = (*SURFACES, *OFTEN)


def random_scene(rng: Rng, size: int) -> Scene:
    """One in three shows objects, on a plain backdrop or on a surface; the others a surface alone."""
    if not chance(rng, 0.33):
        scene = SURFACES[NAMES[int(rng.integers(len(NAMES)))]](rng, size)
        return dressed(rng, scene) if scene.object is None and not scene.parts and chance(rng, 0.4) else scene
    if chance(rng, 0.55):
        return objects_on(rng, plain_ground(rng, size))
    return objects_on(rng, SURFACES[GROUNDS[int(rng.integers(len(GROUNDS)))]](rng, size))
