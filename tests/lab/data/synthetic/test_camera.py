"""The camera: windows equal the whole, twins share noise, poor cameras stay in range."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov_lab.data.synthetic.camera import random_camera
from anomaly_ov_lab.data.synthetic.generator import random_scene
from anomaly_ov_lab.data.synthetic.noise import stream


@pytest.mark.parametrize("seed", range(12))
def test_a_window_is_exposed_as_in_the_whole(seed: int) -> None:
    scene, camera = random_scene(stream(seed), 128), random_camera(stream(seed, 1), 128)
    rows, columns = slice(20, 75), slice(64, 128)
    whole = camera.expose(scene.image_HW3)
    assert np.array_equal(camera.expose(scene.image_HW3, rows, columns), whole[rows, columns])
    assert whole.dtype == np.uint8
    assert whole.shape == (128, 128, 3)


def test_a_change_beyond_reach_stays_unseen() -> None:
    for seed in range(12):
        scene, camera = random_scene(stream(seed), 96), random_camera(stream(seed, 1), 96)
        changed = scene.image_HW3.copy()
        changed[40:50, 30:44] = 1 - changed[40:50, 30:44]
        touched = (changed != scene.image_HW3).any(axis=2)
        first, second = (camera.compress(camera.expose(image)) for image in (scene.image_HW3, changed))
        beyond = ~camera.reach(touched)
        assert beyond.any()
        assert np.array_equal(first[beyond], second[beyond])


def test_cameras_differ() -> None:
    cameras = [random_camera(stream(seed), 64) for seed in range(80)]
    assert {camera.grey for camera in cameras} == {True, False}
    assert {camera.quality is None for camera in cameras} == {True, False}
    assert len({camera.flips for camera in cameras}) == 8
    assert any(camera.blur_px > 0 for camera in cameras)


def test_photos_are_not_turned() -> None:
    for seed in range(20):
        down, _, swap = random_camera(stream(seed), 64, turnable=False).flips
        assert not down
        assert not swap


def test_turn_keeps_picture_and_mask_together() -> None:
    camera = next(c for c in (random_camera(stream(s), 64) for s in range(99)) if c.flips == (True, False, True))
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[5, 40] = 255
    assert np.array_equal(camera.turn(picture)[..., 0] > 0, camera.turn(picture[..., 0] > 0))
    assert camera.turn(picture)[..., 0].sum() == 255
