"""The bank: what is compared with what, copies and near-copies, order, and what is usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.context import bank as module
from anomaly_ov.context.bank import (
    Bank,
    Reference,
    cut,
    picture_distance,
    reference,
    stacked,
    tokens_each,
    unrepeated,
)
from anomaly_ov.context.tokens import PictureTokens, Scales
from anomaly_ov.models.token_maps import Floats
from context_fixtures import (
    CELLS,
    WIDTH,
    World,
    assert_same,
    detail_of,
    digest,
    held,
    marked,
    random_units,
    token_picture,
    unit,
)

TOPS = Scales(0.3, 0.1)


def bank_of(references: Sequence[Reference], *, drop_twins: bool, kinds: Sequence[int] | None = None) -> Bank:
    return Bank.of(references, kinds or [0] * len(references), tops=TOPS, drop_twins=drop_twins)


def distance(bank: Bank, world: World, name: str, kind: int = 0) -> Scales[Floats]:
    return distance_of(bank, world.made[name], kind)


def distance_of(bank: Bank, picture: PictureTokens, kind: int = 0) -> Scales[Floats]:
    found = bank.distances(picture.tokens, picture.descriptor_E, picture.digest, kind)
    assert found is not None
    return found


def each(distances: Scales[Floats]) -> tuple[Floats, Floats]:
    return distances.whole, distances.detail


def assert_near(first: Scales[Floats], second: Scales[Floats], atol: float = 1e-6) -> None:
    for one, other in zip(each(first), each(second), strict=True):
        np.testing.assert_allclose(one, other, atol=atol, rtol=0)


def left_out(references: Sequence[Reference], tops: Scales[float] = TOPS) -> list[float]:
    """How far each reference lies from a bank of the others."""
    apart = []
    for r, one in enumerate(references):
        others = bank_of([*references[:r], *references[r + 1 :]], drop_twins=False)
        found = others.distances(one.tokens, one.descriptor_E, one.digest, 0)
        assert found is not None
        apart.append(picture_distance(found, tops))
    return apart


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("drop_twins", [False, True])
def test_odd_places_stand_out(world: World, drop_twins: bool) -> None:
    bank = bank_of([world.reference(f"r{i}") for i in range(12)], drop_twins=drop_twins)
    places = [0, 1, 2, 20, 63]
    fine = distance_of(bank, world.picture("fine"))
    odd = distance_of(bank, marked(world.picture("odd"), places))
    for distance_P, cells in ((odd.whole, places), (odd.detail, detail_of(places))):
        plain = np.ones(len(distance_P), np.bool_)
        plain[cells] = False
        assert distance_P[~plain].min() > 2 * distance_P[plain].max()
    assert picture_distance(odd, Scales(0.1, 0.1)) > 2 * picture_distance(fine, Scales(0.1, 0.1))


@pytest.mark.parametrize("scale", ["whole", "detail"])
@pytest.mark.parametrize("drop_twins", [False, True])
def test_a_defect_that_one_scale_sees_raises_the_distance_there(world: World, drop_twins: bool, scale: str) -> None:
    bank = bank_of([world.reference(f"r{i}") for i in range(12)], drop_twins=drop_twins)
    plain = world.picture("query")
    places = list(range(8))
    before, after = distance_of(bank, plain), distance_of(bank, marked(plain, places, [scale]))
    other = "detail" if scale == "whole" else "whole"
    assert np.array_equal(getattr(after, other), getattr(before, other))
    cells = places if scale == "whole" else detail_of(places)
    raised = getattr(after, scale) - getattr(before, scale)
    assert raised[cells].min() > 0.2
    assert np.abs(raised).sum() == pytest.approx(float(raised[cells].sum()), abs=1e-4)
    assert picture_distance(after, TOPS) > 1.3 * picture_distance(before, TOPS)


def test_each_scale_is_compared_with_its_own(world: World) -> None:
    """Crops that look like another picture's base view are odd all the same."""
    one = world.reference("r0")
    bank = bank_of([one], drop_twins=False)
    swapped = replace(world.made["r0"], tokens=Scales(one.tokens.detail, one.tokens.whole))
    for distance_P in each(distance_of(bank, swapped)):
        assert distance_P.min() > 0.1


def test_a_copy_serves_among_good_references_and_never_in_a_folder(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(2)]
    for distance_P in each(distance(bank_of(references, drop_twins=False), world, "r1")):
        assert distance_P.max() < 1e-3
    in_folder = distance(bank_of(references, drop_twins=True), world, "r1")
    expected = distance(bank_of(references[:1], drop_twins=True), world, "r1")
    assert min(distance_P.min() for distance_P in each(in_folder)) > 0.01
    assert_near(in_folder, expected, atol=1e-5)


def test_a_near_copy_of_an_odd_picture_does_not_excuse_it_in_a_folder(world: World) -> None:
    odd = world.picture("odd", odd=10)
    generator = np.random.default_rng(0)
    again = odd.tokens.map(lambda one_PD: unit(one_PD + 0.01 * generator.normal(size=one_PD.shape)))
    near = token_picture("saved again", again, odd.descriptor_E)
    references = [world.reference(f"r{i}") for i in range(7)]
    with_near = [*references, reference(near, 0.0, CELLS)]
    without = distance(bank_of(references, drop_twins=True), world, "odd")
    folder = distance(bank_of(with_near, drop_twins=True), world, "odd")
    good = distance(bank_of(with_near, drop_twins=False), world, "odd")
    assert_near(folder, without, atol=0.02)
    for scale in (lambda found: found.whole, lambda found: found.detail):
        assert scale(good).mean() < 0.2 * scale(folder).mean()
    assert picture_distance(good, Scales(0.15, 0.15)) < 0.2 * picture_distance(folder, Scales(0.15, 0.15))


def test_only_copies_leave_nothing_to_compare_with(world: World) -> None:
    bank = bank_of([world.reference("only")], drop_twins=True)
    picture = world.made["only"]
    assert bank.kind_of(picture.descriptor_E, picture.digest) is None
    assert bank.distances(picture.tokens, picture.descriptor_E, picture.digest, 0) is None


def test_one_reference_is_enough_for_another_picture(world: World) -> None:
    for drop_twins in (False, True):
        bank = bank_of([world.reference("only")], drop_twins=drop_twins)
        world.picture("other")
        assert bank.kind_of(world.made["other"].descriptor_E, digest("other")) == 0
        assert distance(bank, world, "other").map(len) == CELLS


def test_order_of_the_references_changes_nothing(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(9)]
    world.picture("query", odd=4)
    there = bank_of(references, drop_twins=True)
    back = bank_of(references[::-1], drop_twins=True)
    assert_near(distance(there, world, "query"), distance(back, world, "query"))
    assert there.usual[0].distance == pytest.approx(back.usual[0].distance, abs=1e-6)


def test_a_picture_of_the_folder_keeps_the_kind_it_was_put_in(world: World) -> None:
    """Kinds are found by cells; its look as a whole may be nearer to another one."""
    own, odd = [world.reference(f"a{i}") for i in range(5)], world.reference("b0", kind=1)
    references = [*own, odd, world.reference("b1", kind=1)]
    last = own[-1]
    nearest_to_b = replace(last, descriptor_E=odd.descriptor_E)
    references[4] = nearest_to_b
    kinds = [0] * 5 + [1] * 2
    folder = bank_of(references, drop_twins=True, kinds=kinds)
    assert folder.kind_of(nearest_to_b.descriptor_E, last.digest) == 0
    assert folder.kind_of(references[-1].descriptor_E, digest("another")) == 1
    # Alone in its kind it has nothing to be compared with there.
    alone = bank_of(references[4:], drop_twins=True, kinds=[0, 1, 1])
    assert alone.kind_of(nearest_to_b.descriptor_E, last.digest) == 1


def test_each_kind_is_compared_with_its_own(world: World) -> None:
    references = [world.reference(f"a{i}", kind=0) for i in range(5)]
    references += [world.reference(f"b{i}", kind=1) for i in range(4)]
    bank = bank_of(references, drop_twins=True, kinds=[0] * 5 + [1] * 4)
    for kind in (0, 1):
        picture = world.picture(f"query {kind}", kind=kind)
        assert bank.kind_of(picture.descriptor_E, picture.digest) == kind
        for own_P, other_P in zip(
            each(distance(bank, world, f"query {kind}", kind)),
            each(distance(bank, world, f"query {kind}", 1 - kind)),
            strict=True,
        ):
            assert own_P.mean() < 0.5 < other_P.mean()
    assert [usual.count for usual in bank.usual] == [5, 4]


def test_most_like_references_are_chosen_where_there_are_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR", 4)
    references = [world.reference(f"a{i}", kind=0) for i in range(4)]
    references += [world.reference(f"b{i}", kind=1) for i in range(6)]
    bank = bank_of(references, drop_twins=False)
    world.picture("query", kind=0)
    alone = bank_of(references[:4], drop_twins=False)
    assert_near(distance(bank, world, "query"), distance(alone, world, "query"))


def test_usual_is_the_median_of_what_references_make_of_each_other(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(5)]
    (usual,) = bank_of(references, drop_twins=False).usual
    assert usual.distance == pytest.approx(float(np.median(left_out(references))), abs=1e-5)
    assert usual.count == 5


def test_usual_is_found_for_any_shares_from_the_same_distances(world: World) -> None:
    references = [world.reference(f"r{i}", odd=2 * i) for i in range(5)]
    bank = bank_of(references, drop_twins=False)
    among = bank.among_themselves(0)
    assert [found.map(len) for found in among] == [CELLS] * 5
    assert bank.usual_of(0, among, TOPS) == bank.usual[0]
    medians = []
    for tops in (Scales(0.1, 0.5), Scales(0.5, 0.1), Scales(1.0, 1.0)):
        medians.append(bank.usual_of(0, among, tops).distance)
        assert medians[-1] == pytest.approx(float(np.median(left_out(references, tops))), abs=1e-5)
    assert len(set(medians)) == 3


def test_among_themselves_are_those_of_one_kind(world: World) -> None:
    references = [world.reference(f"a{i}", kind=0) for i in range(5)]
    references += [world.reference(f"b{i}", kind=1) for i in range(3)]
    bank = bank_of(references, drop_twins=True, kinds=[0] * 5 + [1] * 3)
    alone = bank_of(references[5:], drop_twins=True)
    assert (len(bank.among_themselves(0)), len(bank.among_themselves(1))) == (5, 3)
    for found, expected in zip(bank.among_themselves(1), alone.among_themselves(0), strict=True):
        assert_near(found, expected)


def test_nothing_among_themselves_where_there_is_one(world: World) -> None:
    assert bank_of([world.reference("only")], drop_twins=False).among_themselves(0) == []


def test_usual_logit_is_a_median(world: World) -> None:
    logits = [-3.0, 9.0, 0.5]
    references = [replace(world.reference(f"r{i}"), expert_logit=logits[i]) for i in range(3)]
    assert bank_of(references, drop_twins=False).usual[0].expert_logit == 0.5


@pytest.mark.parametrize("count", [2, 5, 14])
def test_spreads_are_half_the_width_between_two_quantiles(world: World, count: int) -> None:
    logits = np.random.default_rng(count).normal(size=count).tolist()
    references = [replace(world.reference(f"r{i}"), expert_logit=logits[i]) for i in range(count)]
    (usual,) = bank_of(references, drop_twins=False).usual
    low, high = np.quantile(np.log(left_out(references)), [0.16, 0.84])
    assert usual.distance_spread == pytest.approx((high - low) / 2, abs=1e-4)
    low, high = np.quantile(logits, [0.16, 0.84])
    assert usual.expert_spread == pytest.approx((high - low) / 2, abs=1e-6)


def test_spread_of_normal_values_is_their_deviation_and_outliers_do_not_move_it(world: World) -> None:
    centre = NormalDist(3.0, 2.0)
    logits = [centre.inv_cdf((i + 0.5) / 40) for i in range(40)]
    for outlier in (logits[-1], 1000.0):
        values = [*logits[:-1], outlier]
        references = [replace(world.reference(f"r{i}"), expert_logit=values[i]) for i in range(40)]
        assert bank_of(references, drop_twins=False).usual[0].expert_spread == pytest.approx(2.0, rel=0.05)


def test_spread_does_not_depend_on_the_scale_of_distances(world: World) -> None:
    """It is of the logarithm: twice as far and twice as spread is the same spread."""
    spreads = []
    for noise in (0.02, 0.04):
        world.noise = noise
        (usual,) = bank_of([world.reference(f"r{i}") for i in range(20)], drop_twins=False).usual
        spreads.append((usual.distance, usual.distance_spread))
    assert spreads[1][0] > 2 * spreads[0][0]
    assert spreads[1][1] == pytest.approx(spreads[0][1], rel=0.25)


def test_equal_references_have_no_spread() -> None:
    world = World(noise=0.0)
    references = [world.reference(f"r{i}") for i in range(6)]
    (usual,) = bank_of(references, drop_twins=False).usual
    assert usual.expert_spread == 0
    assert usual.distance_spread == pytest.approx(0, abs=0.1)


def test_one_reference_knows_nothing_usual(world: World) -> None:
    (usual,) = bank_of([world.reference("only")], drop_twins=False).usual
    assert usual.count == 0


def test_reference_draws_by_digest(world: World) -> None:
    picture, few = world.picture("a"), Scales(16, 24)
    first, again = reference(picture, 0.0, few), reference(picture, 0.0, few)
    assert_same(first.tokens, again.tokens)
    other = reference(replace(picture, digest=digest("b")), 0.0, few)
    for drawn_TD, other_TD, all_PD in zip(each(first.tokens), each(other.tokens), each(picture.tokens), strict=True):
        assert not np.array_equal(drawn_TD, other_TD)
        # Each is one of the picture's at this scale, none comes twice.
        found = (drawn_TD[:, None] == all_PD.astype(np.float16)[None]).all(-1)
        assert found.sum(1).tolist() == [1] * len(drawn_TD)
        assert found.sum(0).max() == 1
    assert first.tokens.map(len) == few


def test_reference_leaves_the_global_random_state_alone(world: World) -> None:
    picture = world.picture("a")
    before = np.random.get_state()[1].copy()
    reference(picture, 0.0, Scales(16, 16))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_draws_are_the_same_in_every_version(world: World) -> None:
    """Contexts made years apart are joined as if all their references had been drawn at once."""
    numbers_PD = np.arange(100, dtype=np.float32)[:, None]
    picture = replace(world.picture("a"), tokens=Scales(numbers_PD, numbers_PD[:50]))
    drawn = reference(picture, 0.0, Scales(6, 4)).tokens
    assert drawn.whole[:, 0].tolist() == [52, 39, 73, 30, 57, 34]
    assert drawn.detail[:, 0].tolist() == [4, 45, 42, 23]


def first_cells(picture: PictureTokens, cells: Scales[int]) -> PictureTokens:
    """``picture`` with only its first cells."""
    return replace(picture, tokens=Scales(picture.tokens.whole[: cells.whole], picture.tokens.detail[: cells.detail]))


@pytest.mark.parametrize(
    ("cells", "tokens"),
    [(Scales(1, 2), Scales(5, 9)), (Scales(3, 1), Scales(8, 8)), (CELLS, CELLS), (CELLS, Scales(100, 150))],
)
def test_stacked_repeats_what_a_small_picture_has(world: World, cells: Scales[int], tokens: Scales[int]) -> None:
    small = reference(first_cells(world.picture("a"), cells), 0.0, tokens)
    assert small.tokens.map(len) == cells
    generator = np.random.default_rng(0)
    many = Scales(random_units(generator, 200, WIDTH), random_units(generator, 200, WIDTH))
    large = reference(token_picture("b", many, world.made["a"].descriptor_E), 0.0, tokens)
    for order in (1, -1):
        for scale in ("whole", "detail"):
            rows = list(getattr(stacked([small, large][::order]), scale))[::order]
            count, length = getattr(cells, scale), getattr(tokens, scale)
            assert rows[0].shape == rows[1].shape == (length, WIDTH)
            assert np.array_equal(rows[0][:count], getattr(small.tokens, scale))
            assert len(np.unique(rows[0], axis=0)) == count
            assert len(np.unique(rows[1], axis=0)) == length


@pytest.mark.parametrize("cells", [1, 2, 7, 31, 63, 64])
def test_unrepeated_undoes_stacking(world: World, cells: int) -> None:
    large = world.reference("large")
    one = reference(first_cells(world.picture("small"), Scales(cells, 2 * cells)), 0.0, Scales(100, 200))
    rows = stacked([one, large]).map(lambda tokens_RTD: tokens_RTD[0])
    assert rows.map(len) == CELLS
    assert_same(rows.map(unrepeated), one.tokens)
    # A picture of one look has equal tokens: one of them stands for all, and stacking gives the same again.
    even = replace(one, tokens=one.tokens.map(lambda tokens_TD: np.tile(tokens_TD[:1], (cells, 1))))
    assert_same(even.tokens.map(unrepeated), one.tokens.map(lambda tokens_TD: tokens_TD[:1]))
    assert_same(stacked([replace(even, tokens=even.tokens.map(unrepeated)), large]), stacked([even, large]))


def test_a_token_that_comes_again_is_no_repetition_of_the_row() -> None:
    row_TD = unit(np.random.default_rng(0).normal(size=(9, WIDTH)))
    row_TD[4] = row_TD[0]
    assert np.array_equal(unrepeated(row_TD), row_TD)


def test_repeated_tokens_change_no_distance(world: World) -> None:
    small, query = world.picture("small"), world.picture("query", odd=4)
    one = reference(first_cells(small, Scales(10, 15)), 0.0, Scales(100, 100))
    generator = np.random.default_rng(0)
    many = Scales(random_units(generator, 100, WIDTH), random_units(generator, 100, WIDTH))
    large = token_picture("b", many, -small.descriptor_E)
    alone = bank_of([one], drop_twins=False)
    beside = bank_of([one, reference(large, 0.0, Scales(100, 100))], drop_twins=False, kinds=[0, 1])
    assert alone.tokens.whole.shape[1] < beside.tokens.whole.shape[1]
    assert alone.tokens.detail.shape[1] < beside.tokens.detail.shape[1]
    assert_near(distance_of(alone, query), distance_of(beside, query))


def test_reference_is_what_half_precision_can_hold_and_holds_no_picture(world: World) -> None:
    picture = world.picture("a")
    found = reference(picture, 0.0, Scales(8, 9))
    for kept in (found.tokens.whole, found.tokens.detail, found.descriptor_E):
        assert kept.dtype == np.float32
        assert np.array_equal(kept.astype(np.float16), kept)
    assert found.tokens.map(held) == Scales(8 * WIDTH * 4, 9 * WIDTH * 4)


def test_a_reference_is_cut_to_its_first_tokens_and_lets_go_of_the_rest(world: World) -> None:
    one = world.reference("a")
    for fewer in (Scales(5, 7), Scales(5, 1000), Scales(1000, 7)):
        found = cut(one, fewer)
        assert found.tokens.map(len) == Scales(min(64, fewer.whole), min(128, fewer.detail))
        for part, all_TD in zip(each(found.tokens), each(one.tokens), strict=True):
            assert np.array_equal(part, all_TD[: len(part)])
            assert held(part) == len(part) * WIDTH * 4
    assert cut(one, CELLS) is one


def test_tokens_each_keeps_the_work_constant() -> None:
    most = Scales(module.MOST_TOKENS, module.MOST_TOKENS)
    assert tokens_each(0) == tokens_each(1) == most
    assert tokens_each(module.NEAR) == tokens_each(10_000) == module.TOKEN_BUDGET.map(lambda all_: all_ // module.NEAR)
    for references in range(1, 300):
        found = tokens_each(references).map(lambda each_: each_ * min(references, module.NEAR))  # noqa: B023
        assert found.whole <= module.TOKEN_BUDGET.whole
        assert found.detail <= module.TOKEN_BUDGET.detail
    assert tokens_each(module.NEAR).whole < tokens_each(module.NEAR).detail


# ---- one number of both scales --------------------------------------------------------------------------------------

FIVE_P = np.array([0.1, 0.9, 0.2, 0.7, 0.3], np.float32)
THREE_P = np.array([0.05, 0.2, 0.01], np.float32)


def test_picture_distance_is_the_mean_of_both_scales_means_of_the_largest() -> None:
    distances = Scales(FIVE_P, THREE_P)
    assert picture_distance(distances, Scales(0.4, 1e-6)) == pytest.approx((0.8 + 0.2) / 2)
    assert picture_distance(distances, Scales(1.0, 1.0)) == pytest.approx((0.44 + 0.26 / 3) / 2)
    assert picture_distance(distances, Scales(1e-6, 0.67)) == pytest.approx((0.9 + 0.125) / 2)
    assert picture_distance(Scales(FIVE_P[:1], THREE_P[:1]), Scales(0.2, 0.2)) == pytest.approx((0.1 + 0.05) / 2)


def test_picture_distance_of_one_view_is_the_mean_of_the_largest() -> None:
    for top, expected in ((0.4, 0.8), (1.0, 0.44), (1e-6, 0.9)):
        assert picture_distance(Scales(FIVE_P, FIVE_P), Scales(top, top)) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 10), st.floats(0.05, 1), st.floats(0.05, 1))
def test_both_scales_count_alike(times: float, whole: float, detail: float) -> None:
    """However many cells each has; all twice as far is twice as far."""
    distances, tops = Scales(FIVE_P, THREE_P), Scales(whole, detail)
    before = picture_distance(distances, tops)
    assert picture_distance(distances.map(lambda one_P: np.float32(times) * one_P), tops) == pytest.approx(
        before * times, rel=1e-4
    )
    assert picture_distance(Scales(THREE_P, FIVE_P), Scales(detail, whole)) == pytest.approx(before, rel=1e-5)


def test_what_one_scale_sees_counts_where_the_other_sees_nothing() -> None:
    """A copy of a reference that was damaged in small: its base view lies at 0, its crops do not."""
    nothing_P = np.zeros(5, np.float32)
    for distances in (Scales(nothing_P, FIVE_P), Scales(FIVE_P, nothing_P)):
        assert picture_distance(distances, Scales(0.2, 0.2)) == pytest.approx(0.45)
