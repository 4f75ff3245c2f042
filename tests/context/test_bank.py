"""The bank: what is compared with what, copies and near-copies, order, and what is usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly_ov.context import bank as module
from anomaly_ov.context.bank import Bank, Reference, picture_distance, reference, stacked, tokens_each, unrepeated
from context_fixtures import WIDTH, World, digest, token_picture, unit


def bank_of(references: Sequence[Reference], *, drop_twins: bool, kinds: Sequence[int] | None = None) -> Bank:
    return Bank.of(references, kinds or [0] * len(references), top=0.2, drop_twins=drop_twins)


def distance(bank: Bank, world: World, name: str, kind: int = 0) -> Tensor:
    picture = world.made[name]
    found = bank.distances(picture.tokens_PD, picture.descriptor_E, picture.digest, kind)
    assert found is not None
    return found


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("drop_twins", [False, True])
def test_odd_places_stand_out(world: World, drop_twins: bool) -> None:
    bank = bank_of([world.reference(f"r{i}") for i in range(12)], drop_twins=drop_twins)
    world.picture("fine")
    plain = world.picture("odd", odd=0)
    marked = plain.tokens_PD.clone()
    marked[:5] = unit(np.random.default_rng(3).normal(size=(5, WIDTH)))
    world.made["odd"] = replace(plain, tokens_PD=marked)
    fine_P, odd_P = distance(bank, world, "fine"), distance(bank, world, "odd")
    assert odd_P[:5].min() > 2 * odd_P[5:].max()
    assert picture_distance(odd_P, 0.1) > 2 * picture_distance(fine_P, 0.1)


def test_a_copy_serves_among_good_references_and_never_in_a_folder(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(2)]
    assert distance(bank_of(references, drop_twins=False), world, "r1").max() < 1e-3
    in_folder = distance(bank_of(references, drop_twins=True), world, "r1")
    expected = distance(bank_of(references[:1], drop_twins=True), world, "r1")
    assert in_folder.min() > 0.01
    torch.testing.assert_close(in_folder, expected)


def test_a_near_copy_of_an_odd_picture_does_not_excuse_it_in_a_folder(world: World) -> None:
    odd = world.picture("odd", odd=10)
    noise = torch.from_numpy(0.01 * np.random.default_rng(0).normal(size=odd.tokens_PD.shape)).float()
    near = token_picture("saved again", unit((odd.tokens_PD + noise).numpy()), odd.descriptor_E)
    references = [world.reference(f"r{i}") for i in range(7)]
    with_near = [*references, reference(near, 0.0, 64)]
    without = distance(bank_of(references, drop_twins=True), world, "odd")
    folder = distance(bank_of(with_near, drop_twins=True), world, "odd")
    good = distance(bank_of(with_near, drop_twins=False), world, "odd")
    torch.testing.assert_close(folder, without, atol=0.02, rtol=0)
    assert picture_distance(good, 0.15) < picture_distance(folder, 0.15)


def test_only_copies_leave_nothing_to_compare_with(world: World) -> None:
    bank = bank_of([world.reference("only")], drop_twins=True)
    picture = world.made["only"]
    assert bank.kind_of(picture.descriptor_E, picture.digest) is None
    assert bank.distances(picture.tokens_PD, picture.descriptor_E, picture.digest, 0) is None


def test_one_reference_is_enough_for_another_picture(world: World) -> None:
    for drop_twins in (False, True):
        bank = bank_of([world.reference("only")], drop_twins=drop_twins)
        world.picture("other")
        assert bank.kind_of(world.made["other"].descriptor_E, digest("other")) == 0
        assert distance(bank, world, "other").shape == (64,)


def test_order_of_the_references_changes_nothing(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(9)]
    world.picture("query", odd=4)
    there = bank_of(references, drop_twins=True)
    back = bank_of(references[::-1], drop_twins=True)
    torch.testing.assert_close(distance(there, world, "query"), distance(back, world, "query"), atol=1e-6, rtol=0)
    assert there.usual[0].distance == pytest.approx(back.usual[0].distance, abs=1e-6)


def test_each_kind_is_compared_with_its_own(world: World) -> None:
    references = [world.reference(f"a{i}", kind=0) for i in range(5)]
    references += [world.reference(f"b{i}", kind=1) for i in range(4)]
    bank = bank_of(references, drop_twins=True, kinds=[0] * 5 + [1] * 4)
    for kind in (0, 1):
        picture = world.picture(f"query {kind}", kind=kind)
        assert bank.kind_of(picture.descriptor_E, picture.digest) == kind
        assert distance(bank, world, f"query {kind}", kind).mean() < 0.5
        assert distance(bank, world, f"query {kind}", 1 - kind).mean() > 0.5
    assert [usual.count for usual in bank.usual] == [5, 4]


def test_most_like_references_are_chosen_where_there_are_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR", 4)
    references = [world.reference(f"a{i}", kind=0) for i in range(4)]
    references += [world.reference(f"b{i}", kind=1) for i in range(6)]
    bank = bank_of(references, drop_twins=False)
    world.picture("query", kind=0)
    alone = bank_of(references[:4], drop_twins=False)
    torch.testing.assert_close(distance(bank, world, "query"), distance(alone, world, "query"))


def test_usual_is_the_median_of_what_references_make_of_each_other(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(5)]
    (usual,) = bank_of(references, drop_twins=False).usual
    apart = []
    for r, one in enumerate(references):
        others = bank_of([*references[:r], *references[r + 1 :]], drop_twins=False)
        found = others.distances(one.tokens_TD, one.descriptor_E, one.digest, 0)
        assert found is not None
        apart.append(picture_distance(found, 0.2))
    assert usual.distance == pytest.approx(float(np.median(apart)), abs=1e-5)
    assert usual.count == 5


def test_usual_logit_is_a_median(world: World) -> None:
    logits = [-3.0, 9.0, 0.5]
    references = [replace(world.reference(f"r{i}"), expert_logit=logits[i]) for i in range(3)]
    assert bank_of(references, drop_twins=False).usual[0].expert_logit == 0.5


@pytest.mark.parametrize("count", [2, 5, 14])
def test_spreads_are_half_the_width_between_two_quantiles(world: World, count: int) -> None:
    logits = np.random.default_rng(count).normal(size=count).tolist()
    references = [replace(world.reference(f"r{i}"), expert_logit=logits[i]) for i in range(count)]
    (usual,) = bank_of(references, drop_twins=False).usual
    apart = []
    for r, one in enumerate(references):
        others = bank_of([*references[:r], *references[r + 1 :]], drop_twins=False)
        found = others.distances(one.tokens_TD, one.descriptor_E, one.digest, 0)
        assert found is not None
        apart.append(picture_distance(found, 0.2))
    low, high = np.quantile(np.log(apart), [0.16, 0.84])
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
    picture = world.picture("a")
    first, again = reference(picture, 0.0, 16), reference(picture, 0.0, 16)
    assert torch.equal(first.tokens_TD, again.tokens_TD)
    other = reference(replace(picture, digest=digest("b")), 0.0, 16)
    assert not torch.equal(first.tokens_TD, other.tokens_TD)
    assert first.tokens_TD.unique(dim=0).shape == (16, WIDTH)


def test_reference_leaves_the_global_random_state_alone(world: World) -> None:
    picture = world.picture("a")
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    reference(picture, 0.0, 16)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("cells", "tokens"), [(1, 5), (3, 8), (64, 64), (64, 100)])
def test_stacked_repeats_what_a_small_picture_has(world: World, cells: int, tokens: int) -> None:
    picture = world.picture("a")
    small = reference(replace(picture, tokens_PD=picture.tokens_PD[:cells]), 0.0, tokens)
    assert small.tokens_TD.shape == (cells, WIDTH)
    large = token_picture("b", unit(np.random.default_rng(0).normal(size=(200, WIDTH))), picture.descriptor_E)
    for order in (1, -1):
        first, second = list(stacked([small, reference(large, 0.0, tokens)][::order]))[::order]
        assert first.shape == second.shape == (tokens, WIDTH)
        assert torch.equal(first[:cells], small.tokens_TD)
        assert len(first.unique(dim=0)) == cells
        assert len(second.unique(dim=0)) == tokens


@pytest.mark.parametrize("cells", [1, 2, 7, 31, 63, 64])
def test_unrepeated_undoes_stacking(world: World, cells: int) -> None:
    small, large = world.picture("small"), world.reference("large")
    one = reference(replace(small, tokens_PD=small.tokens_PD[:cells]), 0.0, 100)
    row_TD = stacked([one, large])[0]
    assert row_TD.shape == (64, WIDTH)
    assert torch.equal(unrepeated(row_TD), one.tokens_TD)
    # A picture of one look has equal tokens: one of them stands for all, and stacking gives the same again.
    even = replace(one, tokens_TD=one.tokens_TD[:1].repeat(cells, 1))
    assert torch.equal(unrepeated(even.tokens_TD), one.tokens_TD[:1])
    assert torch.equal(stacked([replace(even, tokens_TD=unrepeated(even.tokens_TD)), large]), stacked([even, large]))


def test_a_token_that_comes_again_is_no_repetition_of_the_row() -> None:
    row_TD = unit(np.random.default_rng(0).normal(size=(9, WIDTH)))
    row_TD[4] = row_TD[0]
    assert torch.equal(unrepeated(row_TD), row_TD)


def test_repeated_tokens_change_no_distance(world: World) -> None:
    small, query = world.picture("small"), world.picture("query", odd=4)
    one = reference(replace(small, tokens_PD=small.tokens_PD[:10]), 0.0, 100)
    large = token_picture("b", unit(np.random.default_rng(0).normal(size=(100, WIDTH))), -small.descriptor_E)
    alone = bank_of([one], drop_twins=False)
    beside = bank_of([one, reference(large, 0.0, 100)], drop_twins=False, kinds=[0, 1])
    assert alone.tokens_RTD.shape[1] < beside.tokens_RTD.shape[1]
    found = [bank.distances(query.tokens_PD, query.descriptor_E, query.digest, 0) for bank in (alone, beside)]
    assert found[0] is not None
    torch.testing.assert_close(found[0], found[1])


def test_reference_is_what_half_precision_can_hold_and_holds_no_picture(world: World) -> None:
    picture = world.picture("a")
    found = reference(picture, 0.0, 8)
    for kept in (found.tokens_TD, found.descriptor_E):
        assert kept.dtype == torch.float32
        assert torch.equal(kept.half().float(), kept)
    assert found.tokens_TD.untyped_storage().nbytes() == 8 * WIDTH * 4


def test_tokens_each_keeps_the_work_constant() -> None:
    assert tokens_each(0) == tokens_each(1) == module.MOST_TOKENS
    assert tokens_each(module.NEAR) == tokens_each(10_000) == module.TOKEN_BUDGET // module.NEAR
    for references in range(1, 300):
        assert tokens_each(references) * min(references, module.NEAR) <= module.TOKEN_BUDGET


def test_picture_distance_is_the_mean_of_the_largest() -> None:
    distance_P = torch.tensor([0.1, 0.9, 0.2, 0.7, 0.3])
    assert picture_distance(distance_P, 0.4) == pytest.approx(0.8)
    assert picture_distance(distance_P, 1.0) == pytest.approx(0.44)
    assert picture_distance(distance_P, 1e-6) == pytest.approx(0.9)
    assert picture_distance(distance_P[:1], 0.2) == pytest.approx(0.1)
