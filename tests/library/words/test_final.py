"""Answers behind thoughts and in boxes."""

from __future__ import annotations

import pytest

from anomaly_ov.words.final import final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes, a scratch.", "Yes, a scratch."),
        (" I think not. ", " I think not. "),
        ("<think>Is it? No, it is fine.</think>\n\nYes, a scratch.", "Yes, a scratch."),
        ("<thinking>No.</thinking>Yes.<think>Sure?</think>", "Yes."),
        ("Is it? No.</think>\nYes.", "Yes."),
        ("<think>I never came to", ""),
        (r"So the answer is \boxed{B}.", "B"),
        (r"First \boxed{A}, but then \boxed{\text{No}}", "No"),
        (r"<think>\boxed{A}</think>\boxed{C {x}}", "C {x}"),
        (r"\boxed{never closed", r"\boxed{never closed"),
        ("", ""),
    ],
)
def test_what_is_meant_in_the_end(text: str, answer: str) -> None:
    assert final_answer(text) == answer
