"""A context: what is usual in it, and how a picture is judged by it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from anomaly_ov.context.bank import Bank, Usual, picture_distance, reference
from anomaly_ov.context.context import FLOOR, PRIOR, SPREAD_FLOOR, Context, tops_of, with_prior
from anomaly_ov.context.fusion import context_score, fused_map, fused_score
from anomaly_ov.context.tokens import WHOLE_SHARE, PictureTokens, Scales
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.maps import significance_map
from anomaly_ov.models.config import ContextConfig
from context_fixtures import BOTH, CELLS, GEOMETRY, HIGH, SIDE, WIDE, World, marked, pixels_of

CONFIG = ContextConfig(
    usual=0.25,
    spread=0.1,
    usual_spread=0.4,
    expert_usual=1.5,
    expert_spread=0.8,
    expert_usual_spread=0.6,
    # Small, because pictures made of tokens vary little: no score is to reach 1.
    expert_weight=0.05,
    context_weight=0.1,
    map_expert_weight=0.05,
    map_context_weight=0.04,
)
EXPERT_HW = np.linspace(0.1, 0.9, HIGH * WIDE, dtype=np.float32).reshape(HIGH, WIDE)
EVEN_HW = np.full((HIGH, WIDE), 0.5, np.float32)


@pytest.fixture
def world() -> World:
    return World()


def context_of(world: World, count: int, *, folder: bool = False, noise: float = 0.08) -> Context:
    world.noise = noise
    # Of mean -1 and, for spreads, not all the same.
    logits = -1.0 + np.linspace(-0.9, 0.9, count)[::-1] * (count > 1)
    references = [replace(world.reference(f"r{i}"), expert_logit=float(logits[i])) for i in range(count)]
    bank = Bank.of(references, [0] * count, tops=tops_of(CONFIG), drop_twins=folder)
    return Context(bank, "folder" if folder else "references", "shelf", "test", CONFIG)


# ---- what is usual, the fewer references the less sure --------------------------------------------------------------


def test_one_reference_knows_nothing_usual_and_both_spreads_add_up(world: World) -> None:
    """How much pictures of one object differ, and how much objects do: neither is known."""
    one = context_of(world, 1).usual(0)
    assert one.count == 0
    assert one.distance == pytest.approx(CONFIG.usual)
    assert one.expert_logit == pytest.approx(CONFIG.expert_usual)
    assert one.distance_spread == pytest.approx(math.hypot(0.1, 0.4))
    assert one.expert_spread == pytest.approx(math.hypot(0.8, 0.6))
    assert one == with_prior(Usual(0.0, 17.0, 0), CONFIG)  # whatever the expert says of that one picture


@pytest.mark.parametrize("count", [2, 3, 9, 31])
def test_usual_is_the_posterior_of_a_normal_distribution(world: World, count: int) -> None:
    """The references' figures weighed against the prior by how sure either is, written out by precisions.

    Of the prior nothing is held to be less sure than ``PRIOR`` references are.
    """
    context = context_of(world, count)
    own, found, share = context.bank.usual[0], context.usual(0), count / (count + PRIOR)
    if count > 2:
        assert min(own.distance_spread, own.expert_spread) > 0
    pairs = [
        (math.log(own.distance), own.distance_spread, math.log(0.25), 0.1, 0.4),
        (own.expert_logit, own.expert_spread, 1.5, 0.8, 0.6),
    ]
    expected = []
    for mean, own_spread, prior, prior_own_spread, prior_spread in pairs:
        spread = max(share * own_spread + (1 - share) * prior_own_spread, SPREAD_FLOOR * prior_own_spread)
        of_own, of_prior = count / spread**2, max(1 / prior_spread**2, PRIOR / spread**2)
        middle = (of_own * mean + of_prior * prior) / (of_own + of_prior)
        unknown = of_prior / (of_own + of_prior)
        expected.append((middle, math.sqrt(spread**2 + unknown * prior_spread**2)))
    assert found.distance == pytest.approx(math.exp(expected[0][0]))
    assert (found.distance_spread, found.expert_logit, found.expert_spread) == pytest.approx(
        (expected[0][1], *expected[1])
    )
    assert found.count == count


OWN = Usual(distance=0.1, expert_logit=-1.0, count=1, distance_spread=0.2, expert_spread=0.3)


def excess(usual: Usual) -> float:
    """How many spreads a distance of 0.3 lies beyond what is usual."""
    return (math.log(0.3) - math.log(usual.distance)) / usual.distance_spread


def test_the_fewer_references_the_wider_the_spread_and_the_less_an_excess_weighs() -> None:
    found = [with_prior(replace(OWN, count=count), CONFIG) for count in (0, 1, 4, 16, 100, 10_000)]
    for name, own, prior in (("distance", 0.1, 0.25), ("expert_logit", -1.0, 1.5)):
        values = [getattr(one, name) for one in found]
        assert values == sorted(values, reverse=True), "from the training sets' figure to the own one"
        assert values[0] == pytest.approx(prior)
        assert values[-1] == pytest.approx(own, rel=1e-3)
    # With equal spreads of the references themselves, what is left is how well the usual is known.
    even = replace(CONFIG, spread=0.2, expert_spread=0.3)
    found = [with_prior(replace(OWN, count=count), even) for count in (0, 1, 4, 16, 100)]
    for name in ("distance_spread", "expert_spread"):
        values = [getattr(one, name) for one in found]
        assert all(more > fewer for more, fewer in pairwise(values))
    excesses = [excess(one) for one in found]
    assert all(fewer < more for fewer, more in pairwise(excesses))
    assert excesses[1] < 0.7 * excesses[3]


def test_of_many_references_their_own_figures_hold() -> None:
    found = with_prior(replace(OWN, count=1_000_000), CONFIG)
    expected = (OWN.distance, OWN.expert_logit, OWN.distance_spread, OWN.expert_spread)
    assert (found.distance, found.expert_logit, found.distance_spread, found.expert_spread) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("count", [0, 1, 4, 1000])
def test_the_surer_the_training_sets_are_the_more_they_say(count: int) -> None:
    own, firm = replace(OWN, count=count), replace(CONFIG, usual_spread=1e-4, expert_usual_spread=1e-4)
    found = with_prior(own, firm)
    assert found.distance == pytest.approx(CONFIG.usual, rel=0.01)
    assert found.expert_logit == pytest.approx(CONFIG.expert_usual, rel=0.01)
    # However unsure they are, they count as much as so many references.
    share = count / (count + PRIOR)
    found = with_prior(own, replace(CONFIG, usual_spread=100.0, expert_usual_spread=100.0))
    assert math.log(found.distance) == pytest.approx(share * math.log(0.1) + (1 - share) * math.log(0.25))
    assert found.expert_logit == pytest.approx(share * -1.0 + (1 - share) * 1.5)


def test_usual_has_a_floor_for_equal_references() -> None:
    for distance in (0.0, 1e-9, FLOOR * CONFIG.usual):
        found = with_prior(replace(OWN, distance=distance, count=1_000_000), CONFIG)
        assert found.distance == pytest.approx(FLOOR * CONFIG.usual, rel=1e-3)
    # Just above the floor nothing is raised.
    found = with_prior(replace(OWN, distance=2 * FLOOR * CONFIG.usual, count=1_000_000), CONFIG)
    assert found.distance == pytest.approx(2 * FLOOR * CONFIG.usual, rel=1e-3)


def test_equal_references_are_told_by_the_floor(world: World) -> None:
    context = context_of(world, 60, noise=0.0)
    assert context.bank.usual[0].distance < FLOOR * CONFIG.usual
    assert context.usual(0) == with_prior(replace(context.bank.usual[0], distance=FLOOR * CONFIG.usual), CONFIG)


def test_spreads_have_a_floor_for_references_that_agree() -> None:
    found = with_prior(replace(OWN, distance_spread=0.0, expert_spread=0.0, count=1_000_000), CONFIG)
    assert found.distance_spread == pytest.approx(SPREAD_FLOOR * CONFIG.spread, rel=1e-3)
    assert found.expert_spread == pytest.approx(SPREAD_FLOOR * CONFIG.expert_spread, rel=1e-3)
    # Just above the floor nothing is raised.
    own = replace(OWN, distance_spread=0.3 * CONFIG.spread, expert_spread=0.3 * CONFIG.expert_spread, count=1_000_000)
    found = with_prior(own, CONFIG)
    assert found.distance_spread == pytest.approx(0.3 * CONFIG.spread, rel=1e-3)
    assert found.expert_spread == pytest.approx(0.3 * CONFIG.expert_spread, rel=1e-3)


FIRM = ContextConfig(
    usual=0.3,
    spread=0.1,
    usual_spread=0.5,
    expert_spread=0.5,
    expert_usual_spread=0.5,
    expert_weight=0.1,
    context_weight=0.5,
)
"""Much as it is fitted: pictures of a set vary by a tenth, sets differ by half."""


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("references", [1, 2, 4, 16])
def test_a_broken_picture_of_an_object_that_varies_little_is_not_excused(references: int, seed: int) -> None:
    """Such pictures lie far nearer to each other than those of the training sets, and a broken one may do so too.

    Of one good picture nothing usual is known but the training sets' figure, and that is far too high: were it held
    for sure, good and broken pictures would lie many spreads below it, at scores of 0.
    """
    world = World(seed)
    context = replace(context_of(world, references, noise=0.04), config=FIRM)
    scores: dict[str, float] = {}
    for name, odd in (("good 1", 0), ("good 2", 0), ("broken 1", 1), ("broken 2", 1)):
        picture = world.picture(name, odd=odd)
        compared = context.compare(picture)
        assert compared is not None
        assert compared.distance < (0.3 if odd else 0.1) * FIRM.usual, "much more alike than the training sets are"
        scores[name] = context.judge(compared, picture, 0.5, EVEN_HW).score
        if odd and references == 1:
            held_for_sure = replace(compared, usual=replace(compared.usual, distance_spread=FIRM.spread))
            assert context.judge(held_for_sure, picture, 0.5, EVEN_HW).score < 0.01
    good, broken = ([scores[f"{what} {i}"] for i in (1, 2)] for what in ("good", "broken"))
    assert min(broken) > 1.5 * max(good)
    assert min(broken) > 0.15


def test_the_same_excess_says_less_over_one_reference_than_over_sixteen(world: World) -> None:
    """Twice what is usual, each time: over one reference that may be a matter of the object."""
    picture, scores = world.picture("query"), []
    for references in (1, 4, 16):
        context = context_of(world, references)
        compared = context.compare(picture)
        assert compared is not None
        usual = context.usual(0)
        twice = replace(compared, distance=2 * usual.distance)
        scores.append(context.judge(twice, picture, expert_of(usual), EVEN_HW).score)
    assert 0.5 < scores[0] < scores[1] < scores[2]


def expert_of(usual: Usual) -> float:
    """The score at which the expert has no excess."""
    return 1 / (1 + math.exp(-usual.expert_logit))


# ---- judging --------------------------------------------------------------------------------------------------------


def test_what_is_usual_scores_as_the_bias_says(world: World) -> None:
    """In the middle of its own references a picture has no excess of either part, whatever they are like."""
    for count, noise in ((3, 0.02), (30, 0.3)):
        context = context_of(world, count, noise=noise)
        usual, picture = context.usual(0), world.picture("query")
        compared = context.compare(picture)
        assert compared is not None
        expert = 1 / (1 + np.exp(-usual.expert_logit))
        judged = context.judge(replace(compared, distance=usual.distance), picture, expert, EXPERT_HW)
        assert judged.score == pytest.approx(1 / (1 + np.exp(-CONFIG.bias)), abs=1e-4)


def test_judged_by_the_documented_formulas(world: World) -> None:
    context = context_of(world, 10)
    picture = world.picture("query", odd=6)
    compared = context.compare(picture)
    assert compared is not None
    judged = context.judge(compared, picture, 0.7, EXPERT_HW)
    usual = context.usual(0)
    score_context = float(context_score(compared.distance, usual.distance, CONFIG.half))
    assert judged.score_context == pytest.approx(score_context)
    assert judged.score == pytest.approx(fused_score(0.7, score_context, usual, CONFIG))
    assert compared.cells.map(len) == CELLS
    assert compared.distance == pytest.approx(
        picture_distance(compared.cells, Scales(CONFIG.whole_top, CONFIG.detail_top))
    )
    cells_Nhw = np.concatenate([compared.cells.whole, compared.cells.detail]).reshape(3, SIDE, SIDE)
    cells_HW = significance_map(
        context_score(cells_Nhw, usual.distance, CONFIG.half), GEOMETRY, base_weight=WHOLE_SHARE
    )
    np.testing.assert_allclose(judged.map_HW, fused_map(EXPERT_HW, cells_HW, usual, CONFIG), atol=1e-5)
    assert judged.map_HW.shape == (HIGH, WIDE)
    assert judged.info.kind == "references"
    assert (judged.info.source, judged.info.references, judged.info.group) == ("shelf", 10, 0)
    assert judged.info.distance == pytest.approx(compared.distance / usual.distance, abs=1e-4)
    assert judged.info.note is None


def test_tokens_are_not_needed_for_the_judgement(world: World) -> None:
    context, picture = context_of(world, 6), world.picture("query", odd=3)
    compared = context.compare(picture)
    whole = context.judge(compared, picture, 0.5, EXPERT_HW)
    light = context.judge(compared, picture.without_tokens(), 0.5, EXPERT_HW)
    np.testing.assert_array_equal(light.map_HW, whole.map_HW)


def test_odder_pictures_score_higher(world: World) -> None:
    context, scores = context_of(world, 10), []
    for odd in (0, 4, 10, 30):
        picture = world.picture(f"query {odd}", odd=odd)
        scores.append(context.judge(context.compare(picture), picture, 0.5, EXPERT_HW).score)
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 0.2


def test_a_defect_at_one_scale_raises_score_and_map_and_at_both_more(world: World) -> None:
    context, plain, places = context_of(world, 10), world.picture("query"), [21, 22, 29, 30]
    scores, bright = [], []
    for scales in ([], ["whole"], ["detail"], BOTH):
        picture = marked(plain, places, scales)
        judged = context.judge(context.compare(picture), picture, 0.5, EVEN_HW)
        scores.append(judged.score)
        bright.append(float(judged.map_HW[pixels_of(places)].mean()))
    for none, whole, detail, both in (scores, bright):
        assert min(whole, detail) > none + 0.03
        assert both > max(whole, detail) + 0.03


@pytest.mark.parametrize("place", [0, 2 * SIDE + 5, 63])
@pytest.mark.parametrize("scales", [["whole"], ["detail"], BOTH], ids=" ".join)
def test_a_defect_shows_at_its_place_on_the_map_whichever_scale_sees_it(
    world: World, place: int, scales: list[str]
) -> None:
    context, plain = context_of(world, 10), world.picture("query")
    maps = []
    for picture in (plain, marked(plain, [place], scales)):
        maps.append(context.judge(context.compare(picture), picture, 0.5, EVEN_HW).map_HW)
    rise_HW = maps[1] - maps[0]
    inside_HW = pixels_of([place])
    assert inside_HW[np.unravel_index(rise_HW.argmax(), (HIGH, WIDE))]
    assert rise_HW[inside_HW].min() > 0.02
    # No farther than interpolation spreads it: by a cell of the base view.
    row, column = divmod(place, SIDE)
    near = slice(max(0, row - 1), row + 2), slice(max(0, 2 * column - 2), 2 * column + 4)
    assert rise_HW[near].sum() == pytest.approx(np.abs(rise_HW).sum(), abs=1e-5)
    if "detail" in scales:
        assert inside_HW[np.unravel_index(maps[1].argmax(), (HIGH, WIDE))]


def of_one_view(picture: PictureTokens) -> PictureTokens:
    """The same picture shown by its base view alone."""
    geometry = Geometry((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), (0, 0, SIDE, SIDE), (0, 0), SIDE)
    whole_QD = picture.tokens.whole
    shown_Nhw = np.ones((1, SIDE, SIDE), np.bool_)
    return replace(picture, tokens=Scales(whole_QD, whole_QD), geometry=geometry, shown_Nhw=shown_Nhw)


def test_pictures_of_one_view_are_judged_as_others(world: World) -> None:
    references = [reference(of_one_view(world.picture(f"r{i}")), 0.0, CELLS) for i in range(8)]
    bank = Bank.of(references, [0] * 8, tops=tops_of(CONFIG), drop_twins=False)
    context = Context(bank, "references", "shelf", "test", CONFIG)
    even_HW = np.full((SIDE, SIDE), 0.5, np.float32)
    fine, place = of_one_view(world.picture("query")), 2 * SIDE + 5
    odd = of_one_view(marked(world.picture("query"), [place, place + 1]))
    judged = [context.judge(context.compare(one), one, 0.5, even_HW) for one in (fine, odd)]
    assert judged[1].score > judged[0].score + 0.1
    assert judged[1].map_HW.shape == (SIDE, SIDE)
    assert np.unravel_index(judged[1].map_HW.argmax(), (SIDE, SIDE)) in ((2, 5), (2, 6))
    compared = context.compare(odd)
    assert compared is not None
    np.testing.assert_array_equal(compared.cells.whole, compared.cells.detail)


def test_pictures_of_one_view_and_of_several_serve_each_other(world: World) -> None:
    context = context_of(world, 8)
    one = of_one_view(world.picture("query"))
    compared = context.compare(one)
    assert compared is not None
    assert compared.cells.map(len) == Scales(SIDE * SIDE, SIDE * SIDE)
    judged = context.judge(compared, one, 0.5, np.full((SIDE, SIDE), 0.5, np.float32))
    assert np.isfinite(judged.score)
    lone = Bank.of([reference(one, 0.0, CELLS)], [0], tops=tops_of(CONFIG), drop_twins=False)
    other = replace(context, bank=lone).compare(world.picture("other"))
    assert other is not None
    assert other.cells.map(len) == CELLS


def test_only_copies_leave_the_expert_alone_and_say_so(world: World) -> None:
    context = context_of(world, 1, folder=True)
    picture = world.made["r0"]
    assert context.compare(picture) is None
    judged = context.judge(None, picture, 0.7, EXPERT_HW)
    assert (judged.score, judged.score_context) == (0.7, None)
    assert judged.map_HW is EXPERT_HW
    assert judged.info.kind == "folder"
    assert judged.info.distance is None
    assert judged.info.note is not None
    assert "copies" in judged.info.note


def test_tokens_without_direction_give_finite_scores(world: World) -> None:
    """A black picture may give zero tokens; they look like nothing."""
    context, picture = context_of(world, 5), world.picture("black")
    black = replace(picture, tokens=picture.tokens.map(np.zeros_like))
    judged = context.judge(context.compare(black), black, 0.5, EXPERT_HW)
    assert np.isfinite(judged.score)
    assert np.isfinite(judged.map_HW).all()
