"""Surfaces, objects, extras: clean scenes are valid, varied, and hold what defects need."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov_lab.data.synthetic.extras import EXTRAS
from anomaly_ov_lab.data.synthetic.noise import stream
from anomaly_ov_lab.data.synthetic.objects import MAKERS, lit, objects_on, plain_ground
from anomaly_ov_lab.data.synthetic.scene import Scene, edge_width, photo_scene
from anomaly_ov_lab.data.synthetic.surfaces import SURFACES


def check(scene: Scene, size: int) -> None:
    for image in (scene.image_HW3, scene.plate_HW3):
        assert image.shape == (size, size, 3)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1
    if scene.body_HW is not None:
        assert scene.body_HW.shape == (size, size)
        assert 0 <= float(scene.body_HW.min()) <= float(scene.body_HW.max()) <= 1


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces(name: str) -> None:
    scenes = [SURFACES[name](stream(seed), size) for seed in range(3) for size in (64, 150)]
    for scene in scenes:
        check(scene, scene.size)
    assert float(np.abs(scenes[0].image_HW3 - scenes[2].image_HW3).mean()) > 1e-3


@pytest.mark.parametrize("name", MAKERS)
def test_objects_are_opaque_inside_and_clear_at_the_corner(name: str) -> None:
    for seed in range(3):
        alpha, tone = lit(stream(seed), MAKERS[name][0](stream(seed), 48), (-0.7, -0.7), 0.02)
        assert alpha.shape == (48, 48)
        assert tone.shape == (48, 48, 3)
        assert float(alpha.max()) == 1.0
        assert float(alpha[0, 0]) == 0.0
        assert 0 <= float(tone.min()) <= float(tone.max()) <= 1


def test_objects_become_parts_with_a_body() -> None:
    scenes = [objects_on(stream(seed, 1), plain_ground(stream(seed), 128)) for seed in range(40)]
    for scene in scenes:
        check(scene, 128)
        assert scene.object in MAKERS
        assert scene.parts
        assert not np.array_equal(scene.image_HW3, scene.plate_HW3)
    assert {scene.regular for scene in scenes} == {True, False}


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda f: f.__name__)
def test_extras_change_a_clean_scene_and_keep_it_valid(extra: object) -> None:
    for seed in range(3):
        before = SURFACES["paper"](stream(seed), 96)
        after = extra(stream(seed, 1), before)  # type: ignore[operator]
        check(after, 96)
        assert not np.array_equal(before.image_HW3, after.image_HW3)


def test_spots_lie_on_the_body() -> None:
    scene = SURFACES["tissue"](stream(4), 128)
    assert scene.body_HW is not None
    hits = [scene.body_HW[int(y), int(x)] > 0.5 for y, x in (scene.spot(stream(4, s)) for s in range(40))]
    assert np.mean(hits) > 0.9


def test_photo_scene_keeps_the_whole_range_of_shapes() -> None:
    for shape in ((8, 8), (300, 20), (64, 1000)):
        picture = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
        check(photo_scene(stream(1), picture, 96), 96)


def test_soft_pictures_have_wide_edges() -> None:
    rng = np.random.default_rng(0)
    sharp = rng.random((64, 64, 3), dtype=np.float32)
    ramp = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[None, :, None], (64, 64, 3))
    assert edge_width(sharp) < edge_width(ramp)
    assert edge_width(np.zeros((8, 8, 3), np.float32)) == pytest.approx(0.8)
