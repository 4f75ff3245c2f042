"""Answers from the record: word for word, and for any record never against it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.records import ContextInfo, Finding, Threshold
from anomaly_ov.words.agreement import verdict_said
from anomaly_ov.words.from_record import QUESTIONS, REFUSAL, answer, answer_together, describe
from anomaly_ov.words.question import understood
from words_fixtures import BESIDE, BROKEN, FOLDER, NORMAL, ONE, SCRATCH, THREE, UNLIKE, finding, region

NOT = "the image is not anomalous (score 0.312, threshold 0.500)"
IS = "the image is anomalous (score 0.812, threshold 0.500)"
FAILED = "The image could not be inspected: cannot read part.png: it is cut off (save it again)."
LOOKS = replace(
    THREE,
    regions=(
        replace(THREE.regions[0], contrast=(-0.1, -0.2, -0.2), elongation=5.0),
        replace(THREE.regions[1], contrast=(0.1, 0.1, 0.1), elongation=2.5),
        THREE.regions[2],
    ),
)
FIRST = "score 0.812, 1000 pixels, 0.33 % of the image, in a box of 40 x 31 pixels (x 20 to 60, y 10 to 41)."
SECOND = "score 0.640, 640 pixels, 0.21 % of the image, in a box of 40 x 20 pixels (x 300 to 340, y 430 to 450)."
SEEN = f"T{IS[1:]}. In the upper left: a region, 1000 pixels, 0.33 % of the image."
THIRD = "score 0.550, 9 pixels, less than 0.01 % of the image, in a box of 4 x 3 pixels (x 600 to 604, y 220 to 223)."


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (NORMAL, f"T{NOT[1:]}. No region stands out. It was compared with no other image."),
        (ONE, f"T{IS[1:]}. 1 region stands out, in the upper left: 1000 pixels, 0.33 % of the image. "
              "It was compared with no other image."),
        (THREE, f"T{IS[1:]}. 3 regions stand out, the strongest in the upper left: 1000 pixels, 0.33 % of the image. "
                "It was compared with no other image."),
        (BESIDE, f"T{IS[1:]}. 1 region stands out, in the upper left: 1000 pixels, 0.33 % of the image. "
                 "It was compared with images known to be good (24 references); it lies 3.2 times as far from them as "
                 "is usual."),
        (UNLIKE, f"T{NOT[1:]}. No region stands out. It was compared with no other image: the pictures differ too "
                 "much."),
        (BROKEN, FAILED),
    ],
)  # fmt: skip
def test_descriptions(found: Finding, text: str) -> None:
    assert describe(found) == text


@pytest.mark.parametrize(
    ("found", "question", "text"),
    [
        (NORMAL, "Is there a defect?", f"No, {NOT}."),
        (NORMAL, "Is it ok?", "Yes, the image counts as normal (score 0.312, threshold 0.500)."),
        (NORMAL, "Good or bad?", f"T{NOT[1:]}."),
        (NORMAL, "Where?", f"Nowhere: {NOT}."),
        (NORMAL, "How many?", f"None: {NOT}."),
        (NORMAL, "How big?", f"There is nothing to measure: {NOT}."),
        (NORMAL, "The second region?", f"There is no region: {NOT}."),
        (NORMAL, "Why?",
         "The image is not anomalous because its score 0.312 stays below the threshold 0.500. It was compared "
         "with no other image. What it is and what caused it, the record does not say."),
        (NORMAL, "How big is the image?", "The image is 640 x 480 pixels."),
        (ONE, "Is there a defect?", f"Yes, {IS}."),
        (ONE, "Is it ok?", f"No, {IS}."),
        (ONE, "Is the bottle ok?", f"T{IS[1:]}. What the image shows, this model does not know."),
        (ONE, "Where?", "1 region stands out: in the upper left (score 0.812, x 20 to 60, y 10 to 41)."),
        (ONE, "How many?", "1 region stands out."),
        (ONE, "How big?",
         "The region in the upper left covers 1000 pixels, 0.33 % of the image, in a box of 40 x 31 pixels."),
        (ONE, "How sure?",
         "The score is 0.812 on a scale from 0 to 1, the threshold 0.500 (model default): the image is "
         "anomalous."),
        (ONE, "The second region?", "There is no region of that number; 1 region stands out."),
        (THREE, "Where?",
         "3 regions stand out: in the upper left (score 0.812, x 20 to 60, y 10 to 41), at the bottom (score "
         "0.640, x 300 to 340, y 430 to 450) and on the right (score 0.550, x 600 to 604, y 220 to 223)."),
        (THREE, "How many?", "3 regions stand out."),
        (THREE, "How big?",
         "3 regions stand out: the one in the upper left covers 1000 pixels, 0.33 % of the image, in a box of "
         "40 x 31 pixels; the one at the bottom covers 640 pixels, 0.21 % of the image, in a box of 40 x 20 "
         "pixels; and the one on the right covers 9 pixels, less than 0.01 % of the image, in a box of 4 x 3 "
         "pixels."),
        (THREE, "Why?",
         "The image is anomalous because its score 0.812 reaches the threshold 0.500. The strongest of 3 "
         "regions, in the upper left, has the score 0.812. It was compared with no other image. What it is "
         "and what caused it, the record does not say."),
        (THREE, "The second region?", f"Region 2 of 3 lies at the bottom: {SECOND}"),
        (THREE, "The smallest one?", f"Region 3 of 3 lies on the right: {THIRD}"),
        (THREE, "The one at the top left?", f"Region 1 of 3 lies in the upper left: {FIRST}"),
        (THREE, "Is the one on the left ok?", f"Region 1 of 3 lies in the upper left: {FIRST}"),
        (THREE, "The first and the last?",
         f"Region 1 of 3 lies in the upper left: {FIRST} Region 3 of 3 lies on the right: {THIRD}"),
        (THREE, "Is there a defect in the centre?",
         "No region has its middle in the centre; 3 regions stand out in the upper left, at the bottom and on "
         "the right."),
        (BESIDE, "What was it compared with?",
         "It was compared with images known to be good (24 references, from parts/good); it lies 3.2 times as "
         "far from them as is usual."),
        (BESIDE, "Why?",
         "The image is anomalous because its score 0.812 reaches the threshold 0.500. The region, in the "
         "upper left, has the score 0.812. It was compared with images known to be good (24 references); it "
         "lies 3.2 times as far from them as is usual. From the image alone the score would be 0.610. What it "
         "is and what caused it, the record does not say."),
        (FOLDER, "Compared with what?",
         "It was compared with images of its own folder (12 references, from parts); it lies 0.9 times as far "
         "from them as is usual."),
        (UNLIKE, "Compared with what?", "It was compared with no other image: the pictures differ too much."),
        (ONE, "What kind of defect is it?", f"{SEEN} What kind of defect it is cannot be told with confidence."),
        (ONE, "Is it a scratch?", f"{SEEN} What kind of defect it is cannot be told with confidence."),
        (ONE, "What caused it?", f"{SEEN} What caused it cannot be told from the image."),
        (ONE, "How bad is it?", f"{SEEN} How serious it is cannot be told from the image."),
        (ONE, "What does it look like?", SEEN),
        (ONE, "What should be done?",
         f"{SEEN} What to do with it, a person has to decide; this model gives no advice."),
        (ONE, "Is there a tumour?", f"{SEEN} This is no medical finding and no advice: ask a physician."),
        (ONE, "What is shown?", f"{SEEN} What the image shows beyond that, this model does not know."),
        (LOOKS, "What is wrong?",
         f"T{IS[1:]}. In the upper left: a narrow region much darker and redder than what is around it, 1000 pixels, "
         "0.33 % of the image. At the bottom: an elongated region brighter than what is around it, 640 pixels, 0.21 % "
         "of the image. 1 more region. What kind of defect it is cannot be told with confidence."),
        (NORMAL, "Is it a scratch?", f"T{NOT[1:]}. No region stands out. There is nothing else to be told of it."),
        (NORMAL, "Can I ship it?",
         f"T{NOT[1:]}. No region stands out. What to do with it, a person has to decide; this model gives no advice."),
        (ONE, "What is the capital of France?", REFUSAL),
        (NORMAL, "What caused the French Revolution?", REFUSAL),
        (BROKEN, "Is there a defect?", FAILED),
        (BROKEN, "What should be done?", FAILED),
    ],
)  # fmt: skip
def test_answers(found: Finding, question: str, text: str) -> None:
    given_ = answer(found, question)
    assert given_.text == text
    assert (given_.finish, given_.tokens_in, given_.tokens_out) == ("stop", None, None)


def test_the_refusal_is_one_sentence_and_says_who_may_know() -> None:
    assert REFUSAL.count(".") == 1
    assert "--endpoint URL" in REFUSAL


def test_pages_offer_only_what_is_answered() -> None:
    assert all(understood(question) for question in QUESTIONS)


@pytest.mark.parametrize(
    ("score", "limit", "p_yes"),
    [(0.3, 0.5, 0.3), (0.5, 0.5, 0.5), (0.2, 0.2, 0.5), (0.4, 0.2, 8 / 11), (0.0, 0.2, 0.0), (1.0, 0.9, 1.0),
     (0.3, 0.0, 1.0), (0.0, 0.0, 0.5), (0.3, 1.0, 0.0), (1.0, 1.0, 0.5)],
)  # fmt: skip
def test_p_yes_is_one_half_at_the_threshold(score: float, limit: float, p_yes: float) -> None:
    found = finding(score, threshold=Threshold(limit, "test"), anomalous=score >= limit)
    assert answer(found, "Is there a defect?").p_yes == pytest.approx(p_yes)
    assert answer(found, "Is it ok?").p_yes == pytest.approx(1 - p_yes)
    for question in ("Good or bad?", "Is the bottle ok?", "Where?", "Is there a defect on the left?", "What is it?"):
        assert answer(found, question).p_yes is None


def test_a_score_close_to_the_threshold_is_told_apart_from_it() -> None:
    found = finding(0.49996, threshold=Threshold(0.49998, "test"), anomalous=False)
    assert answer(found, "Is there a defect?").text == (
        "No, the image is not anomalous (score 0.49996, threshold 0.49998)."
    )


def test_the_verdict_is_the_records_even_against_its_numbers() -> None:
    """Records of other makings: regions of a normal image, an anomalous one without, no threshold."""
    below = replace(ONE, anomalous=False)
    assert answer(below, "Is there a defect?").text.startswith("No, the image is not anomalous")
    assert answer(below, "Where?").text.startswith(
        "The image is not anomalous (score 0.812, threshold 0.500). 1 region"
    )
    assert "because" not in answer(below, "Why?").text
    assert answer(replace(ONE, regions=()), "Where?").text == f"No single region stands out, though {IS}."
    without = replace(ONE, threshold=None, anomalous=None)
    assert answer(without, "Is there a defect?").text == "There is no verdict (score 0.812, threshold unknown)."
    assert answer(without, "Is there a defect?").p_yes is None


def test_names_cannot_break_a_line() -> None:
    found = replace(BESIDE, context=replace(BESIDE.context, source="a\nb"))
    assert "from 'a\\nb'" in answer(found, "Compared with what?").text


def test_more_regions_than_can_be_listed() -> None:
    many = finding(0.8123, *[SCRATCH] * 9)
    assert answer(many, "Where?").text.endswith(" and 4 more.")
    assert answer(many, "How many?").text == "9 regions stand out."


def test_several_views_are_answered_by_the_most_anomalous() -> None:
    views = [NORMAL, ONE, BESIDE]
    assert answer_together(views, "Is it ok?").text == f"No, {IS}. This is view 2 of 3, the one with the highest score."
    assert answer_together(views, "Tell me a joke.").text == REFUSAL
    assert answer_together([ONE], "Is it ok?") == answer(ONE, "Is it ok?")


ASKED = (
    "Is there a defect?", "Is it ok?", "Good or bad?", "Where?", "How many?", "How big?", "How big is the image?",
    "How sure?", "Why?", "Compared with what?", "the second region", "the last one", "the one at the top left",
    "the largest", "What should be done?", "What is it?", "Is it a scratch?", "What caused it?", "How bad is it?",
    "What colour is it?", "Should a doctor see it?", "What is shown?", "Tell me a joke.",
)  # fmt: skip
UNIT, SHADE = st.floats(0, 1), st.floats(-1, 1)


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    width, height = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
    regions = []
    for _ in range(draw(st.integers(0, 8))):
        x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
        one = region((x0, y0, x1, y1), draw(UNIT), draw(st.integers(1, (x1 - x0) * (y1 - y0))))
        contrast = draw(st.none() | st.tuples(SHADE, SHADE, SHADE))
        regions.append(replace(one, contrast=contrast, elongation=draw(st.none() | st.floats(1, 9))))
    score, limit = draw(UNIT), draw(UNIT)
    context = ContextInfo(
        draw(st.sampled_from(("none", "folder", "references"))),
        draw(st.sampled_from((None, "good"))),
        draw(st.none() | st.integers(0, 500)),
        None,
        draw(st.none() | st.floats(0, 1e6)),
        draw(st.sampled_from((None, "too few"))),
    )
    found = finding(
        score,
        *sorted(regions, key=lambda one: -one.score),
        threshold=Threshold(limit, "test"),
        anomalous=draw(st.sampled_from((score >= limit, draw(st.booleans())))),
        score_expert=draw(st.none() | UNIT),
        score_context=draw(st.none() | UNIT),
        context=context,
    )
    return replace(found, image=replace(found.image, width=width, height=height))


def numbers_of(found: Finding) -> list[float]:
    """What stands in the record, is counted in it, or follows from it by one subtraction or division."""
    width, height = found.image.width or 0, found.image.height or 0
    values: list[Any] = [0, 1, 0.01, width, height, found.score, found.score_expert, found.context.distance]
    values += [found.context.references, found.threshold.value if found.threshold else None, len(found.regions)]
    for number, one in enumerate(found.regions, start=1):
        x0, y0, x1, y1 = one.box
        values += [number, *one.box, x1 - x0, y1 - y0, one.area, one.score, 100 * one.area / (width * height)]
    values += [len(found.regions) - 5, len(found.regions) - 2]  # "and 3 more", "6 more regions"
    return [float(value) for value in values if value is not None]


@settings(max_examples=150, deadline=None)
@given(findings())
def test_no_answer_contradicts_its_record(found: Finding) -> None:
    verdict = answer(found, "Is there a defect?").text.split(",")[0]
    assert verdict == ("Yes" if found.anomalous else "No")
    assert answer(found, "Is it ok?").text.split(",")[0] == ("No" if found.anomalous else "Yes")
    p_yes = answer(found, "Is there a defect?").p_yes
    assert found.score is not None
    assert found.threshold is not None
    assert p_yes is not None
    assert 0 <= p_yes <= 1
    assert (p_yes >= 0.5) == (found.score >= found.threshold.value)
    known = numbers_of(found)
    for text in (describe(found), *(answer(found, question).text for question in ASKED)):
        for number in re.findall(r"\d+(?:\.\d+)?", text):
            digits = len(number.partition(".")[2])
            assert any(f"{value:.{digits}f}" == number for value in known), (number, text)
        if text != REFUSAL:
            assert not ("image is anomalous" in text and not found.anomalous), text
            assert not ("not anomalous" in text and found.anomalous), text
            assert verdict_said(text) in (None, found.anomalous), text


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_may_be_asked(question: str) -> None:
    assert answer(THREE, question).text
