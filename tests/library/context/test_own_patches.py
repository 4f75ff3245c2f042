"""The image as its own reference, against a plain double loop."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.context import own_patches as module
from anomaly_ov.context.own_patches import REACH, own_patch_distance
from anomaly_ov.scoring.cells import Floats
from context_fixtures import unit


def grid(rows: int, columns: int) -> np.ndarray:
    return np.argwhere(np.ones((rows, columns), np.bool_))


def tokens(count: int, width: int = 8, seed: int = 0) -> Floats:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def loop(tokens_PD: Floats, places_P2: np.ndarray, others: range) -> list[float]:
    """Written out: the most similar patch that is more than ``REACH`` rows or columns away."""
    found = []
    for one, place in zip(tokens_PD, places_P2, strict=True):
        similar = [
            float(one.astype(np.float64) @ tokens_PD[o].astype(np.float64))
            for o in others
            if max(abs(place - places_P2[o])) > REACH
        ]
        found.append(1 - max(similar) if similar else 0.0)
    return found


@pytest.mark.parametrize("block_values", [1, 7, 40, 333, 2**21])
@pytest.mark.parametrize("most_others", [1, 5, 24, 4096])
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_double_loop_for_any_size_and_any_block(
    monkeypatch: pytest.MonkeyPatch, seed: int, block_values: int, most_others: int
) -> None:
    generator = np.random.default_rng(seed)
    rows, columns = generator.integers(1, 9, 2).tolist()
    # Not all of the grid shows image, and crops come one after the other rather than row by row.
    places_P2 = generator.permutation(grid(rows, columns))[: max(1, int(rows * columns * 0.8))]
    tokens_PD = tokens(len(places_P2), seed=seed)
    monkeypatch.setattr(module, "BLOCK_VALUES", block_values)
    monkeypatch.setattr(module, "MOST_OTHERS", most_others)
    found_P = own_patch_distance(tokens_PD, places_P2)
    assert found_P.dtype == np.float32
    others = range(0, len(places_P2), -(-len(places_P2) // most_others))
    assert len(others) <= most_others
    np.testing.assert_allclose(found_P, loop(tokens_PD, places_P2, others), atol=1e-6)


def test_an_odd_patch_in_a_uniform_texture_stands_out() -> None:
    generator = np.random.default_rng(0)
    tokens_PD = unit(tokens(1) + 0.1 * generator.normal(size=(100, 8)))
    tokens_PD[37] = tokens(1, seed=9)
    distance_P = own_patch_distance(tokens_PD, grid(10, 10))
    assert distance_P.argmax() == 37
    assert distance_P[37] > 5 * np.delete(distance_P, 37).max()


def test_what_repeats_is_not_suspicious_and_neighbours_do_not_count_as_repeating() -> None:
    """A defect of two cells side by side is not excused by itself; two like it far apart excuse each other."""
    texture_PD = unit(tokens(1) + 0.1 * np.random.default_rng(0).normal(size=(100, 8)))
    odd_D = tokens(1, seed=9)[0]
    together_PD, apart_PD = texture_PD.copy(), texture_PD.copy()
    together_PD[[44, 45]] = odd_D
    apart_PD[[44, 47]] = odd_D
    assert own_patch_distance(together_PD, grid(10, 10))[[44, 45]].min() > 0.3
    assert own_patch_distance(apart_PD, grid(10, 10))[[44, 47]].max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2), (2, 1)])
def test_too_few_patches_say_nothing(rows: int, columns: int) -> None:
    assert own_patch_distance(tokens(rows * columns), grid(rows, columns)).tolist() == [0] * (rows * columns)


def test_of_three_by_three_the_middle_has_nobody_to_be_compared_with() -> None:
    distance_P = own_patch_distance(tokens(9), grid(3, 3))
    assert distance_P[4] == 0
    assert np.delete(distance_P, 4).min() > 0


def test_no_patches_at_all() -> None:
    assert own_patch_distance(np.empty((0, 8), np.float32), np.empty((0, 2), np.int64)).shape == (0,)


def test_never_negative_and_inputs_stay_as_they_are() -> None:
    """Rounding may make a cosine slightly more than one."""
    long_PD = np.tile(tokens(1) * np.float32(1 + 1e-6), (30, 1))
    before_PD = long_PD.copy()
    assert own_patch_distance(long_PD, grid(5, 6)).min() >= 0
    assert np.array_equal(long_PD, before_PD)
