"""A context: what is usual in it, and how a picture is judged by it."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from anomaly_ov.context.bank import Bank
from anomaly_ov.context.context import FLOOR, PRIOR, SPREAD_FLOOR, Context
from anomaly_ov.context.fusion import context_score, fused_map, fused_score
from anomaly_ov.models.config import ContextConfig
from context_fixtures import SIDE, World

CONFIG = ContextConfig(
    usual=0.25,
    spread=0.1,
    expert_usual=1.5,
    expert_spread=0.8,
    expert_weight=0.5,
    context_weight=2.0,
    map_expert_weight=0.5,
    map_context_weight=2.0,
)
EXPERT_HW = np.linspace(0.1, 0.9, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)


@pytest.fixture
def world() -> World:
    return World()


def context_of(world: World, count: int, *, folder: bool = False, noise: float = 0.08) -> Context:
    world.noise = noise
    # Of mean -1 and, for spreads, not all the same.
    logits = -1.0 + np.linspace(-0.9, 0.9, count)[::-1] * (count > 1)
    references = [replace(world.reference(f"r{i}"), expert_logit=float(logits[i])) for i in range(count)]
    bank = Bank.of(references, [0] * count, top=CONFIG.top, drop_twins=folder)
    return Context(bank, "folder" if folder else "references", "shelf", "test", CONFIG)


def test_usual_is_the_prior_for_one_reference_and_its_own_for_many(world: World) -> None:
    one = context_of(world, 1).usual(0)
    assert (one.distance, one.expert_logit) == (CONFIG.usual, CONFIG.expert_usual)
    assert (one.distance_spread, one.expert_spread) == (CONFIG.spread, CONFIG.expert_spread)
    for count in (3, 9, 31):
        context = context_of(world, count)
        own, found, weight = context.bank.usual[0], context.usual(0), count / (count + PRIOR)
        assert found.distance == pytest.approx(weight * own.distance + (1 - weight) * CONFIG.usual)
        assert found.expert_logit == pytest.approx(-weight + (1 - weight) * CONFIG.expert_usual)
        assert min(own.distance_spread, own.expert_spread) > 0
        assert found.distance_spread == pytest.approx(weight * own.distance_spread + (1 - weight) * CONFIG.spread)
        assert found.expert_spread == pytest.approx(weight * own.expert_spread + (1 - weight) * CONFIG.expert_spread)


def test_usual_has_a_floor_for_equal_references(world: World) -> None:
    found = context_of(world, 60, noise=0.0).usual(0)
    assert found.distance == pytest.approx(FLOOR * CONFIG.usual)


def test_spreads_have_a_floor_for_references_that_agree(world: World) -> None:
    context = context_of(world, 60)
    agreed = replace(context.bank.usual[0], distance_spread=0.0, expert_spread=0.0)
    found = replace(context, bank=replace(context.bank, usual=(agreed,))).usual(0)
    assert found.distance_spread == pytest.approx(SPREAD_FLOOR * CONFIG.spread)
    assert found.expert_spread == pytest.approx(SPREAD_FLOOR * CONFIG.expert_spread)
    # Just above the floor nothing is raised.
    wide = replace(agreed, distance_spread=CONFIG.spread, expert_spread=CONFIG.expert_spread)
    found = replace(context, bank=replace(context.bank, usual=(wide,))).usual(0)
    assert (found.distance_spread, found.expert_spread) == pytest.approx((CONFIG.spread, CONFIG.expert_spread))


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


def test_moved_to_a_device_with_all_it_holds(world: World) -> None:
    context = context_of(world, 5)
    moved = context.to("meta")
    tensors = ("tokens_RTD", "descriptor_RE", "kind_R", "expert_logit_R")
    assert {getattr(moved.bank, name).device.type for name in tensors} == {"meta"}
    assert {getattr(context.bank, name).device.type for name in tensors} == {"cpu"}
    assert {name for name, value in vars(context.bank).items() if isinstance(value, torch.Tensor)} == set(tensors)
    assert (moved.bank.usual, moved.bank.digests) == (context.bank.usual, context.bank.digests)
    assert (moved.kind, moved.source, asdict(moved.config)) == (context.kind, context.source, asdict(CONFIG))
    assert context.to("cpu").bank.tokens_RTD.data_ptr() == context.bank.tokens_RTD.data_ptr()


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
    cells_HW = context_score(compared.distance_P, usual.distance, CONFIG.half).reshape(SIDE, SIDE)
    np.testing.assert_allclose(judged.map_HW, fused_map(EXPERT_HW, cells_HW, usual, CONFIG), atol=1e-5)
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


def test_map_is_brightest_at_the_odd_place(world: World) -> None:
    context, picture = context_of(world, 10), world.picture("query")
    tokens_PD = picture.tokens_PD.clone()
    tokens_PD[SIDE * 2 + 5] = -tokens_PD[SIDE * 2 + 5]
    marked = replace(picture, tokens_PD=tokens_PD)
    map_HW = context.judge(context.compare(marked), marked, 0.5, np.full((SIDE, SIDE), 0.5, np.float32)).map_HW
    assert np.unravel_index(map_HW.argmax(), map_HW.shape) == (2, 5)


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
    black = replace(picture, tokens_PD=torch.zeros_like(picture.tokens_PD))
    judged = context.judge(context.compare(black), black, 0.5, EXPERT_HW)
    assert np.isfinite(judged.score)
    assert np.isfinite(judged.map_HW).all()
