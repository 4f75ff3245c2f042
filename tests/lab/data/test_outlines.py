"""Outlines of COCO drawn as masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts.outlines import draw


def test_polygons_are_joined_and_cut_at_the_border() -> None:
    mask_HW = draw([[[1, 1, 3, 1, 3, 3, 1, 3], [6, 6, 20, 6, 20, 20, 6, 20]], [[0, 9, 0, 9, 0, 9]]], (10, 12))
    expected_HW = np.zeros((12, 10), dtype=bool)
    expected_HW[1:4, 1:4] = expected_HW[6:, 6:] = expected_HW[9, 0] = True
    assert np.array_equal(mask_HW, expected_HW)


def test_a_polygon_need_not_be_in_a_list_of_polygons() -> None:
    polygon = [1, 1, 3, 1, 3, 3, 1, 3]
    assert np.array_equal(draw([polygon], (8, 8)), draw([[polygon]], (8, 8)))


def test_compressed_counts_worked_by_hand() -> None:
    """10 = ":"; 2 = "2"; 40 = 8 with more to come ("X"), then 1 ("1"); 4 is 2 more than the 2 two before ("2");
    34 is 6 less than 40: its low five bits are 26, with the sign bit set ("J")."""
    plain = {"size": [9, 10], "counts": [10, 2, 40, 4, 34]}
    text = {"size": [9, 10], "counts": ":2X12J"}
    assert draw([text], (10, 9)).sum() == 6
    assert np.array_equal(draw([text], (10, 9)), draw([plain], (10, 9)))


def test_runs_go_down_the_columns() -> None:
    mask_HW = draw([{"size": [3, 2], "counts": [1, 2, 3]}], (2, 3))
    assert mask_HW.tolist() == [[False, False], [True, False], [True, False]]


def test_polygons_and_runs_of_one_picture_are_joined() -> None:
    mask_HW = draw([{"size": [8, 8], "counts": [63, 1]}, [[0, 0, 1, 0, 1, 1, 0, 1]]], (8, 8))
    assert mask_HW.sum() == 5
    assert mask_HW[7, 7]


@pytest.mark.parametrize("wh", [(0, 5), (-1, 5), (10**6, 10**6)])
def test_sizes_are_checked_before_anything_is_drawn(wh: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="outlines for a picture"):
        draw([], wh)


@pytest.mark.parametrize("outline", [None, 5, [[1, 2, float("nan"), 4, 5, 6]], [[]], {"counts": [1]}])
def test_what_is_no_outline_is_one_line(outline: Any) -> None:
    with pytest.raises(DataError) as error:
        draw([outline], (8, 8))
    assert "\n" not in str(error.value)
