"""Places of boxes, in the words of the training pictures."""

from __future__ import annotations

import pytest

from anomaly_ov.instruct.seen import PLACES, place_of


@pytest.mark.parametrize("cell", range(9))
def test_places_of_boxes_on_a_board_of_three_by_three(cell: int) -> None:
    x, y = 100 * (cell % 3), 50 * (cell // 3)
    assert place_of((x + 20, y + 10, x + 80, y + 40), (300, 150)) == PLACES[cell]
    assert place_of((x, y, x + 100, y + 50), (300, 150)) == PLACES[cell]


def test_a_box_at_the_far_corner_is_in_the_picture() -> None:
    assert place_of((299, 149, 300, 150), (300, 150)) == "lower right"
