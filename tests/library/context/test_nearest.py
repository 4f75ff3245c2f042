"""Nearest counterparts against a plain double loop, and what may not change them."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.context import nearest as module
from anomaly_ov.context.nearest import counterparts, lowest_mean, nearest
from anomaly_ov.scoring.cells import Floats
from context_fixtures import unit


def tokens(*shape: int, seed: int = 0) -> Floats:
    return unit(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("queries", "references", "each", "width"), [(7, 3, 5, 4), (1, 1, 1, 2), (20, 4, 1, 8)])
def test_equals_a_double_loop(queries: int, references: int, each: int, width: int) -> None:
    query_PD, reference_RTD = tokens(queries, width), tokens(references, each, width, seed=1)
    expected_PR = np.empty((queries, references))
    for p in range(queries):
        for r in range(references):
            expected_PR[p, r] = min(1 - float(query_PD[p].astype(np.float64) @ token) for token in reference_RTD[r])
    np.testing.assert_allclose(nearest(query_PD, reference_RTD), expected_PR, atol=1e-6)


@pytest.mark.parametrize("queries", [1, 10, 1000])
@pytest.mark.parametrize("values", [1, 15, 16, 47, 331, 1000])
def test_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch, values: int, queries: int) -> None:
    query_PD, reference_RTD = tokens(33, 8), tokens(3, 5, 8, seed=1)
    whole_PR = nearest(query_PD, reference_RTD)
    monkeypatch.setattr(module, "BLOCK_VALUES", values)
    monkeypatch.setattr(module, "BLOCK_QUERIES", queries)
    np.testing.assert_allclose(nearest(query_PD, reference_RTD), whole_PR, atol=1e-6, rtol=0)


def test_a_token_is_no_distance_from_itself_and_two_from_its_opposite() -> None:
    query_PD = tokens(6, 5)
    assert nearest(query_PD, query_PD[None]).max() < 1e-6
    assert nearest(query_PD[:1], -query_PD[None, :1]).item() == pytest.approx(2)


def test_never_negative() -> None:
    """Rounding may make a cosine slightly more than one."""
    long_PD = tokens(50, 7) * np.float32(1 + 1e-6)
    assert nearest(long_PD, long_PD[None]).min() >= 0


def test_one_query_is_not_changed_by_the_others() -> None:
    query_PD, reference_RTD = tokens(9, 16), tokens(4, 6, 16, seed=1)
    each = np.concatenate([nearest(query_PD[p : p + 1], reference_RTD) for p in range(9)])
    np.testing.assert_allclose(nearest(query_PD, reference_RTD), each, atol=1e-6, rtol=0)


def test_inputs_stay_as_they_are() -> None:
    query_PD, reference_RTD = tokens(9, 16), tokens(4, 6, 16, seed=1)
    before = query_PD.copy(), reference_RTD.copy()
    nearest(query_PD, reference_RTD)
    assert np.array_equal(query_PD, before[0])
    assert np.array_equal(reference_RTD, before[1])


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, 3.0), (0.6, 2.0), (0.5, 1.5), (0.2, 1.0), (0.01, 1.0), (0.79, 2.0)]
)
def test_lowest_mean_of_a_row(share: float, expected: float) -> None:
    row_1R = np.array([[5, 1, 4, 2, 3]], np.float32)
    assert lowest_mean(row_1R, share).item() == pytest.approx(expected)


def test_lowest_mean_is_of_each_row() -> None:
    distance_PR = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], np.float32)
    np.testing.assert_allclose(lowest_mean(distance_PR, 0.5), [0.1, 0.2, 0.5], rtol=1e-6)


def test_lowest_mean_does_not_see_what_disagrees() -> None:
    distance_PR = np.random.default_rng(0).random((6, 10), np.float32)
    spoilt_PR = distance_PR.copy()
    spoilt_PR[:, distance_PR.shape[1] - 4 :] = 2.0
    kept_PR = distance_PR[:, :6]
    np.testing.assert_allclose(lowest_mean(spoilt_PR, 0.6), kept_PR.mean(1), rtol=1e-6)


def test_counterparts_are_the_nearest_tokens_of_the_reference_asked_for() -> None:
    query_PD, reference_RTD = tokens(40, 16), tokens(4, 6, 16, seed=1)
    best_P = np.random.default_rng(2).integers(0, 4, 40)
    best_P[best_P == 2] = 0  # a reference that nobody asks for
    found_P = counterparts(query_PD, reference_RTD, best_P)
    for query_D, reference, found in zip(query_PD, best_P, found_P, strict=True):
        assert found == (reference_RTD[reference] @ query_D).argmax()
    assert counterparts(query_PD[:0], reference_RTD, best_P[:0]).shape == (0,)


def test_counterpart_and_distance_speak_of_the_same_token() -> None:
    query_PD, reference_RTD = tokens(40, 16), tokens(4, 6, 16, seed=1)
    distance_PR = nearest(query_PD, reference_RTD)
    best_P = distance_PR.argmin(1)
    found_PD = reference_RTD[best_P, counterparts(query_PD, reference_RTD, best_P)]
    np.testing.assert_allclose(1 - (query_PD * found_PD).sum(1), distance_PR.min(1), atol=1e-6)


def test_no_queries_and_no_distances() -> None:
    assert nearest(tokens(5, 4)[:0], tokens(3, 6, 4)).shape == (0, 3)
