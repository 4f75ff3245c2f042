"""The check that a language model's words do not contradict the record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anomaly_ov.records import Answer, Finding
from anomaly_ov.words.agreement import checked, contradiction, verdict_said
from anomaly_ov.words.from_record import REFUSAL
from words_fixtures import BROKEN, NORMAL, ONE

ASK = "Is there a defect?"


@pytest.mark.parametrize(
    ("text", "question", "said"),
    [
        ("Yes.", ASK, True),
        ("No, it looks fine.", ASK, False),
        ("Yes.", "Is it ok?", False),
        ("No.", "Is it ok?", True),
        ("<think>No defect is to be seen.</think>Yes.", ASK, True),
        ("Yes.", "Is it a scratch?", None),
        ("The part is damaged.", "", True),
        ("There is a small defect on the left.", "", True),
        ("It has a clear flaw.", "", True),
        ("Something is wrong with it.", "", True),
        ("I do not see any defects.", "", False),
        ("There is no visible damage.", "", False),
        ("There isn't any damage.", "", False),
        ("Nothing looks wrong here.", "", False),
        ("The part is in good condition.", "", False),
        ("It looks perfectly normal.", "", False),
        ("The image is free of defects.", "", False),
        ("The left is normal, but the right is damaged.", "", None),
        ("It was compared with no other image.", "", None),
        ("A green bottle.", "", None),
        ("I cannot tell whether it is damaged.", "", None),
        ("Look if there is a defect. It is fine.", "", False),
        (REFUSAL, "", None),
        ("", "", None),
    ],
)
def test_verdicts_are_read_from_words(text: str, question: str, said: bool | None) -> None:
    assert verdict_said(text, question) is said


@pytest.mark.parametrize(
    ("found", "text", "said"),
    [
        (ONE, "No, everything is fine.", "The image is anomalous (score 0.812, threshold 0.500)."),
        (ONE, "Yes, a scratch.", None),
        (NORMAL, "Yes, there is a dent.", "The image is not anomalous (score 0.312, threshold 0.500)."),
        (NORMAL, "No.", None),
        (NORMAL, "I cannot say.", None),
        (replace(ONE, anomalous=None), "No.", None),
        (BROKEN, "No.", None),
    ],
)
def test_a_contradiction_is_told_by_the_records_verdict(found: Finding, text: str, said: str | None) -> None:
    assert contradiction(found, text, ASK) == said


def test_of_several_views_the_most_anomalous_decides() -> None:
    no = Answer("No.", 0.1, "stop")
    assert checked(no, [NORMAL, ONE], ASK).contradiction is not None
    assert checked(no, [NORMAL, NORMAL], ASK).contradiction is None


def test_p_yes_stays_only_where_yes_or_no_was_asked_for() -> None:
    said = Answer("Yes.", 0.9, "stop")
    assert checked(said, ONE, ASK).p_yes == 0.9
    for question in ("Where is it?", "What is the capital of France?", "Which one?"):
        assert checked(said, ONE, question).p_yes is None
