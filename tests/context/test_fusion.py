"""One score of two: its scale, its range, its order, and that the map follows the same formula."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.context.bank import Usual
from anomaly_ov.context.fusion import context_score, excesses, fused_map, fused_score
from anomaly_ov.models.config import ContextConfig

CONFIG = ContextConfig(
    bias=-0.5,
    expert_weight=0.7,
    context_weight=1.6,
    map_bias=-0.5,
    map_expert_weight=0.7,
    map_context_weight=1.6,
)
probability = st.floats(0, 1)
usuals = st.builds(
    Usual, st.floats(0.01, 1), st.floats(-5, 5), st.integers(0, 50), st.floats(0.05, 2), st.floats(0.05, 2)
)
USUAL = Usual(distance=0.3, expert_logit=0.9, count=12, distance_spread=0.25, expert_spread=0.5)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_context_score_at_known_distances() -> None:
    assert float(context_score(0.0, 0.3, 2.0)) == 0
    assert float(context_score(0.3, 0.3, 2.0)) == pytest.approx(1 / 3)
    assert float(context_score(0.6, 0.3, 2.0)) == pytest.approx(0.5)
    assert float(context_score(1e9, 0.3, 2.0)) == pytest.approx(1, abs=1e-6)


def test_context_score_has_no_scale_of_its_own() -> None:
    distances = np.linspace(0, 2, 9)
    np.testing.assert_allclose(context_score(distances, 0.2, 2.0), context_score(5 * distances, 1.0, 2.0), atol=1e-6)


def test_context_score_rises_and_keeps_its_shape() -> None:
    distances = np.linspace(0, 2, 12).reshape(3, 4)
    score = context_score(distances, 0.2, 2.0)
    assert score.shape == (3, 4)
    assert score.dtype == np.float32
    assert (np.diff(score.ravel()) > 0).all()


@pytest.mark.parametrize("half", [0.5, 2.0, 7.0])
@pytest.mark.parametrize("steps", [-1.0, 0.0, 1.0, 3.0])
def test_excesses_count_in_spreads_from_what_is_usual(half: float, steps: float) -> None:
    """Whatever ``half`` is: it says what scores 0.5, not what is unusual."""
    distance = USUAL.distance * math.exp(steps * USUAL.distance_spread)
    score_expert = 1 / (1 + math.exp(-USUAL.expert_logit - steps * USUAL.expert_spread))
    found = excesses(score_expert, context_score(distance, USUAL.distance, half), USUAL, half)
    assert [float(excess) for excess in found] == pytest.approx([steps, steps], abs=1e-4)


def test_excesses_are_elementwise() -> None:
    expert_HW = np.linspace(0.1, 0.9, 6, dtype=np.float32).reshape(2, 3)
    context_HW = np.linspace(0.8, 0.2, 6, dtype=np.float32).reshape(2, 3)
    found = excesses(expert_HW, context_HW, USUAL, 2.0)
    for place in np.ndindex(2, 3):
        alone = excesses(float(expert_HW[place]), float(context_HW[place]), USUAL, 2.0)
        assert [float(excess[place]) for excess in found] == pytest.approx([float(e) for e in alone], abs=1e-5)


def test_the_same_excess_scores_the_same_wherever_it_is_found() -> None:
    """A cloth that varies much and a face that hardly does: two spreads beyond are two spreads beyond."""
    scores = []
    for usual in (USUAL, Usual(0.02, -2.0, 12, 0.05, 0.1)):
        distance = usual.distance * math.exp(2 * usual.distance_spread)
        score_expert = 1 / (1 + math.exp(-usual.expert_logit - 2 * usual.expert_spread))
        scores.append(fused_score(score_expert, float(context_score(distance, usual.distance, 2.0)), usual, CONFIG))
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_fused_score_is_the_documented_formula() -> None:
    expert, context = 0.8, 0.4
    excess = (logit(expert) - 0.9) / 0.5, (logit(context) + math.log(CONFIG.half)) / 0.25
    total = -0.5 + 0.7 * excess[0] + 1.6 * excess[1]
    assert fused_score(expert, context, USUAL, CONFIG) == pytest.approx(1 / (1 + math.exp(-total)), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(probability, probability, probability, usuals)
def test_fused_score_rises_with_both_parts(low: float, high: float, other: float, usual: Usual) -> None:
    low, high = sorted((low, high))
    assert 0 <= fused_score(low, other, usual, CONFIG) <= fused_score(high, other, usual, CONFIG) <= 1
    assert 0 <= fused_score(other, low, usual, CONFIG) <= fused_score(other, high, usual, CONFIG) <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(probability, probability), min_size=1, max_size=9), usuals)
def test_map_follows_the_formula_of_the_score(pairs: list[tuple[float, float]], usual: Usual) -> None:
    expert, context = (np.array(values, np.float32)[None] for values in zip(*pairs, strict=True))
    found_HW = fused_map(expert, context, usual, CONFIG)
    assert found_HW.dtype == np.float32
    assert found_HW.shape == expert.shape
    expected = [[fused_score(float(e), float(c), usual, CONFIG) for e, c in zip(expert[0], context[0], strict=True)]]
    np.testing.assert_allclose(found_HW, expected, atol=1e-5)


def test_map_without_the_expert_is_the_context_alone() -> None:
    context_HW = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    for expert_HW in (np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)):
        for spread in (1.0, 0.25):
            found_HW = fused_map(expert_HW, context_HW, Usual(0.3, 2.0, 5, spread, 0.5), ContextConfig(half=1.0))
            # Odds of the context's map, to the power of one over the spread.
            expected_HW = context_HW ** (1 / spread) / (context_HW ** (1 / spread) + (1 - context_HW) ** (1 / spread))
            np.testing.assert_allclose(found_HW, expected_HW, atol=1e-5)


def test_inputs_stay_as_they_are() -> None:
    expert_HW, context_HW = np.full((2, 2), 0.3, np.float32), np.full((2, 2), 0.6, np.float32)
    fused_map(expert_HW, context_HW, USUAL, CONFIG)
    assert (expert_HW == np.float32(0.3)).all()
    assert (context_HW == np.float32(0.6)).all()


def test_extremes_neither_leave_the_range_nor_warn() -> None:
    steep = ContextConfig(context_weight=20, map_context_weight=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value, limit in ((0.0, 0), (1.0, 1)):
            assert fused_score(value, value, USUAL, steep) == pytest.approx(limit, abs=1e-6)
            map_HW = np.full((2, 2), value, np.float32)
            np.testing.assert_allclose(fused_map(map_HW, map_HW, USUAL, steep), limit, atol=1e-6)
