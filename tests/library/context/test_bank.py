"""The bank: what is compared with what, copies and near-copies, order, counterparts, images with and without crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from anomaly_ov.context import bank as module
from anomaly_ov.context.bank import (
    AGREE,
    AGREE_GOOD,
    Bank,
    Reference,
    cut,
    reference,
    stacked,
    tokens_each,
    unrepeated,
)
from anomaly_ov.context.nearest import lowest_mean
from anomaly_ov.context.tokens import ImageTokens
from anomaly_ov.scoring.cells import Floats, Scales
from anomaly_ov.scoring.evidence import References
from context_fixtures import (
    CELLS,
    WIDTH,
    World,
    assert_same,
    detail_of,
    digest,
    held,
    marked,
    of_one_view,
    own_of,
    random_units,
    token_picture,
    unit,
)


def bank_of(references: Sequence[Reference], *, drop_twins: bool, kinds: Sequence[int] | None = None) -> Bank:
    return Bank.of(references, kinds or [0] * len(references), drop_twins=drop_twins)


def compared(bank: Bank, picture: ImageTokens, kind: int = 0) -> References:
    found = bank.compare(picture, kind)
    assert found is not None
    return found


def distance(bank: Bank, world: World, name: str, kind: int = 0) -> Scales[Floats]:
    return distance_of(bank, world.made[name], kind)


def distance_of(bank: Bank, picture: ImageTokens, kind: int = 0) -> Scales[Floats]:
    return compared(bank, picture, kind).distance


def each(distances: Scales[Floats]) -> tuple[Floats, Floats]:
    return distances.whole, distances.detail


def assert_near(first: Scales[Floats], second: Scales[Floats], atol: float = 1e-6) -> None:
    for one, other in zip(each(first), each(second), strict=True):
        np.testing.assert_allclose(one, other, atol=atol, rtol=0)


def rows(tokens: Scales[Floats]) -> Scales[Floats]:
    """The first reference's, of what is stacked."""
    return tokens.map(lambda stacked_RTD: stacked_RTD[0])


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
        assert np.sort(distance_P)[-5:].mean() > 2 * np.sort(fine.whole)[-5:].mean()


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
    with_near = [*references, reference(near, CELLS)]
    without = distance(bank_of(references, drop_twins=True), world, "odd")
    folder = distance(bank_of(with_near, drop_twins=True), world, "odd")
    good = distance(bank_of(with_near, drop_twins=False), world, "odd")
    assert_near(folder, without, atol=0.02)
    for scale in (lambda found: found.whole, lambda found: found.detail):
        assert scale(good).mean() < 0.2 * scale(folder).mean()


def test_only_copies_leave_nothing_to_compare_with(world: World) -> None:
    bank = bank_of([world.reference("only")], drop_twins=True)
    picture = world.made["only"]
    assert bank.kind_of(picture) is None
    assert bank.compare(picture, 0) is None


def test_one_reference_is_enough_for_another_picture(world: World) -> None:
    for drop_twins in (False, True):
        bank = bank_of([world.reference("only")], drop_twins=drop_twins)
        assert bank.kind_of(world.picture("other")) == 0
        assert distance(bank, world, "other").map(len) == CELLS


def test_order_of_the_references_changes_nothing(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(9)]
    world.picture("query", odd=4)
    there = bank_of(references, drop_twins=True)
    back = bank_of(references[::-1], drop_twins=True)
    assert_near(distance(there, world, "query"), distance(back, world, "query"))
    first, second = (compared(bank, world.made["query"]) for bank in (there, back))
    assert_near(first.counterpart, second.counterpart)
    assert first.count == second.count


def test_a_picture_of_the_folder_keeps_the_kind_it_was_put_in(world: World) -> None:
    """Kinds are found by cells; its look as a whole may be nearer to another one."""
    own, odd = [world.reference(f"a{i}") for i in range(5)], world.reference("b0", kind=1)
    references = [*own, odd, world.reference("b1", kind=1)]
    nearest_to_b = replace(world.made["a4"], descriptor_E=odd.descriptor_E)
    references[4] = replace(own[-1], descriptor_E=odd.descriptor_E)
    kinds = [0] * 5 + [1] * 2
    folder = bank_of(references, drop_twins=True, kinds=kinds)
    assert folder.kind_of(nearest_to_b) == 0
    assert folder.kind_of(replace(world.made["b1"], digest=digest("another"))) == 1
    # Alone in its kind it has nothing to be compared with there.
    alone = bank_of(references[4:], drop_twins=True, kinds=[0, 1, 1])
    assert alone.kind_of(nearest_to_b) == 1


def test_each_kind_is_compared_with_its_own(world: World) -> None:
    references = [world.reference(f"a{i}", kind=0) for i in range(5)]
    references += [world.reference(f"b{i}", kind=1) for i in range(4)]
    bank = bank_of(references, drop_twins=True, kinds=[0] * 5 + [1] * 4)
    for kind in (0, 1):
        picture = world.picture(f"query {kind}", kind=kind)
        assert bank.kind_of(picture) == kind
        for own_P, other_P in zip(
            each(distance(bank, world, f"query {kind}", kind)),
            each(distance(bank, world, f"query {kind}", 1 - kind)),
            strict=True,
        ):
            assert own_P.mean() < 0.5 < other_P.mean()
    assert bank.kinds == 2
    assert [bank.members(kind) for kind in (0, 1)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]


def test_most_like_references_are_chosen_where_there_are_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR", 4)
    references = [world.reference(f"a{i}", kind=0) for i in range(4)]
    references += [world.reference(f"b{i}", kind=1) for i in range(6)]
    bank = bank_of(references, drop_twins=False)
    world.picture("query", kind=0)
    alone = bank_of(references[:4], drop_twins=False)
    assert_near(distance(bank, world, "query"), distance(alone, world, "query"))


def test_reference_draws_by_digest(world: World) -> None:
    picture, few = world.picture("a"), Scales(16, 24)
    first, again = reference(picture, few), reference(picture, few)
    assert_same(first.tokens, again.tokens)
    other = reference(replace(picture, digest=digest("b")), few)
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
    reference(picture, Scales(16, 16))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_draws_are_the_same_in_every_version(world: World) -> None:
    """Contexts made years apart are joined as if all their references had been drawn at once."""
    numbers_PD = np.arange(100, dtype=np.float32)[:, None]
    tokens = Scales(numbers_PD, numbers_PD[:50])
    picture = replace(world.picture("a"), tokens=tokens, own=own_of(tokens))
    drawn = reference(picture, Scales(6, 4)).tokens
    assert drawn.whole[:, 0].tolist() == [52, 39, 73, 30, 57, 34]
    assert drawn.detail[:, 0].tolist() == [4, 45, 42, 23]


def first_cells(picture: ImageTokens, cells: Scales[int]) -> ImageTokens:
    """``picture`` with only its first cells."""
    tokens = Scales(picture.tokens.whole[: cells.whole], picture.tokens.detail[: cells.detail])
    return replace(picture, tokens=tokens, own=own_of(tokens))


@pytest.mark.parametrize(
    ("cells", "tokens"),
    [(Scales(1, 2), Scales(5, 9)), (Scales(3, 1), Scales(8, 8)), (CELLS, CELLS), (CELLS, Scales(100, 150))],
)
def test_stacked_repeats_what_a_small_picture_has(world: World, cells: Scales[int], tokens: Scales[int]) -> None:
    small = reference(first_cells(world.picture("a"), cells), tokens)
    assert small.tokens.map(len) == cells
    generator = np.random.default_rng(0)
    many = Scales(random_units(generator, 200, WIDTH), random_units(generator, 200, WIDTH))
    large = reference(token_picture("b", many, world.made["a"].descriptor_E), tokens)
    for order in (1, -1):
        for scale in ("whole", "detail"):
            both = list(getattr(stacked([one.tokens for one in (small, large)[::order]]), scale))[::order]
            count, length = getattr(cells, scale), getattr(tokens, scale)
            assert both[0].shape == both[1].shape == (length, WIDTH)
            assert np.array_equal(both[0][:count], getattr(small.tokens, scale))
            assert len(np.unique(both[0], axis=0)) == count
            assert len(np.unique(both[1], axis=0)) == length


@pytest.mark.parametrize("cells", [1, 2, 7, 31, 63, 64])
def test_unrepeated_undoes_stacking(world: World, cells: int) -> None:
    large = world.reference("large")
    one = reference(first_cells(world.picture("small"), Scales(cells, 2 * cells)), Scales(100, 200))
    row = rows(stacked([one.tokens, large.tokens]))
    assert row.map(len) == CELLS
    assert row.map(unrepeated) == one.tokens.map(len)
    # A picture of one look has equal tokens: one of them stands for all, and stacking gives the same again.
    even = one.tokens.map(lambda tokens_TD: np.tile(tokens_TD[:1], (cells, 1)))
    assert even.map(unrepeated) == Scales(1, 1)
    first = even.map(lambda tokens_TD: tokens_TD[:1])
    assert_same(stacked([first, large.tokens]), stacked([even, large.tokens]))


def test_a_token_that_comes_again_is_no_repetition_of_the_row() -> None:
    row_TD = unit(np.random.default_rng(0).normal(size=(9, WIDTH)))
    row_TD[4] = row_TD[0]
    assert unrepeated(row_TD) == 9
    assert unrepeated(row_TD[:0]) == 0


def test_own_evidence_is_repeated_with_its_tokens(world: World) -> None:
    small = reference(first_cells(world.picture("small"), Scales(7, 9)), CELLS)
    bank = bank_of([small, world.reference("large")], drop_twins=False)
    assert_same(bank.own, own_of(bank.tokens.map(lambda t: t.reshape(-1, WIDTH))).map(lambda o: o.reshape(2, -1)))


def test_repeated_tokens_change_no_distance(world: World) -> None:
    small, query = world.picture("small"), world.picture("query", odd=4)
    one = reference(first_cells(small, Scales(10, 15)), Scales(100, 100))
    generator = np.random.default_rng(0)
    many = Scales(random_units(generator, 100, WIDTH), random_units(generator, 100, WIDTH))
    large = token_picture("b", many, -small.descriptor_E)
    alone = bank_of([one], drop_twins=False)
    beside = bank_of([one, reference(large, Scales(100, 100))], drop_twins=False, kinds=[0, 1])
    assert alone.tokens.whole.shape[1] < beside.tokens.whole.shape[1]
    assert alone.tokens.detail.shape[1] < beside.tokens.detail.shape[1]
    assert_near(distance_of(alone, query), distance_of(beside, query))


def test_reference_is_what_half_precision_can_hold_and_holds_no_picture(world: World) -> None:
    picture = world.picture("a")
    found = reference(picture, Scales(8, 9))
    for kept in (found.tokens.whole, found.tokens.detail, found.descriptor_E):
        assert kept.dtype == np.float32
        assert np.array_equal(kept.astype(np.float16), kept)
    for kept in (found.own.whole, found.own.detail):
        assert np.array_equal(kept.astype(np.float16), kept)
    assert found.own.map(len) == Scales(8, 9)
    assert found.tokens.map(held) == Scales(8 * WIDTH * 4, 9 * WIDTH * 4)


def test_a_reference_is_cut_to_its_first_tokens_and_lets_go_of_the_rest(world: World) -> None:
    one = world.reference("a")
    for fewer in (Scales(5, 7), Scales(5, 1000), Scales(1000, 7)):
        found = cut(one, fewer)
        assert found.tokens.map(len) == Scales(min(64, fewer.whole), min(128, fewer.detail))
        for part, all_TD in zip(each(found.tokens), each(one.tokens), strict=True):
            assert np.array_equal(part, all_TD[: len(part)])
            assert held(part) == len(part) * WIDTH * 4
        assert found.own.map(len) == found.tokens.map(len)
        assert np.array_equal(found.own.detail, one.own.detail[: len(found.own.detail)])
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


# ---- counterparts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_twins", [False, True])
def test_the_counterpart_of_a_cell_is_the_nearest_cell_of_the_reference_that_is_nearest_there(
    world: World, drop_twins: bool
) -> None:
    """Written out; and its own evidence is that of the very token, at the same scale."""
    references = [world.reference(f"r{i}", odd=3) for i in range(7)]
    bank = bank_of(references, drop_twins=drop_twins)
    query = world.picture("query", odd=6)
    found = compared(bank, query)
    assert found.count == 7
    for scale in ("whole", "detail"):
        tokens_PD = getattr(query.tokens, scale)
        similar_PRT = np.einsum("pd,rtd->prt", tokens_PD, getattr(bank.tokens, scale))
        best_P = similar_PRT.max(2).argmax(1)
        token_P = similar_PRT[np.arange(len(best_P)), best_P].argmax(1)
        np.testing.assert_array_equal(getattr(found.counterpart, scale), getattr(bank.own, scale)[best_P, token_P])
        expected_P = lowest_mean(1 - similar_PRT.max(2), AGREE if drop_twins else AGREE_GOOD)
        np.testing.assert_allclose(getattr(found.distance, scale), expected_P, atol=1e-5)


def test_counterparts_are_sought_among_those_that_serve(world: World) -> None:
    """Of two kinds the own one, in a folder no copy of the image."""
    references = [world.reference(f"a{i}", kind=0) for i in range(4)] + [
        world.reference(f"b{i}", kind=1) for i in range(3)
    ]
    query = world.made["b1"]
    own = replace(query, own=query.own.map(lambda one: one + 9))
    references[5] = reference(own, CELLS)
    bank = bank_of(references, drop_twins=True, kinds=[0] * 4 + [1] * 3)
    found = compared(bank, query, kind=1)
    assert found.count == 2
    assert max(found.counterpart.whole.max(), found.counterpart.detail.max()) < 1
    good = bank_of(references, drop_twins=False, kinds=[0] * 4 + [1] * 3)
    assert compared(good, query, kind=1).counterpart.whole.min() > 8


def test_no_copies_serve_where_the_caller_says_so(world: World) -> None:
    references = [world.reference(f"r{i}") for i in range(5)]
    bank, picture = bank_of(references, drop_twins=False), world.made["r2"]
    found = bank.compare(picture, 0, no_copies=True)
    expected = bank_of([*references[:2], *references[3:]], drop_twins=False).compare(picture, 0)
    assert found is not None
    assert expected is not None
    assert_near(found.distance, expected.distance)
    assert_near(found.counterpart, expected.counterpart)
    assert found.count == expected.count == 4
    assert compared(bank, picture).distance.whole.max() < 1e-3
    assert bank_of(references[:1], drop_twins=False).compare(world.made["r0"], 0, no_copies=True) is None


# ---- images with and without crops ----------------------------------------------------------------------------------


def test_images_of_one_view_are_compared_at_their_one_scale(world: World) -> None:
    references = [reference(of_one_view(world.picture(f"r{i}")), CELLS) for i in range(5)]
    bank = bank_of(references, drop_twins=False)
    assert bank.tokens.map(np.shape) == Scales((5, 64, WIDTH), (5, 0, WIDTH))
    query = of_one_view(world.picture("query"))
    found = compared(bank, query)
    assert found.distance.map(len) == found.counterpart.map(len) == Scales(64, 0)
    with_crops = bank_of([world.reference(f"r{i}") for i in range(5)], drop_twins=False)
    assert np.array_equal(compared(with_crops, query).distance.whole, found.distance.whole)


def test_crops_are_compared_with_base_views_where_no_reference_has_crops(world: World) -> None:
    references = [reference(of_one_view(world.picture(f"r{i}")), CELLS) for i in range(5)]
    bank, query = bank_of(references, drop_twins=False), world.picture("query")
    found = compared(bank, query)
    assert found.distance.map(len) == CELLS
    similar_PRT = np.einsum("pd,rtd->prt", query.tokens.detail, bank.tokens.whole)
    np.testing.assert_allclose(found.distance.detail, (1 - similar_PRT.max(2)).min(1), atol=1e-5)
    best_P = similar_PRT.max(2).argmax(1)
    token_P = similar_PRT[np.arange(len(best_P)), best_P].argmax(1)
    np.testing.assert_array_equal(found.counterpart.detail, bank.own.whole[best_P, token_P])


def test_an_image_of_one_view_among_images_with_crops(world: World) -> None:
    bank = bank_of([world.reference(f"r{i}") for i in range(5)], drop_twins=True)
    found = compared(bank, of_one_view(world.picture("query")))
    assert found.distance.map(len) == Scales(64, 0)
    assert np.isfinite(found.distance.whole).all()


def test_a_reference_without_crops_stands_by_its_base_view_among_those_with_crops(world: World) -> None:
    small, large = reference(of_one_view(world.picture("small")), CELLS), world.reference("large")
    bank = bank_of([small, large], drop_twins=False)
    assert bank.tokens.map(lambda t: t.shape[:2]) == Scales((2, 64), (2, 128))
    assert np.array_equal(bank.tokens.detail[0], np.tile(small.tokens.whole, (2, 1)))
    assert np.array_equal(bank.own.detail[0], np.tile(small.own.whole, 2))
