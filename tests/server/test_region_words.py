"""Places of regions, and questions about them in the words that the model was taught."""

from __future__ import annotations

from typing import Any

import pytest

from anomaly_ov_server.faults import Fault
from anomaly_ov_server.region_words import about_number, about_region, in_place


def record(*boxes: tuple[int, int, int, int]) -> dict[str, Any]:
    return {"image": {"width": 300, "height": 150}, "regions": [{"box": list(box)} for box in boxes]}


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Is something wrong here?", "Is something wrong on the left?"),
        ("Is there any damage in the image?", "Is there any damage on the left?"),
        ("is there a defect", "is there a defect on the left"),
        ("Is there a defect? Answer yes or no.", "Is there a defect on the left? Answer yes or no."),
        ("What is wrong here?", "On the left: What is wrong here?"),
        ("Describe it.", "On the left: Describe it."),
        ("Island of dirt?", "On the left: Island of dirt?"),
    ],
)
def test_where_the_place_goes(question: str, asked: str) -> None:
    assert in_place(question, "on the left") == asked


def test_the_region_asked_about_counts() -> None:
    found = record((0, 0, 30, 30), (200, 100, 300, 150), (120, 60, 180, 90))
    asked = [about_region(" What is it? ", found, region) for region in range(3)]
    assert asked == ["In the upper left: What is it?", "In the lower right: What is it?", "In the centre: What is it?"]


def test_records_know_their_regions_by_number() -> None:
    assert about_number(" How big? ", record((0, 0, 30, 30), (200, 100, 300, 150)), 1) == "Region 2: How big?"


@pytest.mark.parametrize("about", [about_region, about_number])
@pytest.mark.parametrize("count", [0, 1])
def test_a_region_that_is_not_there(count: int, about: Any) -> None:
    with pytest.raises(Fault, match=f"has {count} regions") as caught:
        about("What is it?", record(*[(0, 0, 9, 9)] * count), count)
    assert (caught.value.status, caught.value.param) == (400, "anomaly.region")
