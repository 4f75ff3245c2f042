"""A context: what it compares an image with, and how an image is judged by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anomaly_ov.context import context as module
from anomaly_ov.context.bank import Bank, reference
from anomaly_ov.context.build import evidence_of
from anomaly_ov.context.context import Context
from anomaly_ov.context.tokens import ImageTokens
from anomaly_ov.errors import ContextMismatch
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.records import ModelInfo
from anomaly_ov.scoring.score import Judged, Usual, expected, judge, logit
from context_fixtures import (
    BOTH,
    CELLS,
    HIGH,
    SIDE,
    WIDE,
    World,
    encoded,
    marked,
    of_one_view,
    pixels_of,
    random_units,
    sources,
    token_picture,
    unit,
)

SCORING = ScoringConfig(
    few=ModeConfig(own=0.5, matched=1.0, usual=-2.0, spread=0.2, usual_spread=0.4, source="few of the test"),
    references=ModeConfig(own=0.4, matched=1.0, usual=-2.1, spread=0.2, usual_spread=0.4, source="many of the test"),
    folder=ModeConfig(own=0.3, usual=-2.2, spread=0.2, usual_spread=0.4, source="folder of the test"),
)


@pytest.fixture
def world() -> World:
    return World()


def context_of(world: World, count: int, *, folder: bool = False, config: ScoringConfig = SCORING) -> Context:
    names = [f"r{i}" for i in range(count)]
    for name in names:
        world.picture(name)
    builder = world.builder(config)
    return (builder.folder if folder else builder.references)(sources(names), "shelf")


def judged(context: Context, picture: ImageTokens) -> Judged:
    """As an inspection does it."""
    compared = context.compare(picture)
    assert compared is not None
    evidence = evidence_of(encoded(picture), compared.references, context.config)
    return judge(evidence, picture.cells, context.mode(compared.kind), context.config, compared.usual)


def test_odder_pictures_score_higher(world: World) -> None:
    context = context_of(world, 10)
    scores = [judged(context, world.picture(f"query {odd}", odd=odd)).score for odd in (0, 1, 4, 10, 30)]
    assert scores == sorted(scores)
    assert scores[0] < 0.5 < scores[1]
    assert scores[-1] > scores[0] + 0.4


@pytest.mark.parametrize("noise", [0.02, 0.08, 0.2])
def test_a_good_picture_lies_where_its_references_do(noise: float) -> None:
    """Whether the object varies much or little: told in spreads of its own references, drawn to the training sets'."""
    world = World(noise=noise)
    context = context_of(world, 40)
    (usual,) = context.usual
    found = [judged(context, world.picture(f"query {i}")) for i in range(8)]
    value, _ = expected(usual, context.mode(0))
    assert usual.count == 40
    assert abs(value - usual.value) < 0.2
    assert float(np.mean([one.beyond for one in found])) == pytest.approx(0, abs=1.5)
    assert max(one.score for one in found) < judged(context, world.picture("odd", odd=2)).score


def test_a_defect_at_one_scale_raises_score_and_map_and_at_both_more(world: World) -> None:
    context, plain, places = context_of(world, 10), world.picture("query"), [21, 22, 29, 30]
    scores, bright = [], []
    for scales in ([], ["whole"], ["detail"], BOTH):
        found = judged(context, marked(plain, places, scales))
        scores.append(found.beyond)
        bright.append(float(logit(found.map_HW[pixels_of(places)]).mean()))  # a clear defect's are all near 1
    for none, whole, detail, both in (scores, bright):
        assert min(whole, detail) > none + 0.03
        assert both > max(whole, detail) + 0.03


@pytest.mark.parametrize("place", [0, 2 * SIDE + 5, 63])
@pytest.mark.parametrize("scales", [["whole"], ["detail"], BOTH], ids=" ".join)
def test_a_defect_is_the_highest_place_of_the_map_whichever_scale_sees_it(
    world: World, place: int, scales: list[str]
) -> None:
    context, plain = context_of(world, 10), world.picture("query")
    map_HW = judged(context, marked(plain, [place], scales)).map_HW
    assert pixels_of([place])[np.unravel_index(map_HW.argmax(), (HIGH, WIDE))]


def test_pictures_of_one_view_are_judged_as_others(world: World) -> None:
    references = [reference(of_one_view(world.picture(f"r{i}")), CELLS) for i in range(8)]
    bank = Bank.of(references, [0] * 8, drop_twins=False)
    context = Context(bank, np.full(8, np.nan, np.float32), "references", "shelf", "test", SCORING)
    fine, place = of_one_view(world.picture("query")), 2 * SIDE + 5
    odd = of_one_view(marked(world.picture("query"), [place, place + 1]))
    found = [judged(context, one) for one in (fine, odd)]
    assert found[1].score > found[0].score + 0.3
    assert found[1].map_HW.shape == (SIDE, SIDE)
    assert np.unravel_index(found[1].map_HW.argmax(), (SIDE, SIDE)) in ((2, 5), (2, 6))


def test_pictures_of_one_view_and_of_several_serve_each_other(world: World) -> None:
    """They stand out by the same places, at about the same score."""
    crops, place = context_of(world, 8), 2 * SIDE + 5
    lone = [reference(of_one_view(world.made[f"r{i}"]), CELLS) for i in range(8)]
    one_view = replace(crops, bank=Bank.of(lone, [0] * 8, drop_twins=False))
    query = marked(world.picture("query"), [place])
    assert judged(crops, of_one_view(query)).score > 0.5
    found = judged(one_view, query)
    assert found.map_HW.shape == (HIGH, WIDE)
    assert np.isfinite(found.map_HW).all()


def test_only_copies_leave_nothing_to_compare_with(world: World) -> None:
    context = context_of(world, 3, folder=True)
    lonely = replace(context, bank=replace(context.bank, digests=(world.made["r0"].digest,) * 3))
    assert lonely.compare(world.made["r0"]) is None
    assert context.compare(world.made["r0"]) is not None


def test_tokens_without_direction_give_finite_scores(world: World) -> None:
    """A black picture may give zero tokens; they look like nothing."""
    context, picture = context_of(world, 5), world.picture("black")
    found = judged(context, replace(picture, tokens=picture.tokens.map(np.zeros_like)))
    assert np.isfinite(found.map_HW).all()
    assert found.score > 0.5


# ---- which figures hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "source"), [(1, "few"), (3, "few"), (4, "many"), (12, "many")])
def test_how_evidence_is_weighed_depends_on_how_many_references_there_are(
    world: World, count: int, source: str
) -> None:
    assert context_of(world, count).mode(0).source == f"{source} of the test"


def test_of_two_kinds_each_has_as_many_references_as_it_has(world: World) -> None:
    names = [f"a{i}" for i in range(13)] + [f"b{i}" for i in range(10)]
    for name in names:
        world.picture(name, kind=int(name[0] == "b"))
    folder = world.builder(SCORING).folder(sources(names), "folder")
    good = world.builder(SCORING).references(sources(names), "shelf")
    assert folder.bank.kinds == good.bank.kinds == 2
    assert [folder.mode(kind).source for kind in (0, 1)] == ["folder of the test"] * 2
    kind_R = good.bank.kind_R.copy()
    kind_R[:] = 0
    kind_R[:3] = 1
    few = replace(good, bank=replace(good.bank, kind_R=kind_R))
    assert [few.mode(kind).source for kind in (0, 1)] == ["many of the test", "few of the test"]
    for name in ("a1", "b1"):
        found = folder.compare(world.made[name])
        assert found is not None
        assert found.usual == folder.usual[found.kind]


def test_what_was_not_measured_does_not_count(world: World) -> None:
    context = replace(context_of(world, 5), suspicion_R=np.array([np.nan, -1, np.nan, -2, -3], np.float32))
    assert context.usual == (Usual(-2.0, 1.0, 3),)
    assert replace(context, suspicion_R=np.full(5, np.nan, np.float32)).usual == (Usual(),)


def test_what_is_usual_in_a_folder_is_not_said_by_its_odd_pictures(world: World) -> None:
    suspicion_R = np.array([-2.0] * 12 + [-2.2] * 3 + [3.0] * 5, np.float32)
    folder = replace(context_of(world, 20, folder=True), suspicion_R=suspicion_R)
    (usual,) = folder.usual
    assert usual.value == pytest.approx(-2)
    assert usual.spread < 0.3
    assert replace(folder, kind="references").usual[0].value > -1


def test_the_same_evidence_says_less_beside_one_reference_than_beside_many(world: World) -> None:
    """What is usual of the object is not known after one."""
    mode = SCORING.references
    scores = []
    for count in (1, 4, 16, 48):
        usual = Usual(mode.usual, mode.spread, count)
        value, spread = expected(usual, mode)
        assert value == pytest.approx(mode.usual)
        scores.append(1 / spread)
    assert scores == sorted(scores)


# ---- images that look like none of the references -------------------------------------------------------------------


def test_an_image_that_looks_like_none_of_the_references_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNLIKE", 0.4)  # tokens of so few numbers are never quite unlike
    context, folder = context_of(world, 6), context_of(world, 6, folder=True)
    for kind, unlike in ((0, False), (5, True)):
        picture = world.picture(f"query {kind}", odd=3, kind=kind)
        found = context.compare(picture)
        assert found is not None
        assert found.unlike == unlike
        in_folder = folder.compare(picture)
        assert in_folder is not None
        assert not in_folder.unlike, "in a folder it would be a kind of its own"


def test_the_measured_limit_tells_objects_apart_in_wide_tokens(world: World) -> None:
    generator = np.random.default_rng(0)
    looks = [random_units(generator, CELLS.whole, 256) for _ in range(2)]
    details = random_units(generator, CELLS.detail, 256)

    def shown(name: str, look: np.ndarray) -> ImageTokens:
        tokens_QD = unit(look + 0.02 * generator.normal(size=look.shape))
        world.made[name] = token_picture(name, type(CELLS)(tokens_QD, details), unit(look.mean(0)))
        return world.made[name]

    for i in range(3):
        shown(f"r{i}", looks[0])
    context = world.builder(SCORING).references(sources(["r0", "r1", "r2"]), "shelf")
    for look, unlike in zip(looks, (False, True), strict=True):
        found = context.compare(shown("query", look))
        assert found is not None
        assert found.unlike == unlike


# ---- whose it is ----------------------------------------------------------------------------------------------------


def test_a_context_belongs_to_one_model_and_one_scoring(world: World) -> None:
    context, info = context_of(world, 3), ModelInfo("mine", "test", "cpu", "float32")
    context.require_model(info, SCORING)
    with pytest.raises(ContextMismatch, match="another scoring of the model") as raised:
        context.require_model(info, ScoringConfig())
    assert "context build" in raised.value.hint
    with pytest.raises(ContextMismatch, match="model revision test, this is mine newer"):
        context.require_model(replace(info, revision="newer"), SCORING)


def test_folder_and_references_are_told_apart(world: World) -> None:
    assert context_of(world, 3, folder=True).folder
    assert not context_of(world, 3).folder
