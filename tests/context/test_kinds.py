"""Kinds of picture: clouds of descriptors that lie far apart."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.context.kinds import kinds


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
