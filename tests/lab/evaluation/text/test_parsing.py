"""What is read from an answer: strictly, and as the released evaluation did."""

from __future__ import annotations

import pytest

from anomaly_ov_lab.instruct.reading import letter, says_yes


@pytest.mark.parametrize(
    ("text", "strict", "official"),
    [
        ("Yes", True, True),
        ("yes, a scratch.", True, True),
        ("No.", False, False),
        ("**No**", False, False),
        ("YES", True, False),
        ("<answer>Yes</answer>", True, True),
        ("<answer>No</answer> <answer>yes</answer>", True, True),
        ("The eyes look fine", None, True),
        ("No, it says 'yes' on the label", False, True),
        ("There is a defect", None, False),
        ("", None, False),
        ("Nothing", None, False),
    ],
)
def test_yes_and_no(text: str, strict: bool | None, official: bool) -> None:
    assert says_yes(text) is strict
    assert says_yes(text, "official") is official


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("A", "A"),
        (" b ", "B"),
        ("(C)", "C"),
        ("**D**", "D"),
        ("B.", "B"),
        ("B. A dent", "B"),
        ("A: a scratch", "A"),
        ("C) hole", "C"),
        ("Answer: D", "D"),
        ("The answer is B.", "B"),
        ("The correct option is (C).", "C"),
        ("My final answer: **A**", "A"),
        ("B\nbecause it is bent", "B"),
        ("B。", "B"),
        ("<answer>B</answer>", "B"),
        ("<think>A or C?</think>\n<answer>D</answer>", "D"),
        ("A. Yes\nB. No", None),
        ("A dent is there", None),
        ("A or B", None),
        ("A, B", None),
        ("B and C", None),
        ("E", None),
        ("e", None),
        ("", None),
        ("a scratch", None),
        ("I cannot tell", None),
        ("Because B is wrong", None),
        ("Yes", None),
    ],
)
def test_letters(text: str, read: str | None) -> None:
    assert letter(text, "ABCD") == read
