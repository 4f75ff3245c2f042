"""The samples: shape, determinism, visible and measured masks, photos, decoys, bad input."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

from anomaly_ov.errors import UsageError
from anomaly_ov_lab.data.synthetic import KINDS, generate, normal
from anomaly_ov_lab.data.synthetic.defects import DEFECTS, Job
from anomaly_ov_lab.data.synthetic.generator import random_scene, trace, visible
from anomaly_ov_lab.data.synthetic.noise import stream

FLAT = np.full((40, 60, 3), 120, np.uint8)


def photo(seed: int) -> np.ndarray:
    return normal(seed, 96).image_HW3[:, :80]


def test_kinds_cover_what_was_asked_for() -> None:
    asked = {"scratch", "crack", "dent", "hole", "stain", "contamination", "missing_part", "misplaced_part",
             "colour_shift", "blur", "burn", "corrosion", "print_error", "deformation"}  # fmt: skip
    assert asked <= set(KINDS)
    assert len(set(KINDS)) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_shows_and_is_recorded(kind: str) -> None:
    for seed in range(3):
        sample = generate(seed, 96, kind=kind)
        assert sample.image_HW3.shape == (96, 96, 3)
        assert sample.image_HW3.dtype == np.uint8
        assert sample.mask_HW.shape == (96, 96)
        assert sample.mask_HW.dtype == np.bool_
        assert sample.mask_HW.any()
        assert {defect.kind for defect in sample.facts.defects} == {kind}


@pytest.mark.parametrize("kind", KINDS)
def test_zero_strength_changes_nothing(kind: str) -> None:
    """A paste of strength zero is the identity to the bit, so no classifier can find its inside."""
    for seed in range(4):
        rng = stream(seed)
        scene = random_scene(rng, 96)
        edit = DEFECTS[kind](Job(scene, scene.image_HW3, rng, 0.0, 0.05))
        assert not edit.touched(scene.image_HW3).any()


@pytest.mark.parametrize("kind", KINDS)
def test_edits_stay_in_range_and_leave_their_input_alone(kind: str) -> None:
    for seed in range(3):
        rng = stream(seed, 1)
        scene = random_scene(rng, 96)
        before = scene.image_HW3.copy()
        edit = DEFECTS[kind](Job(scene, scene.image_HW3, rng, 1.0, 0.03))
        assert np.array_equal(scene.image_HW3, before)
        assert edit.view_hw3.dtype == np.float32
        assert float(edit.view_hw3.min()) >= 0
        assert float(edit.view_hw3.max()) <= 1


def test_same_seed_same_bytes_whatever_the_global_state() -> None:
    first = [generate(seed, 96) for seed in range(6)] + [normal(seed, 96) for seed in range(6)]
    np.random.seed(1)
    random.seed(1)
    with ThreadPoolExecutor(3) as pool:
        second = list(pool.map(lambda s: generate(s, 96), range(6))) + list(pool.map(lambda s: normal(s, 96), range(6)))
    for a, b in zip(first, second, strict=True):
        assert a.image_HW3.tobytes() == b.image_HW3.tobytes()
        assert a.mask_HW.tobytes() == b.mask_HW.tobytes()
        assert a.facts == b.facts


def test_different_seeds_give_different_pictures() -> None:
    assert len({normal(seed, 64).image_HW3.tobytes() for seed in range(30)}) == 30


def test_mask_is_where_the_twin_differs() -> None:
    for seed in range(20, 40):
        one = trace(seed, 128)
        mask, difference = one.sample.mask_HW, np.abs(one.sample.image_HW3.astype(int) - one.twin_HW3).max(axis=2)
        assert np.median(difference[mask]) > 2 * np.median(difference[~mask])
        assert np.array_equal(one.sample.image_HW3, generate(seed, 128).image_HW3)
        assert ndimage.distance_transform_edt(~one.reach_HW)[mask].max() <= 3  # averaging and closing add this much


def test_twin_is_the_normal_picture_of_the_seed() -> None:
    same = [np.array_equal(trace(seed, 64).twin_HW3, normal(seed, 64).image_HW3) for seed in range(12)]
    assert np.mean(same) > 0.8


def test_normal_has_no_defects() -> None:
    sample = normal(5, 80, photo(1))
    assert not sample.mask_HW.any()
    assert sample.facts.defects == ()
    assert sample.facts.surface == "photo"


def test_photo_is_the_background() -> None:
    picture = np.zeros((50, 90, 3), np.uint8)
    picture[..., 2] = 200
    sample = normal(3, 64, picture)
    assert sample.facts.surface == "photo"
    assert generate(3, 64, picture).mask_HW.any()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_photos_still_get_visible_defects(level: int) -> None:
    flat = np.full((30, 30, 3), level, np.uint8)
    for seed in range(4):
        assert generate(seed, 64, flat).mask_HW.any()
        assert generate(seed, 64, flat, "deformation").mask_HW.any()


def test_sizes_of_defects_are_spread() -> None:
    shares = [float(generate(seed, 64).mask_HW.mean()) for seed in range(120)]
    assert min(shares) < 0.01
    assert max(shares) > 0.12
    assert max(shares) < 0.8


def test_several_defects_are_told_apart() -> None:
    counts = [len(generate(seed, 64).facts.defects) for seed in range(60)]
    assert set(counts) == {1, 2, 3}


def test_bare_difference_below_the_bar_is_no_mask() -> None:
    faint = np.zeros((32, 32), np.float32)
    faint[10:20, 10:20] = 4 / 255
    assert not visible(faint).any()
    assert visible(faint * 10)[12:18, 12:18].all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "negative"),
        ({"seed": 1, "size": 8}, "size 8"),
        ({"seed": 1, "size": 5000}, "size 5000"),
        ({"seed": 1, "kind": "gremlin"}, "gremlin"),
        ({"seed": 1, "photo_HW3": FLAT[..., 0]}, r"\(40, 60\)"),
        ({"seed": 1, "photo_HW3": FLAT.astype(np.float32)}, "float32"),
        ({"seed": 1, "photo_HW3": FLAT[:4]}, r"\(4, 60, 3\)"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        generate(**arguments)  # type: ignore[arg-type]
