"""The held-out questions: what they hold, and that right, wrong and constant answers score as they should."""

from __future__ import annotations

import pytest

from anomaly_ov.records import Answer
from anomaly_ov_lab.evaluation.held_out import HeldOutSet, held_out_set, is_main_held_out, said, scored, share


@pytest.fixture(scope="module")
def questions() -> HeldOutSet:
    return held_out_set(12, seed=3, size=64)


def answers(questions: HeldOutSet, **constant: str) -> list[Answer]:
    """The reference answers, or the same one for every question of a topic."""
    texts = [constant.get(question.topic, question.turn.answer) for question in questions.questions]
    return [Answer(text, 0.9 if text.startswith("Yes") else 0.1, "stop") for text in texts]


def test_half_is_anomalous_and_of_combinations_that_no_training_sees(questions: HeldOutSet) -> None:
    anomalous = [sample for sample in questions.samples if sample.facts.defects]
    assert len(questions.samples) == 12
    assert len(anomalous) == 6
    assert all(is_main_held_out(sample.facts) for sample in anomalous)
    topics = [question.topic for question in questions.questions]
    assert (topics.count("detect"), topics.count("kind"), topics.count("place")) == (12, 6, 6)


def test_is_a_function_of_its_arguments(questions: HeldOutSet) -> None:
    again = held_out_set(12, seed=3, size=64)
    assert [question.turn for question in again.questions] == [question.turn for question in questions.questions]
    other = held_out_set(4, seed=4, size=64)
    assert other.samples[0].facts != questions.samples[0].facts


def test_right_answers_score_one(questions: HeldOutSet) -> None:
    found = scored(questions, answers(questions))
    assert found["balanced_accuracy"] == found["kind"]["share"] == found["place"]["share"] == 1
    assert found["auroc_p_yes"] == 1
    assert found["swapped"]["all"]["share"] == 1


def test_always_yes_is_chance_and_changes_with_no_picture(questions: HeldOutSet) -> None:
    found = scored(questions, answers(questions, detect="Yes.", kind="scratch.", place="centre."))
    assert found["balanced_accuracy"] == 0.5
    assert found["auroc_p_yes"] == 0.5
    assert found["swapped"]["all"]["share"] == 0


def test_answers_that_change_at_random_need_a_right_one(questions: HeldOutSet) -> None:
    turned = [
        Answer("No." if answer.text == "Yes." else "Yes.", None, "stop") if question.topic == "detect" else answer
        for question, answer in zip(questions.questions, answers(questions), strict=True)
    ]
    assert scored(questions, turned)["swapped"]["detect"]["share"] == 0


def test_what_an_answer_says() -> None:
    assert said("detect", "Yes, there is a scratch.") is True
    assert said("detect", "It looks fine.") is None
    assert said("kind", "a scratch and a dent.") == {"scratch", "dent"}
    assert said("place", "upper left.") == "upper left"


def test_share_and_its_interval() -> None:
    found = share([True] * 9 + [False])
    assert found["share"] == 0.9
    assert found["n"] == 10
    assert found["interval"] == pytest.approx([0.596, 0.982], abs=1e-3)  # Wilson, by hand
    assert share([])["share"] is None
