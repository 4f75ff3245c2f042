"""Every list of questions that is known, and what is wrong with lists that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import DataError, UsageError
from anomaly_ov_lab.evaluation.text.layouts import load_questions
from anomaly_ov_lab.evaluation.text.questions import ASK_LETTER, DETECT, phrasings
from question_fixtures import own_list, picture, released_detection
from training_fixtures import labelled_folder


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_released_detection_list(tmp_path: Path) -> None:
    found = load_questions(released_detection(tmp_path))
    assert (found.layout, found.name, found.categories) == ("test_data", "test_data", ("candle", "capsules"))
    assert found.counts == {"conversations": 8, "detect": 8}
    first, last = found.conversations[0], found.conversations[-1]
    assert (first.questions[0].text, first.questions[0].reference, last.questions[0].reference) == (DETECT, "no", "yes")
    assert first.image.is_file(), "paths start from the folder above the list"


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    path = released_detection(tmp_path / "there")
    moved = tmp_path / "here" / "test_data.json"
    moved.parent.mkdir()
    path.rename(moved)
    assert not load_questions(moved).conversations[0].image.is_file()
    assert load_questions(moved, images=tmp_path / "there").conversations[0].image.is_file()
    with pytest.raises(UsageError, match="no folder of pictures"):
        load_questions(moved, images=tmp_path / "nowhere")


def test_released_conversations(tmp_path: Path) -> None:
    entries = [
        {"image": f"VisA/{name}/a.png", "questions": ["What?", "Why?", "What now?"], "answers": ["x", "y", "z"]}
        for name in ("candle", "pcb2", "pcb1")
    ]
    found = load_questions(written(tmp_path / "visa_dr.json", entries))
    assert found.categories == ("candle", "pcb1")
    assert found.notes == ("entries left out: 1 (of pcb2 and pcb4, as released)",)
    turns = found.conversations[0].questions
    assert [turn.kind for turn in turns] == ["low", "complex", "complex"]
    assert [turn.reference for turn in turns] == ["x", "y", "z"]
    assert found.conversations[0].remember
    two = load_questions(tmp_path / "visa_dr.json", low_level=2)
    assert [turn.kind for turn in two.conversations[0].questions] == ["low", "low", "complex"]
    assert two.digest != found.digest


def test_mmad(tmp_path: Path) -> None:
    asked = [
        {"Question": "Any defect?", "Options": {"A": "Yes.", "B": "No."}, "Answer": "B", "type": "Anomaly Detection"},
        {"Question": "Which?", "Options": {"A": "a", "B": "b", "C": "c"}, "Answer": "C", "type": "Defect Analysis"},
    ]
    content = {"DS-MVTec/bottle/image/good/000.png": {"conversation": asked, "similar_templates": []}}
    (one,) = load_questions(written(tmp_path / "mmad.json", content)).conversations
    assert (one.category, one.remember) == ("DS-MVTec/bottle", False)
    assert one.questions[1].text == f"Which?\nA. a\nB. b\nC. c\n{ASK_LETTER}"
    assert [question.reference for question in one.questions] == ["B", "C"]
    assert [question.topic for question in one.questions] == ["Anomaly Detection", "Defect Analysis"]


def test_own_list(tmp_path: Path) -> None:
    found = load_questions(own_list(tmp_path), detect=phrasings(2))
    assert found.counts == {"conversations": 6, "choice": 4, "complex": 2, "detect": 8, "low": 2}
    assert len({q.id for one in found.conversations for q in one.questions}) == 16
    assert [one.remember for one in found.conversations] == [False, False, True] * 2
    assert found.of_categories(["cap"]).counts["conversations"] == 3
    assert [one.id for one in found.first(1).conversations] == ["pictures/lid0.png", "pictures/cap0.png"]
    assert found.first(2) == found
    with pytest.raises(UsageError, match="no class nut") as raised:
        found.of_categories(["cap", "nut"])
    assert raised.value.hint == "it has: lid, cap"


def test_any_labelled_folder_is_asked_about(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "parts", seed=0)
    found = load_questions(tmp_path / "parts")
    assert found.counts == {"conversations": 12, "detect": 12}
    assert sum(one.questions[0].reference == "yes" for one in found.conversations) == 6


def test_few_pictures_are_of_both_labels_with_all_that_is_asked_about_them(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "parts", seed=0)  # natural order puts every picture of one label first
    few = load_questions(tmp_path / "parts").first(2)
    assert {one.questions[0].reference for one in few.conversations} == {"no", "yes"}
    lines = [{"image": "a.png", "label": 1, "questions": [{"question": "What?", "answer": "This."}]}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"image": "b.png", "label": 1}])))
    (detected, open_) = load_questions(tmp_path / "list.jsonl").first(1).conversations
    assert [detected.questions[0].kind, open_.questions[0].kind] == ["detect", "low"]


def test_wordings_begin_with_the_released_one() -> None:
    assert phrasings(1) == (DETECT,)
    assert len(set(phrasings(10))) == 10
    with pytest.raises(UsageError, match="99 phrasings"):
        phrasings(99)


GOOD = {"image": "VisA/candle/a.png"}
TURNS = {"questions": ["What?"], "answers": ["This."]}
OPTIONS = {"Question": "q", "Options": {"A": "a", "B": "b"}, "Answer": "A"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no list of questions that is known"),
        ({}, "no list of questions that is known"),
        ([1], "no list of questions that is known"),
        ([GOOD], "no list of questions that is known"),
        ([GOOD | {"anomaly": "perhaps"}], "entry 1: a label must be"),
        ([GOOD | {"anomaly": None}], "entry 1: 'anomaly' must be true or false"),
        ([{"image": "a.png", "anomaly": True}], "entry 1: 'a.png' names no class"),
        ([{"image": "VisA/candle/../../../a.png", "anomaly": True}], "lies outside"),
        ([{"image": "", "anomaly": True}], "'image' must be a text"),
        ([GOOD | {"questions": []}], "'questions' must be a list of texts"),
        ([GOOD | {"questions": ["What?"], "conversations": []}], "'answers' must be one text per question; the entry"),
        ([GOOD | TURNS | {"answers": ["a", "b"]}], "'answers' must be one text per question"),
        ({"a/b/c.png": {"conversation": []}}, "no 'conversation'"),
        ({"a/b/c.png": {"conversation": [OPTIONS | {"Answer": "C"}]}}, "the right answer 'C' is none"),
        ({"a/b/c.png": {"conversation": [OPTIONS | {"Options": {"A": "a"}}]}}, "2 to 26 lettered"),
        ({"a/b/c.png": {"conversation": [OPTIONS | {"Options": {"A": "a", "bb": "b"}}]}}, "capital letters"),
    ],
)
def test_a_list_that_does_not_fit_says_where(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_questions(written(tmp_path / "list.json", content))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1 is no JSON"),
        ("[]", "needs an object"),
        ('{"image": "a.png", "label": 2}', "a label must be"),
        ('{"image": "a.png", "category": 3, "label": 0}', "'category' must be text"),
        ('{"image": "a.png", "questions": "What?"}', "list of objects"),
        ('{"image": "a.png", "questions": [{"question": "What?", "answer": ""}]}', "'answer' must be a text"),
        ('{"image": "a.png", "questions": [{"question": "q", "answer": "a", "kind": "deep"}]}', "'kind' must be one"),
        ('{"image": "a.png"}', "holds no question"),
        ('{"image": "../a.png", "label": 1}', "lies outside"),
    ],
)
def test_a_line_that_does_not_fit_says_where(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=said):
        load_questions(path)


def test_one_picture_listed_twice_has_two_conversations(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    path = tmp_path / "list.jsonl"
    path.write_text('{"image": "a.png", "label": 1}\n' * 2)
    assert [one.id for one in load_questions(path).conversations] == ["a.png", "a.png~2"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no questions at"):
        load_questions(tmp_path / "none.json")
