"""From evidence to score, map and verdict: one number, whatever is known of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.images.views import ViewsConfig, anyres_geometry
from anomaly_ov.models.config import RELEASED_SCORING, ModeConfig, ScoringConfig
from anomaly_ov.scoring.anomaly_map import blended_pixels
from anomaly_ov.scoring.cells import Cells, Floats, Scales
from anomaly_ov.scoring.evidence import FLOOR, Evidence, References, log_distance
from anomaly_ov.scoring.regions import regions
from anomaly_ov.scoring.score import (
    FEW,
    MOST_USUAL,
    PROBABILITY_FLOOR,
    WITNESSES,
    Usual,
    cell_values,
    expected,
    expert_map_score,
    grid_of,
    judge,
    logit,
    mode_of,
    sigmoid,
    suspicion,
)

BASE = 16
VIEWS = ViewsConfig(base_size=BASE, grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2)), cap=48)
ONE_VIEW = replace(VIEWS, single_crop=False)


def cells_of(width: int = 40, height: int = 30, side: int = 4, views: ViewsConfig = VIEWS) -> Cells:
    return Cells.of(anyres_geometry((width, height), views), (side, side))


def random_scales(generator: np.random.Generator, cells: Cells, low: float, high: float) -> Scales[Floats]:
    values_Nhw = generator.uniform(low, high, cells.shown_Nhw.shape).astype(np.float32)
    return cells.split(values_Nhw)


def evidence_of(cells: Cells, seed: int = 0, *, references: int = 0, own: bool = True) -> Evidence:
    generator = np.random.default_rng(seed)
    found = None
    if references:
        found = References(
            random_scales(generator, cells, 0, 1.5), random_scales(generator, cells, -5, 0), count=references
        )
    own_evidence = random_scales(generator, cells, -6, 0.5) if own else None
    return Evidence(own_evidence, generator.random(cells.shown_Nhw.shape, np.float32), generator.random(), found)


@dataclass
class Case:
    """One image with all that is known of it, and how that is weighed."""

    cells: Cells
    evidence: Evidence
    mode: ModeConfig
    config: ScoringConfig
    usual: Usual

    def judge(self) -> Any:
        return judge(self.evidence, self.cells, self.mode, self.config, self.usual)

    def suspicion(self, evidence: Evidence) -> float:
        values_Nhw = cell_values(evidence, self.cells, self.mode)
        return suspicion(values_Nhw, evidence.head, self.cells, self.mode, self.config)


weight = st.sampled_from([0.0, 0.3, 1.0, 2.5])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    views = draw(st.sampled_from([VIEWS, ONE_VIEW]))
    size = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    cells = cells_of(*size, side=draw(st.integers(1, 5)), views=views)
    evidence = evidence_of(
        cells, draw(st.integers(0, 999)), references=draw(st.sampled_from([0, 1, 3, 20])), own=draw(st.booleans())
    )
    local, head = draw(st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.5, 0.7), (2.0, 0.0)]))
    mode = ModeConfig(
        own=draw(weight),
        matched=draw(st.sampled_from([0.0, 0.5, 1.0])),
        expert=draw(weight),
        local=local,
        head=head,
        usual=draw(st.floats(-4, 4)),
        spread=draw(st.floats(0.02, 3)),
        usual_spread=draw(st.floats(0.02, 3)),
        step=draw(st.floats(-2, 4)),
    )
    config = ScoringConfig(
        top=draw(st.sampled_from([1e-6, 0.05, 0.3, 1.0])),
        whole_weight=draw(st.sampled_from([0.0, 0.5, 0.8, 1.0])),
        slope=draw(st.floats(0.1, 4)),
    )
    usual = Usual(draw(st.floats(-5, 5)), draw(st.floats(0, 2)), draw(st.integers(0, 60)))
    return Case(cells, evidence, mode, config, usual)


# ---- one number -----------------------------------------------------------------------------------------------------


@settings(max_examples=250, deadline=None)
@given(cases())
def test_the_maps_highest_value_is_the_score(case: Case) -> None:
    judged = case.judge()
    assert isinstance(judged.score, float)
    assert judged.score == float(judged.map_HW.max())
    assert judged.map_HW.dtype == np.float32
    width, height = case.cells.geometry.capped_wh
    assert judged.map_HW.shape == (height, width)
    assert np.isfinite(judged.map_HW).all()
    assert 0 <= judged.map_HW.min() <= judged.map_HW.max() <= 1


@settings(max_examples=150, deadline=None)
@given(cases(), st.floats(0, 1), st.sampled_from([None, "score", "above", "below", "half"]))
def test_an_image_is_anomalous_exactly_when_it_has_a_region(case: Case, threshold: float, near: str | None) -> None:
    judged = case.judge()
    if near is not None:
        nearby = {"above": float(np.nextafter(judged.score, 2)), "below": float(np.nextafter(judged.score, -1))}
        threshold = {"score": judged.score, "half": 0.5, **nearby}[near]
    found = regions(judged.map_HW, threshold, case.cells.geometry.image_wh)
    assert bool(found) == (judged.score >= threshold)
    if found:
        assert found[0].score == judged.score


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1), st.sampled_from(["one cell", "many cells", "all"]))
def test_more_suspicious_evidence_anywhere_never_lowers_the_score(case: Case, seed: int, where: str) -> None:
    generator = np.random.default_rng(seed)
    shape = case.cells.shown_Nhw.shape

    def rise(most: float) -> Floats:
        changed_Nhw = np.zeros(shape, np.bool_)
        if where == "one cell":
            changed_Nhw.flat[generator.integers(changed_Nhw.size)] = True
        else:
            changed_Nhw[:] = True if where == "all" else generator.random(shape) < 0.4
        return (changed_Nhw * generator.uniform(0, most, shape)).astype(np.float32)

    def raised(values: Scales[Floats], most: float) -> Scales[Floats]:
        added = case.cells.split(rise(most))
        return Scales(values.whole + added.whole, values.detail + added.detail)

    before = case.evidence
    changes: list[Evidence] = [
        replace(before, expert_Nhw=np.minimum(before.expert_Nhw + rise(0.5), 1)),
        replace(before, head=min(1.0, before.head + 0.1)),
    ]
    if before.own is not None:
        changes.append(replace(before, own=raised(before.own, 3)))
    if before.references is not None:
        found = replace(before.references, distance=raised(before.references.distance, 0.5))
        changes.append(replace(before, references=found))
    score, amount = case.judge().score, case.suspicion(before)
    for evidence in changes:
        assert case.suspicion(evidence) >= amount - 1e-5
        assert replace(case, evidence=evidence).judge().score >= score - 1e-4


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_score_is_what_lies_beyond_the_usual(case: Case) -> None:
    """Half-way up where suspicion lies ``step`` spreads beyond what is usual, ``slope`` times as steep."""
    judged, (value, spread) = case.judge(), expected(case.usual, case.mode)
    beyond = (case.suspicion(case.evidence) - value) / spread
    assert judged.beyond == pytest.approx(beyond, abs=1e-5)
    assert judged.times == pytest.approx(math.exp(min(beyond * spread, 20)), rel=1e-4)
    score = float(sigmoid(np.array([case.config.slope * (beyond - case.mode.step)]))[0])
    assert judged.score == pytest.approx(score, abs=2e-3 if abs(beyond) > 50 else 1e-4)


def test_the_threshold_of_one_half_lies_a_step_beyond_the_usual() -> None:
    cells = cells_of()
    evidence = evidence_of(cells)
    case = Case(cells, evidence, ModeConfig(), ScoringConfig(), Usual())
    spread = expected(Usual(), ModeConfig())[1]
    for beyond, anomalous in ((0.9, False), (1.1, True)):
        usual = case.suspicion(evidence) - beyond * spread
        judged = replace(case, mode=ModeConfig(usual=usual, step=1.0)).judge()
        assert judged.beyond == pytest.approx(beyond, abs=1e-5)
        assert (judged.score >= 0.5) == anomalous


def test_the_map_keeps_the_differences_of_cells_in_spreads() -> None:
    """Where a cell lies one spread lower, its odds are lower by the slope."""
    cells = cells_of(32, 16, side=4)
    own = cells.split(np.full(cells.shown_Nhw.shape, -2.0, np.float32))
    spread = expected(Usual(), ModeConfig())[1]
    own.whole[0], own.detail[0] = -2 + spread, -2 + spread
    config = ScoringConfig(top=1e-6)
    judged = judge(Evidence(own, np.zeros_like(cells.shown_Nhw, np.float32), 0.0), cells, ModeConfig(), config, Usual())
    assert np.unravel_index(judged.map_HW.argmax(), judged.map_HW.shape) == (0, 0)
    odds = logit(judged.map_HW[0, 0]) - logit(judged.map_HW[-1, -1])
    assert odds == pytest.approx(config.slope, abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.integers(0, 999), st.booleans())
def test_the_released_scoring_without_references_is_the_heads_score(head: float, seed: int, own: bool) -> None:
    cells = cells_of()
    evidence = replace(evidence_of(cells, seed, own=own), head=head)
    judged = judge(evidence, cells, RELEASED_SCORING.alone, RELEASED_SCORING, Usual())
    # Probabilities are moved by as much from 0 and 1.
    assert judged.score == pytest.approx(head, abs=PROBABILITY_FLOOR * 1.01)
    # The map is the expert's, moved as a whole.
    places = np.unravel_index(judged.map_HW.argmax(), judged.map_HW.shape)
    of_expert_HW = blended_pixels(logit(evidence.expert_Nhw), cells.geometry)
    if head < 0.99:  # near 1, float32 tells places no longer apart
        assert of_expert_HW[places] == pytest.approx(of_expert_HW.max(), abs=1e-3)


# ---- evidence of each cell ------------------------------------------------------------------------------------------


def test_cell_values_are_the_documented_sum() -> None:
    cells, mode = cells_of(), ModeConfig(own=0.5, matched=0.8, expert=0.3)
    evidence = evidence_of(cells, references=6)
    found = evidence.references
    assert found is not None
    assert evidence.own is not None
    own, counterpart = cells.joined(evidence.own), cells.joined(found.counterpart)
    distance = cells.joined(found.distance.map(log_distance))
    share = 0.8 * 6 / (6 + WITNESSES)
    expected_Nhw = distance + 0.5 * (own - share * counterpart) + 0.3 * logit(evidence.expert_Nhw)
    values_Nhw = cell_values(evidence, cells, mode)
    assert values_Nhw.dtype == np.float32
    np.testing.assert_allclose(values_Nhw, expected_Nhw, atol=1e-4)


@pytest.mark.parametrize(("mode", "names"), [
    (ModeConfig(own=1.0, expert=0.0), ["own"]),
    (ModeConfig(own=0.0, expert=1.0), ["expert"]),
    (ModeConfig(own=0.0, matched=1.0, expert=0.0), []),
])  # fmt: skip
def test_what_has_no_weight_has_no_say(mode: ModeConfig, names: list[str]) -> None:
    cells = cells_of()
    evidence = evidence_of(cells)
    other = evidence_of(cells, seed=1)
    changed = {"own": replace(evidence, own=other.own), "expert": replace(evidence, expert_Nhw=other.expert_Nhw)}
    for name, one in changed.items():
        same = np.array_equal(cell_values(one, cells, mode), cell_values(evidence, cells, mode))
        assert same == (name not in names)


def test_a_part_that_is_unique_in_the_references_too_is_less_suspicious_the_more_of_them_there_are() -> None:
    cells, mode = cells_of(), ModeConfig(own=1.0, matched=1.0)
    evidence = evidence_of(cells)
    assert evidence.own is not None
    zero = evidence.own.map(np.zeros_like)
    values = []
    for count in (1, 4, 20, 10_000):
        # As far from its counterpart as can be, and this has the same own evidence, above what is usual.
        own = evidence.own.map(lambda one: np.full_like(one, 0.4))
        found = References(zero.map(lambda one: one + 1), own, count)
        values.append(float(cell_values(replace(evidence, own=own, references=found), cells, mode).max()))
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[0] == pytest.approx(0.4 * (1 - 1 / 3), abs=1e-5)
    assert values[-1] == pytest.approx(0, abs=1e-3)


def test_a_copy_is_not_infinitely_normal() -> None:
    distances = np.array([0, FLOOR / 2, FLOOR, 1, 2], np.float32)
    found = log_distance(distances)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([math.log(FLOOR)] * 3 + [0, math.log(2)], abs=1e-6)


def test_a_small_strong_defect_and_a_large_soft_one_both_raise_suspicion() -> None:
    cells = cells_of(48, 32, side=5)
    config = ScoringConfig(top=0.05)
    plain = cells.split(np.full(cells.shown_Nhw.shape, -2.0, np.float32))
    strong, soft = Scales(plain.whole.copy(), plain.detail.copy()), plain.map(lambda one: one + np.float32(0.5))
    strong.detail[:2] = 1.0
    amounts = []
    for own in (plain, strong, soft):
        values_Nhw = cells.joined(own)
        amounts.append(suspicion(values_Nhw, 0.5, cells, ModeConfig(), config))
    assert min(amounts[1:]) > amounts[0] + 0.2
    assert amounts[0] == pytest.approx(-2)


def test_suspicion_has_no_scale_of_its_own() -> None:
    """More of everything by the same amount is just as much more."""
    cells = cells_of()
    values_Nhw = cells.joined(random_scales(np.random.default_rng(0), cells, -3, 0))
    shown_Nhw = cells.shown_Nhw.astype(np.float32)
    before, after = (
        suspicion(v, 0.5, cells, ModeConfig(), ScoringConfig()) for v in (values_Nhw, values_Nhw + shown_Nhw)
    )
    assert after - before == pytest.approx(1, abs=1e-5)


def test_the_head_counts_by_its_logit() -> None:
    cells = cells_of()
    values_Nhw = np.zeros(cells.shown_Nhw.shape, np.float32)
    mode = ModeConfig(local=0.0, head=0.7)
    assert suspicion(values_Nhw, 0.9, cells, mode, ScoringConfig()) == pytest.approx(0.7 * math.log(9))
    assert suspicion(values_Nhw, 1.0, cells, mode, ScoringConfig()) == pytest.approx(0.7 * 13.8155, abs=1e-3)


# ---- what is usual --------------------------------------------------------------------------------------------------

MODE = ModeConfig(usual=-1.0, spread=0.2, usual_spread=0.3)


def test_without_references_the_training_sets_say_what_is_usual() -> None:
    """How much images of one object differ, and how much objects do: neither is known."""
    assert expected(Usual(), MODE) == pytest.approx((-1.0, math.hypot(0.2, 0.3)))


def test_of_many_references_their_own_figures_hold() -> None:
    value, spread = expected(Usual(-1.2, 0.07, 100_000), MODE)
    assert (value, spread) == pytest.approx((-1.2, 0.07), abs=1e-3)


def test_references_cannot_say_that_anything_is_usual() -> None:
    """Among anomalous references suspicion is high; a limit keeps it from becoming what is usual."""
    most = MODE.usual + MOST_USUAL * MODE.usual_spread
    for value in (most + 0.01, 0.0, 50.0):
        assert expected(Usual(value, 0.2, 1_000_000), MODE)[0] == pytest.approx(most, abs=1e-3)
    assert expected(Usual(most - 0.1, 0.2, 1_000_000), MODE)[0] == pytest.approx(most - 0.1, abs=1e-3)


def test_the_fewer_references_the_wider_the_spread_and_the_nearer_to_the_training_sets() -> None:
    found = [expected(Usual(-1.3, MODE.spread, count), MODE) for count in (0, 2, 4, 16, 100, 10_000)]
    assert all(more[1] < fewer[1] for fewer, more in pairwise(found))
    assert all(more[0] < fewer[0] for fewer, more in pairwise(found))
    assert found[0][0] == MODE.usual
    assert found[-1] == pytest.approx((-1.3, MODE.spread), abs=1e-3)


def test_one_reference_leaves_what_none_leaves() -> None:
    """It has no other to be compared with."""
    assert expected(Usual(-1.2, 0.0, 1), MODE) == expected(Usual(-1.2, 17.0, 1), MODE) == expected(Usual(), MODE)


@settings(max_examples=100, deadline=None)
@given(st.floats(-9, 9), st.floats(0, 9), st.integers(0, 1000))
def test_the_usual_lies_between_both_figures_and_the_spread_is_never_nothing(
    value: float, spread: float, count: int
) -> None:
    found = expected(Usual(value, spread, count), MODE)
    low, high = sorted([MODE.usual, min(value, MODE.usual + MOST_USUAL * MODE.usual_spread)])
    assert low - 1e-9 <= found[0] <= high + 1e-9
    assert found[1] > 0.001


def test_the_usual_of_some_suspicions() -> None:
    assert Usual.of([]) == Usual.of([], robust=True) == Usual(0.0, 0.0, 0)
    assert Usual.of([0.3]) == Usual(0.3, 0.0, 1)
    found = Usual.of([1.0, 2.0, 6.0])
    assert (found.value, found.spread, found.count) == (3.0, pytest.approx(math.sqrt(7)), 3)


def test_the_usual_of_a_folder_is_not_moved_by_its_anomalous_images() -> None:
    good = np.random.default_rng(0).normal(-1, 0.2, 700).tolist()
    found = Usual.of(good + [5.0] * 100, robust=True)
    assert found.value == pytest.approx(-1, abs=0.06)
    assert found.spread == pytest.approx(0.2, abs=0.04)
    assert Usual.of([0.5], robust=True) == Usual(0.5, 0.0, 1)


@pytest.mark.parametrize(
    ("kind", "references", "mode"),
    [
        ("none", 0, "alone"),
        ("references", 1, "few"),
        ("references", FEW - 1, "few"),
        ("references", FEW, "references"),
        ("references", 256, "references"),
        ("folder", 3, "folder"),
        ("folder", 192, "folder"),
    ],
)
def test_mode_of(kind: Any, references: int, mode: str) -> None:
    assert mode_of(kind, references) == mode
    assert isinstance(getattr(ScoringConfig(), mode), ModeConfig)


# ---- small parts ----------------------------------------------------------------------------------------------------


def test_sigmoid_undoes_logit_and_neither_overflows() -> None:
    probability = np.linspace(0.001, 0.999, 50)
    np.testing.assert_allclose(sigmoid(logit(probability)), probability, atol=1e-9)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for dtype in (np.float32, np.float64):
            found = sigmoid(np.array([-1e4, -50, 0, 50, 1e4], dtype))
            assert found.dtype == dtype
            assert found.tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)
        assert np.abs(logit([0.0, 1.0])).tolist() == pytest.approx([13.8155, 13.8155], abs=1e-3)


def test_grid_of_an_image_is_that_of_its_finest_layer() -> None:
    assert grid_of(cells_of(48, 32, side=4)) == (8, 12)
    assert grid_of(cells_of(16, 16, side=4, views=ONE_VIEW)) == (4, 4)


def test_the_experts_map_score_is_the_mean_of_its_highest_cells() -> None:
    cells = cells_of(16, 16, side=4, views=ONE_VIEW)
    expert_Nhw = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    evidence = Evidence(None, expert_Nhw, 0.5)
    assert expert_map_score(evidence, cells, ScoringConfig(top=0.125)) == pytest.approx((15 + 14) / 30, abs=1e-5)
    assert expert_map_score(evidence, cells, ScoringConfig(top=1.0)) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"spread": 0.0}, "must be > 0"),
        ({"usual_spread": -1.0}, "must be > 0"),
        ({"own": -0.1}, "must be >= 0"),
        ({"matched": 1.1}, "at most 1"),
        ({"local": 0.0}, "local or head"),
    ],
)
def test_impossible_modes_are_refused(fields: dict[str, float], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ModeConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"top": 0.0}, "top must lie"),
        ({"top": 1.5}, "top must lie"),
        ({"whole_weight": 1.1}, "whole_weight"),
        ({"slope": 0.0}, "slope must be > 0"),
        ({"own_patches": False}, "own_patches"),
    ],
)
def test_impossible_scorings_are_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ScoringConfig(**fields)
