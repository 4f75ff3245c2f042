"""Places of points and boxes in words."""

from __future__ import annotations

import pytest

from anomaly_ov.images.places import PLACE_WORDS, PLACES, place_at, place_of, ways_to_place


@pytest.mark.parametrize(
    ("position", "words"),
    [((0.1, 0.1), "upper left"), ((0.1, 0.5), "top"), ((0.1, 0.9), "upper right"), ((0.5, 0.1), "left"),
     ((0.5, 0.5), "centre"), ((0.5, 0.9), "right"), ((0.9, 0.1), "lower left"), ((0.99, 0.5), "bottom"),
     ((1.0, 1.0), "lower right")],
)  # fmt: skip
def test_places_have_words(position: tuple[float, float], words: str) -> None:
    assert place_at(*position) == words


@pytest.mark.parametrize("cell", range(9))
def test_places_of_boxes_on_a_board_of_three_by_three(cell: int) -> None:
    x, y = 100 * (cell % 3), 50 * (cell // 3)
    assert place_of((x + 20, y + 10, x + 80, y + 40), (300, 150)) == PLACES[cell]
    assert place_of((x, y, x + 100, y + 50), (300, 150)) == PLACES[cell]


def test_a_box_at_the_far_corner_is_in_the_picture() -> None:
    assert place_of((299, 149, 300, 150), (300, 150)) == "lower right"


def test_what_people_write_stands_for_one_of_the_places() -> None:
    assert set(PLACE_WORDS.values()) == {*PLACES, None}
    assert [PLACE_WORDS[word] for word in ("top left", "bottom middle", "center")] == ["upper left", "bottom", "centre"]


def test_every_place_can_stand_in_a_sentence() -> None:
    first = [ways_to_place(place)[0] for place in PLACES]
    assert first[:5] == ["in the upper left", "at the top", "in the upper right", "on the left", "in the centre"]
    assert len(set(first)) == len(PLACES)
