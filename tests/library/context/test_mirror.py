"""The image against its own mirror image: when it is looked at, what it says, how much it counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from anomaly_ov.context.mirror import (
    ASYMMETRIC,
    FLIPS,
    MOST,
    SYMMETRIC,
    Flip,
    flipped,
    mirror_distance,
    mirrored_views,
    symmetry,
    worth_mirroring,
)
from anomaly_ov.context.tokens import image_tokens
from anomaly_ov.images.views import ViewsConfig, anyres_geometry
from anomaly_ov.scoring.cells import Floats
from context_fixtures import unit

SIDE, CELL = 64, 8
CELLS = SIDE // CELL
LEFT_RIGHT: Flip = (False, True)


def to_rgb(grey_HW: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(grey_HW, 0, 255).astype(np.uint8)[..., None], 3, -1)


def smooth_noise(seed: int, side: int = SIDE) -> np.ndarray:
    """(H, W): no symmetry, each 8 x 8 pixels much alike."""
    small = np.random.default_rng(seed).integers(20, 235, (side // CELL, side // CELL))
    return np.kron(small, np.ones((CELL, CELL))) + np.random.default_rng(seed).normal(0, 20, (side, side))


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.where(np.hypot(rows, columns) < 22, 220.0, 30.0)


def face(seed: int = 0) -> np.ndarray:
    """(H, W): like its left-right mirror image, unlike its upside-down one."""
    left = smooth_noise(seed)[:, : SIDE // 2]
    return np.concatenate([left, left[:, ::-1]], 1)


def features(pixels_HW3: np.ndarray) -> Floats:
    """(h, w, D) unit tokens that stand for a network's: fixed random sums of a cell's pixels."""
    directions = np.random.default_rng(7).normal(size=(CELL * CELL, 24))
    grey = pixels_HW3[..., 0].astype(np.float64) - 128
    patches = grey.reshape(CELLS, CELL, CELLS, CELL).swapaxes(1, 2).reshape(CELLS, CELLS, -1)
    return unit(patches @ directions)


def looked_at(pixels_HW3: np.ndarray, flips: tuple[Flip, ...]) -> Floats:
    return np.stack([features(one) for one in mirrored_views(pixels_HW3, flips)])


# ---- what is worth a look -------------------------------------------------------------------------------------------


def test_the_mirror_images_of_a_radially_symmetric_disc_are_worth_a_look() -> None:
    """All three agree as well; two are looked at."""
    assert worth_mirroring(to_rgb(disc())) == FLIPS[:MOST]


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_not_worth_a_look(seed: int) -> None:
    assert worth_mirroring(to_rgb(smooth_noise(seed))) == ()
    fine = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert worth_mirroring(fine) == ()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_image_is_not_worth_a_look(value: int) -> None:
    assert worth_mirroring(np.full((SIDE, SIDE, 3), value, np.uint8)) == ()


def test_only_the_mirror_images_that_agree_are_worth_a_look() -> None:
    assert worth_mirroring(to_rgb(face())) == (LEFT_RIGHT,)
    assert worth_mirroring(to_rgb(face().T)) == ((True, False),)
    turned = smooth_noise(3)
    turned[SIDE // 2 :] = turned[: SIDE // 2][::-1, ::-1]
    assert worth_mirroring(to_rgb(turned)) == ((True, True),)


def test_a_small_defect_does_not_hide_a_symmetry() -> None:
    grey = disc()
    grey[20:26, 40:46] = 0
    assert len(worth_mirroring(to_rgb(grey))) == MOST


# ---- mirroring ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", FLIPS)
def test_mirroring_twice_changes_nothing(flip: Flip) -> None:
    values = np.random.default_rng(0).random((5, 7, 3))
    once = flipped(values, flip)
    assert not np.array_equal(once, values)
    np.testing.assert_array_equal(flipped(once, flip), values)


def test_mirrored_views_are_the_pixels_mirrored() -> None:
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    found = mirrored_views(pixels_HW3, FLIPS)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found[0], pixels_HW3[:, ::-1])
    np.testing.assert_array_equal(found[1], pixels_HW3[::-1])
    np.testing.assert_array_equal(found[2], pixels_HW3[::-1, ::-1])


# ---- what they say --------------------------------------------------------------------------------------------------


def test_equals_a_plain_loop_over_the_nine_cells_around() -> None:
    generator = np.random.default_rng(0)
    tokens_hwD, mirrored_hwD = unit(generator.normal(size=(4, 6, 5))), unit(generator.normal(size=(4, 6, 5)))
    found_hw = mirror_distance(tokens_hwD, mirrored_hwD[None])
    assert found_hw.dtype == np.float32
    for y, x in np.ndindex(4, 6):
        around = [
            mirrored_hwD[r, c]
            for r in range(max(0, y - 1), min(4, y + 2))
            for c in range(max(0, x - 1), x + 2)
            if c < 6
        ]
        assert found_hw[y, x] == pytest.approx(min(1 - float(tokens_hwD[y, x] @ one) for one in around), abs=1e-5)


def test_a_shift_by_one_cell_is_no_difference() -> None:
    tokens_hwD = unit(np.random.default_rng(0).normal(size=(5, 5, 8)))
    assert mirror_distance(tokens_hwD, np.roll(tokens_hwD, 1, axis=1)[None])[:, :-1].max() < 1e-6
    assert mirror_distance(tokens_hwD, np.roll(tokens_hwD, 2, axis=1)[None])[:, :3].min() > 1e-3


def test_the_mirror_image_that_is_nearest_as_a_whole_speaks() -> None:
    tokens_hwD = unit(np.random.default_rng(0).normal(size=(5, 5, 8)))
    other_hwD = unit(np.random.default_rng(1).normal(size=(5, 5, 8)))
    near_hwD = tokens_hwD.copy()
    near_hwD[2, 2] = -near_hwD[2, 2]
    expected_hw = mirror_distance(tokens_hwD, near_hwD[None])
    for order in ([near_hwD, other_hwD], [other_hwD, near_hwD, other_hwD]):
        np.testing.assert_array_equal(mirror_distance(tokens_hwD, np.stack(order)), expected_hw)


def test_a_defect_on_one_side_of_a_symmetric_image_stands_out_at_both_mirrored_places() -> None:
    grey = face()
    grey[16:24, 40:48] = np.random.default_rng(5).integers(0, 256, (8, 8))  # cell (2, 5); its mirror place is (2, 2)
    pixels_HW3 = to_rgb(grey)
    distance_hw = mirror_distance(features(pixels_HW3), looked_at(pixels_HW3, (LEFT_RIGHT,)))
    places = {(2, 5), (2, 2)}
    others = [distance_hw[place] for place in np.ndindex(CELLS, CELLS) if place not in places]
    assert min(distance_hw[place] for place in places) > 10 * max(others) + 0.1


def own_evidence(pixels_HW3: np.ndarray, flips: tuple[Flip, ...]) -> np.ndarray:
    """(h, w): the own evidence of an image that is its base view alone."""
    geometry = anyres_geometry((SIDE, SIDE), ViewsConfig(base_size=SIDE, grids=((1, 1),), cap=None, single_crop=False))
    levels = [features(pixels_HW3).reshape(1, -1, 24)]
    mirrored = [looked_at(pixels_HW3, flips).reshape(len(flips), -1, 24)] if flips else []
    found = image_tokens(levels, (CELLS, CELLS), geometry, "ab" * 32, mirrored_FPL=mirrored)
    return found.own.whole.reshape(CELLS, CELLS)


def test_the_images_own_evidence_has_the_defect_at_both_places() -> None:
    plain, grey = face(), face()
    grey[16:24, 40:48] = np.random.default_rng(5).integers(0, 256, (8, 8))
    rise_hw = own_evidence(to_rgb(grey), (LEFT_RIGHT,)) - own_evidence(to_rgb(plain), (LEFT_RIGHT,))
    strongest = {tuple(np.unravel_index(i, (CELLS, CELLS))) for i in np.argsort(rise_hw.ravel())[-2:]}
    assert strongest == {(2, 5), (2, 2)}
    assert rise_hw[2, 2] > 0.5


def test_an_asymmetric_image_is_judged_as_without_a_mirror() -> None:
    pixels_HW3 = to_rgb(smooth_noise(2))
    np.testing.assert_array_equal(own_evidence(pixels_HW3, FLIPS), own_evidence(pixels_HW3, ()))


# ---- how much they count --------------------------------------------------------------------------------------------


def test_symmetry_falls_from_one_to_nothing_as_the_mirror_image_moves_away() -> None:
    own = np.full(9, 0.2, np.float32)
    ratios = np.linspace(0, 2, 41)
    found = [symmetry(own, np.full(9, 0.2 * ratio, np.float32)) for ratio in ratios]
    assert all(later <= earlier for earlier, later in pairwise(found))
    for ratio, value in zip(ratios, found, strict=True):
        assert 0 <= value <= 1
        if ratio < SYMMETRIC - 1e-6:
            assert value == 1
        if ratio > ASYMMETRIC + 1e-6:
            assert value == 0
    assert symmetry(own, np.full(9, 0.15, np.float32)) == pytest.approx(0.5, abs=1e-5)


def test_symmetry_rises_with_the_own_patches_distance_and_needs_no_scale() -> None:
    mirror = np.full(9, 0.15, np.float32)
    found = [symmetry(np.full(9, own, np.float32), mirror) for own in np.linspace(0.05, 0.5, 20)]
    assert all(later >= earlier for earlier, later in pairwise(found))
    assert symmetry(10 * mirror, 7 * mirror) == pytest.approx(symmetry(mirror, 0.7 * mirror), abs=1e-5)


def test_symmetry_is_that_of_the_middle_cell() -> None:
    """A defect breaks it at a few cells; whether the image is symmetric is said by most."""
    own, mirror = np.full(9, 0.2, np.float32), np.full(9, 0.05, np.float32)
    mirror[:4] = 2.0
    assert symmetry(own, mirror) == 1


def test_symmetry_of_an_image_whose_patches_are_all_alike_is_a_number() -> None:
    nothing = np.zeros(9, np.float32)
    assert 0 <= symmetry(nothing, nothing) <= 1
    assert symmetry(nothing, np.full(9, 0.1, np.float32)) == 0
