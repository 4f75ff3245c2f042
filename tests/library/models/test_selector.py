"""The token selector: bins, weighted pooling, attention, and maps near zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import golden_fixtures as golden
from anomaly_ov.models.selector import Selector, quadrants


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12))
def test_bins_are_those_of_adaptive_average_pooling(rows: int, columns: int) -> None:
    values = torch.rand(rows * columns, dtype=torch.float64)
    bins_QP = quadrants((rows, columns)).double()
    pooled = (bins_QP @ values) / bins_QP.sum(1)
    expected = F.adaptive_avg_pool2d(values.reshape(1, 1, rows, columns), 2).flatten()
    torch.testing.assert_close(pooled, expected)


def test_pooling_and_attention_are_those_of_the_released_code() -> None:
    stored = golden.outputs("s1_f64")
    state = {k.removeprefix("q_former."): v for k, v in golden.expert_state(torch.float64).items() if "q_former" in k}
    selector = Selector(1152, 512, (27, 27)).double()
    selector.load_state_dict(state)
    tokens = torch.from_numpy(golden.expert_tokens(101, [1])).double()
    log_map = torch.from_numpy(stored["anomaly_map"]).flatten(1).log()
    with torch.inference_mode():
        selection = selector(tokens, log_map)
        attention = selector.attention(selection.query_NQD, tokens)
    pooled = selection.log_pooled_NQ.exp().numpy()
    np.testing.assert_allclose(pooled, stored["in_patch_significance"].reshape(1, 4), rtol=1e-12)
    np.testing.assert_allclose(selection.query_NQD, stored["sig_tokens"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(attention, stored["q_attention"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(attention.sum(-1), 1.0, rtol=1e-12)


def test_without_attention_the_weighted_means_are_returned() -> None:
    selector = Selector(6, 4, (3, 5), attend=False)
    assert list(selector.parameters()) == []
    tokens, weights = torch.randn(2, 15, 6), torch.rand(2, 15)
    selection = selector(tokens, weights.log())
    grid = (tokens * weights.unsqueeze(-1)).transpose(1, 2).unflatten(2, (3, 5))
    pooled = F.adaptive_avg_pool2d(weights.unflatten(1, (3, 5)).unsqueeze(1), 2)
    expected = (F.adaptive_avg_pool2d(grid, 2) / pooled).flatten(2).transpose(1, 2)
    torch.testing.assert_close(selection.local_NQD, expected)
    torch.testing.assert_close(selection.log_pooled_NQ.exp(), pooled.flatten(1))


@pytest.mark.parametrize("offset", [0.0, -80.0, -200.0])
def test_a_constant_factor_of_the_map_changes_no_token_however_small(offset: float) -> None:
    selector = Selector(6, 4, (4, 3))
    tokens, log_map = torch.randn(2, 12, 6), torch.rand(2, 12).log()
    expected = selector(tokens, log_map)
    found = selector(tokens, log_map + offset)
    torch.testing.assert_close(found.local_NQD, expected.local_NQD, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.log_pooled_NQ, expected.log_pooled_NQ + offset)


def test_a_constant_map_weighs_all_patches_alike() -> None:
    selector = Selector(3, 4, (2, 2), attend=False)
    tokens = torch.randn(1, 4, 3)
    selection = selector(tokens, torch.full((1, 4), -1e4))
    torch.testing.assert_close(selection.local_NQD, tokens)  # on a 2 x 2 grid each bin is one patch


def test_each_query_attends_within_its_own_view_only() -> None:
    selector = Selector(6, 4, (3, 3))
    tokens, log_map = torch.randn(2, 9, 6), torch.rand(2, 9).log()
    together = selector(tokens, log_map).local_NQD
    torch.testing.assert_close(selector(tokens[1:], log_map[1:]).local_NQD, together[1:])
