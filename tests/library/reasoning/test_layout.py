"""Order and counts that hold for every picture; the released order itself is in test_fusion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.images.unpad import unpad
from anomaly_ov.images.views import ViewsConfig, anyres_geometry, multi_image_geometry
from anomaly_ov.reasoning.config import READINGS
from anomaly_ov.reasoning.layout import (
    GLOBAL,
    IMAGE,
    LOCAL,
    NEWLINE,
    NOWHERE,
    POOLED,
    PROMPT,
    REDUCED,
    layout,
    stitched,
)
from token_oracle import token_counts

GRID = (5, 5)
VIEWS = ViewsConfig(base_size=32, cap=None)
SIZES = st.tuples(st.integers(1, 400), st.integers(1, 400))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(size=SIZES, reading=st.sampled_from(READINGS), prompt=st.integers(1, 9), budget=st.integers(0, 60))
def test_every_reading_has_one_prompt_one_global_and_all_local_tokens(
    size: tuple[int, int], reading: str, prompt: int, budget: int
) -> None:
    for geometry in (anyres_geometry(size, VIEWS), multi_image_geometry(size, VIEWS)):
        order = layout(geometry, GRID, prompt, reading, crop_budget=budget)
        assert order.cell_T[order.kind_T == PROMPT].tolist() == list(range(prompt))
        assert (order.kind_T == GLOBAL).sum() == 1
        local = order.kind_T == LOCAL
        found = list(zip(order.view_T[local].tolist(), order.cell_T[local].tolist(), strict=True))
        assert sorted(found) == [(view, cell) for view in range(geometry.views) for cell in range(4)]
        assert order.kind_T[-1] == NEWLINE
        base = (order.kind_T == IMAGE) & (order.view_T == 0)
        assert order.cell_T[base].tolist() == list(range(25))
        assert set(order.view_T[order.kind_T == NEWLINE].tolist()) == {NOWHERE}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(size=SIZES, max_views=st.integers(1, 9))
def test_full_holds_what_unpad_counts_and_shows_each_kept_cell_once(size: tuple[int, int], max_views: int) -> None:
    geometry = anyres_geometry(size, VIEWS)
    order = layout(geometry, GRID, 6, "full", max_views)
    counts = token_counts(geometry, GRID, max_views)
    assert len(order) == counts.total
    assert (order.kind_T == IMAGE).sum() == counts.image
    assert (order.kind_T == LOCAL).sum() == counts.local_anomaly
    found = unpad(geometry, GRID, max_views)
    crops = (order.kind_T == IMAGE) & (order.view_T != 0)
    if found.reduced_hw is not None:
        assert set(order.view_T[crops].tolist()) == {REDUCED}
        assert order.cell_T[crops].tolist() == list(range(found.reduced_hw[0] * found.reduced_hw[1]))
    else:
        seen = list(zip(order.view_T[crops].tolist(), order.cell_T[crops].tolist(), strict=True))
        assert len(set(seen)) == len(seen) == found.unpadded_hw[0] * found.unpadded_hw[1]


def test_stitched_cells_lie_side_by_side() -> None:
    """2 x 1 crops of 5 x 5 cells: the first row holds the first rows of both crops."""
    view_RC, cell_RC = stitched(anyres_geometry((64, 32), VIEWS), GRID)
    assert view_RC.shape == (5, 10)
    assert view_RC[0].tolist() == [1] * 5 + [2] * 5
    assert cell_RC[1].tolist() == [5, 6, 7, 8, 9] * 2


def test_highlight_counts_the_same_without_a_map() -> None:
    geometry = anyres_geometry((96, 64), VIEWS)
    maps = np.random.default_rng(0).random((geometry.views, *GRID))
    for budget in (0, 1, 7, 10_000):
        with_map, without = (
            layout(geometry, GRID, 6, "highlight", crop_budget=budget, map_Nhw=m) for m in (maps, None)
        )
        assert len(with_map) == len(without)
        kept = (with_map.kind_T == IMAGE) & (with_map.view_T > 0)
        available = stitched(geometry, GRID)[0].size
        assert kept.sum() == min(budget, available)


def test_equally_suspicious_cells_are_kept_in_reading_order() -> None:
    geometry = anyres_geometry((96, 64), VIEWS)
    order = layout(geometry, GRID, 6, "highlight", crop_budget=3, map_Nhw=np.full((geometry.views, *GRID), 0.5))
    kept = (order.kind_T == IMAGE) & (order.view_T > 0)
    assert order.cell_T[kept].tolist() == [0, 1, 2]
    assert order.view_T[kept].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("pool", "blocks"), [(1, 25), (2, 9), (3, 4), (5, 1), (99, 1)])
def test_focus_reads_the_base_view_in_blocks(pool: int, blocks: int) -> None:
    geometry = anyres_geometry((96, 64), VIEWS)
    for reading in ("focus", "highlight"):
        order = layout(geometry, GRID, 6, reading, crop_budget=0, pool=pool)
        base = order.kind_T == IMAGE
        assert order.cell_T[base].tolist() == list(range(blocks))
        assert set(order.view_T[base].tolist()) == {0 if pool == 1 else POOLED}
    assert len(layout(geometry, GRID, 6, "full", pool=pool)) == len(layout(geometry, GRID, 6, "full"))
