"""Kinds of picture: objects whose cells lie far apart, whatever defects some of their pictures have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from anomaly_ov.context.kinds import (
    PROBED,
    SMALLEST,
    SMALLEST_SHARE,
    STEP,
    UNLIKE,
    apart,
    cells_apart,
    kinds,
    kinds_of_references,
)
from anomaly_ov.scoring.cells import Floats
from context_fixtures import CELLS, WIDTH, World, detail_of, random_units, unit

EYE = 1e-6


def tokens_of(world: World, groups: Sequence[tuple[int, int, int]], noise: float | None = None) -> Floats:
    """(R, T, D) tokens of groups of pictures, each (how many, kind of object, odd places of 64)."""
    if noise is not None:
        world.noise = noise
    names = [(f"{g}-{i}", odd, kind) for g, (count, kind, odd) in enumerate(groups) for i in range(count)]
    return np.stack([world.reference(name, odd, kind).tokens.detail for name, odd, kind in names])


def shifted(tokens_RTD: Floats, far: float, seed: int = 5) -> Floats:
    """All cells moved by the same ``far`` for every picture: an object that looks somewhat different."""
    step_TD = random_units(np.random.default_rng(seed), *tokens_RTD.shape[1:])
    return unit(tokens_RTD + far * step_TD)


# ---- how far apart two pictures lie ---------------------------------------------------------------------------------


def test_cells_apart_is_symmetric_with_nothing_between_a_picture_and_itself() -> None:
    apart_RR = cells_apart(tokens_of(World(), [(6, 0, 0), (4, 1, 3)]))
    assert apart_RR.shape == (10, 10)
    np.testing.assert_array_equal(apart_RR, apart_RR.T)
    assert (np.diag(apart_RR) == 0).all()
    assert apart_RR[~np.eye(10, dtype=bool)].min() > 0
    assert apart_RR.max() <= 2
    assert apart_RR[:6, 6:].min() > 2 * apart_RR[:6, :6].max()


def test_cells_apart_is_symmetric_where_one_picture_shows_more_than_the_other() -> None:
    """All that the first shows is in the second, but half of the second is in no cell of the first."""
    generator = np.random.default_rng(0)
    first_TD, more_TD = random_units(generator, PROBED // 4, WIDTH), random_units(generator, 3 * PROBED // 4, WIDTH)
    tokens_RTD = np.stack([np.tile(first_TD, (4, 1)), np.concatenate([first_TD, more_TD])])
    apart_RR = cells_apart(tokens_RTD)
    assert apart_RR[0, 1] == apart_RR[1, 0] > 0.1


def turned(cells_TD: Floats, other_TD: Floats, angle: float) -> Floats:
    """Unit vectors at ``angle`` from ``cells_TD``, towards ``other_TD``."""
    across_TD = unit(other_TD - (other_TD * cells_TD).sum(-1, keepdims=True) * cells_TD)
    return float(np.cos(angle)) * cells_TD + float(np.sin(angle)) * across_TD


def test_cells_apart_is_the_median_cells_distance() -> None:
    generator = np.random.default_rng(0)
    cells_TD = np.eye(WIDTH, dtype=np.float32)
    tokens_RTD = np.stack([cells_TD, turned(cells_TD, random_units(generator, WIDTH, WIDTH), 0.3)])
    assert cells_apart(tokens_RTD)[0, 1] == pytest.approx(1 - np.cos(0.3), abs=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_a_defect_in_less_than_half_of_the_cells_does_not_move_a_picture(share: float) -> None:
    generator = np.random.default_rng(0)
    cells_TD = np.eye(WIDTH, dtype=np.float32)
    other_TD = turned(cells_TD, random_units(generator, WIDTH, WIDTH), 0.3)
    defect_TD = other_TD.copy()
    count = int(share * WIDTH)
    defect_TD[:count] = -cells_TD[:count]  # as far from everything as can be
    before, after = (cells_apart(np.stack([cells_TD, one_TD]))[0, 1] for one_TD in (other_TD, defect_TD))
    assert after == pytest.approx(before, abs=1e-5)
    most_TD = other_TD.copy()
    most_TD[: int(0.6 * WIDTH)] = -cells_TD[: int(0.6 * WIDTH)]
    assert cells_apart(np.stack([cells_TD, most_TD]))[0, 1] > 5 * before


def test_cells_beyond_those_probed_change_little_and_cost_nothing() -> None:
    """Each picture is asked for so many of its cells, the first ones; all of the other picture's may answer."""
    world = World()
    tokens_RTD = tokens_of(world, [(2, 0, 0)])
    assert tokens_RTD.shape[1] == CELLS.detail > PROBED
    changed_RTD = tokens_RTD.copy()
    changed_RTD[0, PROBED:] = tokens_RTD[1, :1]  # whatever lies near cells of neither
    found, before = cells_apart(changed_RTD), cells_apart(tokens_RTD)
    from_second = nearest_median(tokens_RTD[1], changed_RTD[0])
    assert found[0, 1] == pytest.approx((nearest_median(tokens_RTD[0], tokens_RTD[1]) + from_second) / 2, abs=EYE)
    assert found[0, 1] != pytest.approx(before[0, 1], abs=EYE)


def nearest_median(query_TD: Floats, other_TD: Floats) -> float:
    """Median over the first ``PROBED`` cells of the distance to the nearest cell, written out."""
    return float(np.median(1 - (query_TD[:PROBED] @ other_TD.T).max(1)))


# ---- one kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.01, 0.08, 0.3])
def test_one_object_is_one_kind(noise: float) -> None:
    for seed in range(3):
        assert set(kinds(tokens_of(World(seed), [(40, 0, 0)], noise))) == {0}


@pytest.mark.parametrize("odd", [1, 6, 16, 24])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_defect_in_forty_percent_of_the_pictures_makes_no_kind(odd: int, seed: int) -> None:
    assert set(kinds(tokens_of(World(seed), [(36, 0, 0), (24, 0, odd)]))) == {0}


@pytest.mark.parametrize("places", [4, 16, 24])
def test_the_same_local_defect_in_forty_percent_of_the_pictures_makes_no_kind(places: int) -> None:
    """It looks alike in all of them, so they share it; but most of their cells they share with all others."""
    world = World()
    tokens_RPD = np.stack([world.picture(f"p{i}").tokens.detail for i in range(60)])
    defect = [world.picture(f"p{i}", kind=7).tokens.detail for i in range(24)]
    cells = detail_of(range(places))
    for r, defect_PD in enumerate(defect):
        tokens_RPD[r, cells] = defect_PD[cells]
    order = np.random.default_rng(2).permutation(CELLS.detail)  # as references hold them: drawn
    assert set(kinds(tokens_RPD[:, order])) == {0}


def test_a_defect_in_most_cells_is_another_object() -> None:
    """The border of the claim above: nearly all cells changed, alike in a third of the pictures."""
    world = World()
    tokens_RTD = tokens_of(world, [(30, 0, 0)])
    changed_RTD = tokens_of(World(), [(16, 0, 0)])
    changed_RTD[:, : int(0.9 * CELLS.detail)] = tokens_of(World(1), [(16, 3, 0)])[:, : int(0.9 * CELLS.detail)]
    assert kinds(np.concatenate([tokens_RTD, changed_RTD])) == [0] * 30 + [1] * 16


def test_a_slow_drift_is_one_kind() -> None:
    """The first and the last are far apart, but no step between neighbours is long."""
    generator = np.random.default_rng(0)
    start_TD, towards_TD = random_units(generator, 70, WIDTH), random_units(generator, 70, WIDTH)
    tokens_RTD = np.stack([turned(start_TD, towards_TD, angle) for angle in np.linspace(0, 1.4, 60)])
    assert cells_apart(tokens_RTD)[0, -1] > 10 * cells_apart(tokens_RTD)[0, 1]
    assert set(kinds(tokens_RTD)) == {0}


@pytest.mark.parametrize(("times", "expected"), [(1.0, 1), (0.95 * STEP, 1), (1.05 * STEP, 2), (3.0, 2)])
def test_how_long_a_step_is_decides(times: float, expected: int) -> None:
    """Two rows of pictures in equal steps; between them one that is so many times as long."""
    generator = np.random.default_rng(0)
    start_TD, towards_TD = random_units(generator, 70, WIDTH), random_units(generator, 70, WIDTH)
    angles = np.cumsum([0.03] * 20 + [np.sqrt(times) * 0.03] + [0.03] * 19)  # distances are the squares of angles
    tokens_RTD = np.stack([turned(start_TD, towards_TD, angle) for angle in angles])
    apart_RR = cells_apart(tokens_RTD)
    assert apart_RR[19, 20] / apart_RR[18, 19] == pytest.approx(times, rel=0.02)
    assert kinds(tokens_RTD) == [0] * 20 + [expected - 1] * 20


def test_equal_pictures_are_one_kind() -> None:
    """Rounded to half precision, a vector is not quite of unit length: no distance of its own is to come of it."""
    assert set(kinds(np.tile(tokens_of(World(), [(1, 0, 0)]), (40, 1, 1)))) == {0}


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("times", [2, 3])
def test_each_picture_there_again_is_no_kind_of_its_own(seed: int, times: int) -> None:
    """Saved in several formats, or taken several times: the step to the nearest picture is then hardly one at all."""
    tokens_RTD = np.repeat(tokens_of(World(seed), [(30, 0, 0)]), times, 0)
    assert set(kinds(tokens_RTD)) == {0}
    noise_RTD = 0.01 * np.random.default_rng(seed).normal(size=tokens_RTD.shape)
    assert set(kinds(unit(tokens_RTD + noise_RTD))) == {0}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("shown", "times"), [(20, 8), (12, 16), (24, 5)])
def test_bursts_are_no_kinds(seed: int, shown: int, times: int) -> None:
    """Most steps then lead to another picture of the same burst and say nothing of how alike two places are."""
    tokens_RTD = np.repeat(tokens_of(World(seed), [(shown, 0, 0)]), times, 0)
    noise_RTD = 0.01 * np.random.default_rng(seed).normal(size=tokens_RTD.shape)
    assert set(kinds(unit(tokens_RTD + noise_RTD))) == {0}


# ---- several kinds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("odd", [0, 8])
def test_two_objects_are_two_kinds_the_larger_first(seed: int, odd: int) -> None:
    """Also where each picture of one of them has a defect of its own."""
    found = kinds(tokens_of(World(seed), [(20, 0, odd), (30, 1, 0)]))
    assert found == [1] * 20 + [0] * 30


def test_three_objects() -> None:
    assert kinds(tokens_of(World(), [(12, 0, 0), (14, 1, 0), (10, 2, 0)])) == [1] * 12 + [0] * 14 + [2] * 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_tenth_that_varies_more_than_the_rest_is_a_kind(seed: int) -> None:
    """No step between its pictures is usual: they join each other first, and stay apart from the others."""
    few, many = World(seed, noise=0.16), World(seed, noise=0.05)
    tokens_RTD = np.concatenate([tokens_of(many, [(90, 0, 0)]), tokens_of(few, [(10, 1, 0)])])
    apart_RR = cells_apart(tokens_RTD)
    within = apart_RR[90:, 90:][~np.eye(10, dtype=bool)]
    assert within.min() > 3 * apart_RR[:90, :90].max()
    assert kinds(tokens_RTD) == [0] * 90 + [1] * 10


def test_two_handfuls_that_join_each_other_first_are_a_kind_together() -> None:
    """Five and five pictures of two objects that are near each other, far from forty of a third."""
    tokens_RTD = tokens_of(World(), [(40, 0, 0), (10, 1, 0)], noise=0.03)
    tokens_RTD[45:] = shifted(tokens_RTD[45:], 0.6)
    apart_RR = cells_apart(tokens_RTD)
    assert (
        apart_RR[40:45, 40:45].max() < apart_RR[40:45, 45:].min() < apart_RR[40:, 45:].max() < apart_RR[:40, 40:].min()
    )
    assert kinds(tokens_RTD) == [0] * 40 + [1] * 10
    # Alone, neither of them is one.
    for rest in (slice(0, 45), [*range(40), *range(45, 50)]):
        assert set(kinds(tokens_RTD[rest])) == {0}


def test_odd_single_pictures_join() -> None:
    """Each unlike all others: they make no kinds, neither one each nor one together."""
    tokens_RTD = np.concatenate(
        [tokens_of(World(), [(40, 0, 0)]), *(tokens_of(World(), [(1, k, 0)]) for k in range(5, 10))]
    )
    assert set(kinds(tokens_RTD)) == {0}


def between(tokens_RTD: Floats, kind: int, count: int, seed: int = 0) -> Floats:
    """``count`` odd pictures whose cells lie between those of the first picture and another object's."""
    world = World(seed)
    towards_RTD = tokens_of(world, [(count, kind, 0)], noise=0.02)
    return unit(tokens_RTD[:1] + 0.8 * towards_RTD)


def test_a_handful_of_odd_ones_joins_the_nearest_kind() -> None:
    tokens_RTD = tokens_of(World(), [(30, 0, 0), (20, 1, 0)])
    for near, expected in ((slice(0, 30), 0), (slice(30, 50), 1)):
        odd_RTD = between(tokens_RTD[near], 7, 4)
        found = kinds(np.concatenate([tokens_RTD, odd_RTD]))
        assert found == [0] * 30 + [1] * 20 + [expected] * 4


def test_the_largest_kind_is_the_first_when_the_odd_ones_have_joined() -> None:
    tokens_RTD = tokens_of(World(), [(22, 0, 0), (20, 1, 0)])
    odd_RTD = between(tokens_RTD[22:], 7, 4)
    assert kinds(np.concatenate([tokens_RTD, odd_RTD])) == [1] * 22 + [0] * 24


@pytest.mark.parametrize("nearest_kind", [0, 1])
def test_odd_ones_that_lie_beyond_two_kinds_join_the_nearer_of_them(nearest_kind: int) -> None:
    """Farther from both than these are from each other: the kinds stay apart, and one of them takes the odd ones."""
    generator = np.random.default_rng(0)
    start_TD, towards_TD = random_units(generator, 70, WIDTH), random_units(generator, 70, WIDTH)
    first, second = 0.03 * np.arange(20), 0.9 + 0.03 * np.arange(14)
    odd = (first[0] - 0.72 if nearest_kind == 0 else second[-1] + 0.6) + 0.03 * np.arange(4)
    angles = np.concatenate([first, second, odd])
    tokens_RTD = np.stack([turned(start_TD, towards_TD, angle) for angle in angles])
    apart_RR = cells_apart(tokens_RTD)
    between_kinds, to_first, to_second = (
        apart_RR[:20, 20:34].min(),
        apart_RR[34:, :20].min(),
        apart_RR[34:, 20:34].min(),
    )
    assert between_kinds < min(to_first, to_second)
    assert (to_second < to_first) == bool(nearest_kind)
    assert kinds(tokens_RTD) == [0] * 20 + [1] * 14 + [nearest_kind] * 4


def test_a_handful_of_odd_ones_beside_one_kind_makes_no_second() -> None:
    assert set(kinds(tokens_of(World(), [(30, 0, 0), (SMALLEST - 1, 1, 0)]))) == {0}


@pytest.mark.parametrize(("few", "expected"), [(10, 1), (11, 2)])
def test_in_a_large_folder_a_kind_takes_its_share(few: int, expected: int) -> None:
    count = 210
    assert SMALLEST < SMALLEST_SHARE * count == 10.5
    world = World(noise=0.05)
    names = [(f"a{i}", 0) for i in range(count - few)] + [(f"b{i}", 1) for i in range(few)]
    tokens_RTD = np.stack([world.reference(name, 0, kind).tokens.detail[:PROBED] for name, kind in names])
    assert max(kinds(tokens_RTD)) + 1 == expected


@pytest.mark.parametrize("count", [1, 2, 3, 15])
def test_few_pictures_are_never_split(count: int) -> None:
    half = count // 2
    groups = [(half, 0, 0), (count - half, 1, 0)] if half else [(1, 0, 0)]
    assert kinds(tokens_of(World(), groups)) == [0] * count


def test_sixteen_pictures_may_be_split() -> None:
    assert kinds(tokens_of(World(), [(8, 0, 0), (8, 1, 0)])) == [0] * 8 + [1] * 8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_order_of_the_pictures_changes_nothing_but_order(seed: int) -> None:
    """Objects, defects, odd ones, and a tenth that varies more."""
    many, few = World(seed, noise=0.05), World(seed, noise=0.16)
    tokens_RTD = np.concatenate(
        [
            tokens_of(many, [(50, 0, 0), (14, 0, 8), (22, 1, 0), (1, 5, 0), (1, 6, 0)]),
            tokens_of(few, [(10, 2, 0)]),
        ]
    )
    expected = np.array(kinds(tokens_RTD))
    assert len(set(expected)) == 3
    order = np.random.default_rng(seed).permutation(len(tokens_RTD))
    assert kinds(tokens_RTD[order]) == expected[order].tolist()


def test_kinds_of_equal_size_are_numbered_by_who_comes_first() -> None:
    tokens_RTD = tokens_of(World(), [(12, 0, 0), (12, 1, 0)])
    assert kinds(tokens_RTD) == [0] * 12 + [1] * 12
    assert kinds(tokens_RTD[::-1]) == [0] * 12 + [1] * 12
    assert kinds(unit(tokens_RTD)) == kinds(tokens_RTD)


# ---- of images known to be good -------------------------------------------------------------------------------------


def test_a_single_good_reference_that_looks_like_none_of_the_others_is_a_kind() -> None:
    """One good image of each object is all that a person may have."""
    tokens_RTD = objects([1, 1, 1])
    assert cells_apart(tokens_RTD)[0, 1:].min() > UNLIKE
    assert kinds_of_references(tokens_RTD) == [0, 1, 2]
    assert kinds(tokens_RTD) == [0, 0, 0]


def test_the_largest_kind_of_few_references_is_the_first() -> None:
    """As of many, whatever order they come in."""
    assert kinds_of_references(objects([1, 3, 2])) == [2, 0, 0, 0, 1, 1]
    assert kinds_of_references(objects([2, 2, 1])) == [0, 0, 1, 1, 2]
    order = [5, 1, 0, 4, 2, 3]
    assert kinds_of_references(objects([1, 3, 2])[order]) == [1, 0, 2, 1, 0, 0]


def objects(counts: Sequence[int]) -> Floats:
    """(R, T, D): images of several objects that look nothing like each other; cells of width 128 leave the room."""
    generator = np.random.default_rng(0)
    looks = [random_units(generator, 40, 128) for _ in counts]
    pictures = [look for look, count in zip(looks, counts, strict=True) for _ in range(count)]
    return np.stack([unit(look + 0.02 * generator.normal(size=look.shape)) for look in pictures])


@pytest.mark.parametrize("odd", [0, 6, 16])
def test_few_good_references_of_one_object_are_one_kind(odd: int) -> None:
    assert kinds_of_references(tokens_of(World(), [(5, 0, 0), (2, 0, odd)])) == [0] * 7


def test_a_chain_of_likenesses_makes_one_kind_of_few_references() -> None:
    """The first and the last look nothing like each other, what lies between leads from one to the other."""
    generator = np.random.default_rng(0)
    start_TD, towards_TD = random_units(generator, 40, 128), random_units(generator, 40, 128)
    tokens_RTD = np.stack([turned(start_TD, towards_TD, angle) for angle in (0.0, 1.5, 0.5, 1.0)])
    apart_RR = cells_apart(tokens_RTD)
    assert apart_RR[0, 2] < UNLIKE < apart_RR[0, 1]
    assert kinds_of_references(tokens_RTD) == [0] * 4


@pytest.mark.parametrize("count", [1, 2, 15, 16, 40])
def test_however_many_good_references_two_objects_are_two_kinds(count: int) -> None:
    few = kinds_of_references(tokens_of(World(), [(count, 0, 0)]))
    assert few == [0] * count
    if count >= SMALLEST:
        assert kinds_of_references(tokens_of(World(), [(count, 0, 0), (count, 1, 0)])) == [0] * count + [1] * count


def test_many_good_references_are_split_as_a_folder_is() -> None:
    tokens_RTD = tokens_of(World(), [(12, 0, 0), (14, 1, 0)])
    assert kinds_of_references(tokens_RTD) == kinds(tokens_RTD) == [1] * 12 + [0] * 14


def test_how_far_apart_is_said_by_the_median_cell() -> None:
    distances = np.array([0.9, 0.1, 0.2, 0.3, 0.2], np.float32)
    assert apart(distances) == pytest.approx(0.2)
    assert apart(distances) < UNLIKE
