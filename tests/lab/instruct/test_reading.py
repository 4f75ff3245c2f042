"""Answers are read strictly."""

from __future__ import annotations

import pytest

from anomaly_ov_lab.instruct import reading


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes.", True), ("yes", True), (" 'Yes', there is.", True), ("YES!", True), ("No.", False), ("no, fine", False),
        ("Eyes", None), ("Yesterday", None), ("Nothing is wrong.", None), ("None.", None), ("Not really", None),
        ("Well, yes", None), ("", None), ("...", None), ("Nope", None), ("No's", None), ("**Yes**", True),
    ],
)  # fmt: skip
def test_yes_no(text: str, said: bool | None) -> None:
    assert reading.yes_no(text) is said


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("There is a scratch and a dent.", {"scratch", "dent"}),
        ("Two scratches and some rust", {"scratch", "corrosion"}),
        ("A foreign patch at the top", {"foreign_patch"}),
        ("It is a broken edge, not a broken line.", {"chipped_edge"}),
        ("Some Pitting.", {"pitting"}),
        ("There is no scratch.", set()),
        ("wood without any severe crack", set()),
        ("no dent but a hole", {"hole"}),
        ("The whole chip is on a folder; it holds.", set()),
        ("a moulded part", set()),
        ("a missing part", {"missing_part"}),
        ("", set()),
    ],
)
def test_kinds(text: str, kinds: set[str]) -> None:
    assert reading.kinds(text) == kinds


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("in the upper left", "upper left"), ("Top-left corner", "upper left"), ("lower  right.", "lower right"),
        ("in the middle", "centre"), ("at the center", "centre"), ("near the top", "top"), ("on the left", "left"),
        ("bottom right", "lower right"), ("upper middle", "top"), ("middle left", "left"),
        ("It looks all right.", None), ("Do it right away.", None), ("a bottle top", None), ("stop", None),
        ("left and right", None), ("left, on the left", "left"), ("brightly", None), ("", None),
    ],
)  # fmt: skip
def test_place(text: str, place: str | None) -> None:
    assert reading.place(text) == place


def test_several_places() -> None:
    assert reading.places("a dent at the top and a hole in the upper right") == {"top", "upper right"}


@pytest.mark.parametrize(
    ("text", "word"),
    [("It is severe.", "severe"), ("Slight.", "slight"), ("slightly", None), ("slight or severe", None), ("", None),
     ("not severe", None)],
)  # fmt: skip
def test_severity(text: str, word: str | None) -> None:
    assert reading.severity(text) == word


@pytest.mark.parametrize(
    ("text", "word"), [("medium-sized.", "medium-sized"), ("It is large.", "large"), ("big", None)]
)
def test_size(text: str, word: str | None) -> None:
    assert reading.size(text) == word


@pytest.mark.parametrize(
    ("text", "number"),
    [("two.", 2), ("There are 3 defects.", 3), ("None.", 0), ("no defect", 0), ("someone", None), ("", None),
     ("There is one defect: two", 1), ("9" * 5000, None)],
)  # fmt: skip
def test_count(text: str, number: int | None) -> None:
    assert reading.count(text) == number
