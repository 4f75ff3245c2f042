"""Token arithmetic against the released layout: 59 sizes, and multi-image input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.unpad import REDUCE_ABOVE, unpad
from anomaly_ov.images.views import ALL_GRIDS, best_grid, fit_box
from token_oracle import token_counts

GOLDEN = Path(__file__).parents[2] / "golden" / "anyres"
SIZES = json.loads((GOLDEN / "sizes.json").read_text())["sizes"]
TEXT_TOKENS_OF_THE_SAMPLE = 2


def geometry_of(golden: dict) -> Geometry:
    size, box = tuple(golden["size_wh"]), tuple(golden["resize_and_pad"]["content_box_xyxy"])
    return Geometry(size, size, tuple(golden["best_resolution_wh"]), box, tuple(golden["grid_wh"]), 384)


@pytest.mark.parametrize("golden", SIZES, ids=lambda g: "x".join(map(str, g["size_wh"])))
def test_golden_unpadding_and_token_counts(golden):
    geometry, expected = geometry_of(golden), golden["unpad"]
    left = unpad(geometry, (27, 27))
    assert list(left.feature_hw) == expected["feature_hw"]
    assert list(left.offset_hw) == expected["offset_rc"]
    assert list(left.unpadded_hw) == expected["unpadded_hw"]
    assert left.reduced_hw == (tuple(expected["reduced_hw"]) if expected["reduced_hw"] else None)

    counts, tokens = token_counts(geometry, (27, 27)), golden["tokens"]
    for kind in ("image", "newline_in_image", "prompt", "global_anomaly", "local_anomaly", "newline_in_anomaly"):
        assert getattr(counts, kind) == tokens[kind], kind
    assert counts.total + TEXT_TOKENS_OF_THE_SAMPLE == tokens["total"]


def test_multi_image_counts():
    geometry = Geometry((500, 375), (500, 375), (500, 500), (0, 62, 500, 437), (0, 0), 384)
    counts = token_counts(geometry, (27, 27))
    assert counts.total == 729 + 1 + 6 + 1 + 4 + 1
    with pytest.raises(ValueError, match="no crops"):
        unpad(geometry, (27, 27))


def test_reduction_follows_the_allowance():
    geometry = Geometry((900, 900), (900, 900), (1152, 1152), (0, 0, 1152, 1152), (3, 3), 384)
    assert unpad(geometry, (27, 27)).reduced_hw is None
    assert unpad(geometry, (27, 27), max_views=4).reduced_hw == (54, 54)
    assert unpad(geometry, (27, 27), max_views=4).final_hw == (54, 54)


def test_under_the_cap_nothing_is_reduced_and_nothing_vanishes():
    claims = json.loads((GOLDEN / "capped_claims.json").read_text())
    largest = (0, 0)
    for size in itertools.product((1, 2, 26, 27, 383, 385, 700, 1023, 1024), repeat=2):
        grid = best_grid(size, 384, ALL_GRIDS)
        canvas = (grid[0] * 384, grid[1] * 384)
        left = unpad(Geometry(size, size, canvas, fit_box(size, canvas), grid, 384), (27, 27))
        assert left.reduced_hw is None
        assert min(left.unpadded_hw) > 0
        largest = max(largest[0], grid[0]), max(largest[1], grid[1])
    assert list(largest) == claims["max_grid_wh"]
    assert claims["max_times"] <= REDUCE_ABOVE
    assert claims["empty_after_unpad"] == 0
