"""Kinds of picture: clouds of descriptors that lie far apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomaly_ov.context.kinds import APART, kinds, truly_apart
from context_fixtures import World


def cloud(count: int, seed: int, centre: int = 0, spread: float = 0.05, width: int = 24) -> np.ndarray:
    """Unit vectors around the ``centre``-th axis."""
    points = spread * np.random.default_rng(seed).normal(size=(count, width))
    points[:, centre] += 1
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_one_cloud_is_one_kind() -> None:
    for seed in range(10):
        assert set(kinds(cloud(60, seed))) == {0}


def test_two_clouds_are_two_kinds_the_larger_first() -> None:
    found = kinds(np.concatenate([cloud(20, 0, centre=0), cloud(30, 1, centre=1)]))
    assert found == [1] * 20 + [0] * 30


def test_three_clouds() -> None:
    found = kinds(np.concatenate([cloud(12, k, centre=k) for k in range(3)]))
    assert [len(set(found[12 * k : 12 * k + 12])) for k in range(3)] == [1, 1, 1]
    assert set(found) == {0, 1, 2}


def test_order_only_orders() -> None:
    both = np.concatenate([cloud(20, 0, centre=0), cloud(30, 1, centre=1)])
    order = np.random.default_rng(2).permutation(50)
    expected = np.array(kinds(both))
    assert kinds(both[order]) == expected[order].tolist()


def test_a_handful_of_odd_ones_joins_the_nearest_kind() -> None:
    near_first = cloud(4, 5, centre=0) + 0.6 * np.eye(24, dtype=np.float32)[7]
    near_first /= np.linalg.norm(near_first, axis=1, keepdims=True)
    found = kinds(np.concatenate([cloud(30, 0, centre=0), near_first, cloud(20, 1, centre=1)]))
    assert found == [0] * 34 + [1] * 20


def test_the_largest_kind_is_the_first_when_the_odd_ones_have_joined() -> None:
    near_second = cloud(4, 5, centre=1) + 0.6 * np.eye(24, dtype=np.float32)[7]
    near_second /= np.linalg.norm(near_second, axis=1, keepdims=True)
    found = kinds(np.concatenate([cloud(22, 0, centre=0), near_second, cloud(20, 1, centre=1)]))
    assert found == [1] * 22 + [0] * 24


def test_a_handful_of_odd_ones_beside_one_kind_makes_no_second() -> None:
    assert set(kinds(np.concatenate([cloud(30, 0, centre=0), cloud(7, 1, centre=1)]))) == {0}


@pytest.mark.parametrize("count", [1, 2, 3, 15])
def test_few_pictures_are_never_split(count: int) -> None:
    half = count // 2
    apart = np.concatenate([cloud(half, 0, centre=0), cloud(count - half, 1, centre=1)])
    assert kinds(apart) == [0] * count


def test_sixteen_pictures_may_be_split() -> None:
    assert len(set(kinds(np.concatenate([cloud(8, 0, centre=0), cloud(8, 1, centre=1)])))) == 2


def test_equal_pictures_are_one_kind() -> None:
    """Rounded to half precision, a vector is not quite of unit length: no distance of its own is to come of it."""
    same = np.repeat(cloud(1, 0), 40, axis=0).astype(np.float16).astype(np.float32)
    assert set(kinds(same)) == {0}


def test_each_picture_there_twice_is_no_kind_of_two() -> None:
    assert set(kinds(np.repeat(cloud(30, 0), 2, axis=0))) == {0}


def test_a_slow_drift_is_one_kind() -> None:
    """The first and the last are far apart, but no step between neighbours is long."""
    angle = np.linspace(0, 2, 80)
    drift = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert set(kinds(drift)) == {0}


# ---- kinds by look that are the same object -------------------------------------------------------------------------


def tokens_of(world: World, groups: list[tuple[int, int, int]]) -> torch.Tensor:
    """(R, T, D) tokens of groups of pictures, each (how many, kind of object, odd places of 64)."""
    names = [(f"{g}-{i}", odd, kind) for g, (count, kind, odd) in enumerate(groups) for i in range(count)]
    return torch.stack([world.reference(name, odd, kind).tokens_TD for name, odd, kind in names])


@pytest.mark.parametrize("odd", [1, 6, 16])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_defect_that_changes_the_look_makes_no_other_object(odd: int, seed: int) -> None:
    tokens_RTD = tokens_of(World(seed), [(20, 0, 0), (10, 0, odd)])
    assert truly_apart([0] * 20 + [1] * 10, tokens_RTD) == [0] * 30


@pytest.mark.parametrize("seed", [0, 1])
def test_another_object_stays_apart(seed: int) -> None:
    kind_R = [0] * 20 + [1] * 10
    assert truly_apart(kind_R, tokens_of(World(seed), [(20, 0, 0), (10, 1, 0)])) == kind_R
    # Also where each of its pictures has a defect of its own.
    assert truly_apart(kind_R, tokens_of(World(seed), [(20, 0, 0), (10, 1, 8)])) == kind_R


def test_the_kinds_that_remain_are_numbered_anew() -> None:
    groups, kind_R = [(20, 0, 0), (15, 0, 6), (10, 1, 0)], [0] * 20 + [1] * 15 + [2] * 10
    assert truly_apart(kind_R, tokens_of(World(), groups)) == [0] * 35 + [1] * 10


def test_the_largest_kind_is_the_first_after_joining() -> None:
    groups, kind_R = [(20, 0, 0), (15, 1, 0), (12, 1, 6)], [0] * 20 + [1] * 15 + [2] * 12
    assert truly_apart(kind_R, tokens_of(World(), groups)) == [1] * 20 + [0] * 27


def test_joined_to_the_kind_whose_object_it_shows() -> None:
    groups, kind_R = [(20, 0, 0), (15, 1, 0), (10, 1, 6), (9, 0, 6)], [0] * 20 + [1] * 15 + [2] * 10 + [3] * 9
    assert truly_apart(kind_R, tokens_of(World(), groups)) == [0] * 20 + [1] * 25 + [0] * 9


def test_pictures_in_any_order() -> None:
    tokens_RTD = tokens_of(World(), [(20, 0, 0), (12, 0, 6), (10, 1, 0)])
    kind_R = np.array([0] * 20 + [1] * 12 + [2] * 10)
    expected = np.array(truly_apart(kind_R.tolist(), tokens_RTD))
    order = np.random.default_rng(0).permutation(len(kind_R))
    found = truly_apart(kind_R[order].tolist(), tokens_RTD[torch.from_numpy(order)])
    assert found == expected[order].tolist()


def test_how_far_apart_decides() -> None:
    """Cells between the own kind and the other one, nearer and nearer: apart at first, joined at last."""
    generator = torch.Generator().manual_seed(0)
    place_TD = torch.nn.functional.normalize(torch.randn(32, 16, generator=generator), dim=-1)
    step_TD = torch.randn(32, 16, generator=generator) / 4
    noise_RTD = torch.randn(20, 32, 16, generator=generator) / 16

    def found(steps: float) -> int:
        shift_RTD = torch.stack([torch.zeros_like(step_TD)] * 10 + [steps * step_TD] * 10)
        tokens_RTD = torch.nn.functional.normalize(place_TD + shift_RTD + noise_RTD, dim=-1)
        return len(set(truly_apart([0] * 10 + [1] * 10, tokens_RTD)))

    assert APART > 1
    assert [found(steps) for steps in (0.0, 0.1, 2.0)] == [1, 1, 2]


def test_a_single_kind_is_left_alone() -> None:
    assert truly_apart([0] * 5, tokens_of(World(), [(5, 0, 2)])) == [0] * 5


def test_a_kind_of_one_picture_is_none() -> None:
    """Nothing of its own to be measured by."""
    assert truly_apart([0] * 8 + [1], tokens_of(World(), [(8, 0, 0), (1, 1, 0)])) == [0] * 9
