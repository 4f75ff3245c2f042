"""The run over questions: figures, files, going on, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import DataError, EndpointError, UsageError
from anomaly_ov.records import ErrorInfo
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.endpoint import Endpoint
from anomaly_ov_lab.evaluation.text.judge import Judge
from anomaly_ov_lab.evaluation.text.layouts import load_questions
from anomaly_ov_lab.evaluation.text.questions import DETECT, phrasings
from anomaly_ov_lab.evaluation.text.run import evaluate_reasoning
from anomaly_ov_lab.evaluation.text.table import markdown
from question_fixtures import MODEL, Told, own_list, picture, released_detection
from remote_fixtures import ok, serving


def truthful(image: Path, question: str, turn: int) -> Any:
    """Knows the label from the path; says what is asked for."""
    bad = image.parent.name == "Anomaly" or (image.parent.name == "pictures" and image.stem.endswith("1"))
    if "Answer with the letter" in question:
        return "A." if bad else "B"
    if "seen" in question:
        return "a scratch on the lid"
    if "cause" in question:
        return "a fall"
    return ("Yes.", 0.9) if bad else ("No.", 0.2)


def rows_of(folder: Path, name: str = "per_question.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_the_released_list_measured(tmp_path: Path) -> None:
    questions = load_questions(released_detection(tmp_path), detect=phrasings(2))

    def say(image: Path, question: str, turn: int) -> Any:
        return truthful(image, question, turn) if question == DETECT else "Yes"

    result = evaluate_reasoning(Told(say), questions, tmp_path / "run", draws=100)
    first, second = result.detection
    assert {first.mean.values[name] for name in ("accuracy", "f1", "auroc_p_yes", "specificity")} == {1.0}
    assert (second.mean.values["accuracy"], second.mean.values["specificity"]) == (0.5, 0.0)
    assert second.mean.values["f1"] == result.always_yes["f1"] == pytest.approx(2 / 3)  # type: ignore[index]
    assert result.spread is not None
    assert result.spread["accuracy"]["mean"] == 0.75
    assert result.counts == {"conversations": 8, "detect": 16, "answered": 16, "unanswered": 0}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["schema"] == "anomaly-ov.reasoning/1"
    assert [one["question"] for one in metrics["detection"]] == list(phrasings(2))
    assert metrics["detection"][0]["mean"]["intervals"]["f1"] == [1.0, 1.0]
    assert metrics["over_phrasings"]["accuracy"]["sd"] == pytest.approx(0.353553, abs=1e-6)
    table = (tmp_path / "run" / "table.md").read_text()
    assert "| always Yes | 4 / 4 | 50.0 | 50.0 | 100.0 | 66.7 | 0.0 | 50.0 | 50.0 | - |" in table
    assert "| mean ± sd over 2 questions |" in table
    assert "| test_data, candle | first question | 2 / 2 |" in table


def test_every_kind_of_question(tmp_path: Path) -> None:
    result = evaluate_reasoning(Told(truthful), load_questions(own_list(tmp_path)), tmp_path / "run", draws=100)
    assert result.free_text["low"]["rouge_l"]["mean"] == 1.0
    assert result.free_text["complex"]["rouge_l"]["mean"] == pytest.approx(2 * (2 / 5) * 1 / (2 / 5 + 1))
    assert "sbert" not in result.free_text["low"]
    assert result.choices is not None
    assert result.choices["types"]["Anomaly Detection"]["balanced_accuracy"] == 1.0
    scores = {row["id"]: row for row in rows_of(tmp_path / "run", "scores.jsonl")}
    assert scores["pictures/lid1.png#detect0"] == {
        "id": "pictures/lid1.png#detect0", "kind": "detect", "read": "yes", "p_yes": 0.9,
    }  # fmt: skip
    assert scores["pictures/lid1.png#0"]["read"] == "A"
    assert scores["pictures/lid1.png~2#0"]["rouge_l"] == 1.0
    assert all(table in markdown([result]) for table in ("**free text", "**choices", "**yes or no"))


def test_a_run_goes_on_without_asking_again(tmp_path: Path) -> None:
    questions, run = load_questions(own_list(tmp_path)), tmp_path / "run"

    class Stopped(Exception):
        pass

    def stops(image: Path, question: str, turn: int) -> Any:
        if image.name == "cap0.png":
            raise Stopped
        return truthful(image, question, turn)

    with pytest.raises(Stopped):
        evaluate_reasoning(Told(stops), questions, run, draws=0)
    kept = len(rows_of(run))
    assert 0 < kept < 12
    with (run / "per_question.jsonl").open("a") as file:
        file.write('{"schema": "anomaly-ov.answer-row/1", "id": "cut sho')
    second = Told(truthful)
    whole = evaluate_reasoning(second, questions, run, draws=0)
    assert len(second.asked) == 12 - kept
    assert whole.speed["asked"] == 12 - kept
    third = Told(truthful)
    again = evaluate_reasoning(third, questions, run, draws=0)
    assert third.asked == []
    assert again.detection == whole.detection
    fresh = evaluate_reasoning(Told(truthful), questions, draws=0)
    assert fresh.detection == whole.detection
    assert fresh.free_text == whole.free_text


def test_another_parser_reads_the_same_answers(tmp_path: Path) -> None:
    questions, run = load_questions(released_detection(tmp_path)), tmp_path / "run"
    evaluate_reasoning(Told(lambda *_: "The eyes are fine"), questions, run, draws=0)
    silent = Told(truthful)
    strict = evaluate_reasoning(silent, questions, run, draws=0)
    official = evaluate_reasoning(silent, questions, run, parser="official", draws=0)
    assert silent.asked == []
    assert strict.detection[0].pooled.counts["unread"] == 8
    assert strict.detection[0].pooled.values["accuracy"] == 0
    assert official.detection[0].pooled.values["recall"] == 1
    assert official.detection[0].pooled.counts["unread"] == 0
    assert any("cannot be read, counted as wrong: 8" in note for note in strict.notes)
    assert "read by the official rule" in markdown([official])


def test_what_changed_is_asked_again(tmp_path: Path) -> None:
    path, run = released_detection(tmp_path), tmp_path / "run"
    evaluate_reasoning(Told(truthful), load_questions(path), run, draws=0)
    changed = load_questions(path).conversations[2]
    picture(changed.image, seed=99)
    other = Told(truthful)
    evaluate_reasoning(other, load_questions(path), run, draws=0)
    assert other.asked == [(changed.image.name, DETECT)]
    reworded = Told(truthful)
    evaluate_reasoning(reworded, load_questions(path, detect=("Is it bad?",)), run, draws=0)
    assert len(reworded.asked) == 8


def test_a_smaller_call_does_not_throw_answers_away(tmp_path: Path) -> None:
    questions, run = load_questions(released_detection(tmp_path)), tmp_path / "run"
    evaluate_reasoning(Told(truthful), questions, run, draws=0)
    some = evaluate_reasoning(Told(truthful), questions.first(1), run, draws=0)
    assert some.counts["answered"] == 2
    silent = Told(truthful)
    assert evaluate_reasoning(silent, questions, run, draws=0).counts["answered"] == 8
    assert silent.asked == []


def test_a_conversation_that_changed_is_had_anew(tmp_path: Path) -> None:
    def listed(second: str) -> Path:
        turns = [{"question": text, "answer": "x"} for text in ("What?", second, "And?")]
        (tmp_path / "list.jsonl").write_text(json.dumps({"image": "a.png", "questions": turns}) + "\n")
        return tmp_path / "list.jsonl"

    picture(tmp_path / "a.png")
    evaluate_reasoning(Told(lambda *_: "x"), load_questions(listed("Why?")), tmp_path / "run", draws=0)
    told = Told(lambda *_: "x")
    evaluate_reasoning(told, load_questions(listed("How?")), tmp_path / "run", draws=0)
    assert [text for _, text in told.asked] == ["What?", "How?", "And?"]


@pytest.mark.parametrize(
    "other",
    [
        Told(truthful, replace(MODEL, name="else")),
        Told(truthful, replace(MODEL, revision="2")),
        Told(truthful, settings="otherwise"),
    ],
)
def test_a_folder_of_another_model_is_refused(tmp_path: Path, other: Told) -> None:
    questions, run = load_questions(released_detection(tmp_path)), tmp_path / "run"
    evaluate_reasoning(Told(truthful), questions, run, draws=0)
    before = (run / "per_question.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds answers") as raised:
        evaluate_reasoning(other, questions, run, draws=0)
    assert "another --out" in raised.value.hint
    assert (run / "per_question.jsonl").read_bytes() == before
    assert other.asked == []


def test_missing_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    questions, run = load_questions(released_detection(tmp_path)), tmp_path / "run"
    gone = questions.conversations[0].image
    data = gone.read_bytes()
    gone.unlink()
    result = evaluate_reasoning(Told(truthful), questions, run, draws=0)
    assert (result.counts["answered"], result.counts["unanswered"]) == (7, 1)
    assert result.detection[0].pooled.counts["n"] == 7
    assert any("not answered, left out: 1 (VisA/candle" in note for note in result.notes)
    gone.write_bytes(data)
    back = Told(truthful)
    assert evaluate_reasoning(back, questions, run, draws=0).counts["unanswered"] == 0
    assert len(back.asked) == 1


def test_nothing_answered_is_an_error(tmp_path: Path) -> None:
    questions = load_questions(released_detection(tmp_path))
    with pytest.raises(EndpointError, match="none of the 8 questions was answered: EndpointError: no"):
        evaluate_reasoning(Told(lambda *_: ErrorInfo("EndpointError", "no")), questions, draws=0)
    with pytest.raises(DataError, match="UnreadableImage: no") as raised:
        evaluate_reasoning(Told(lambda *_: ErrorInfo("UnreadableImage", "no")), questions, draws=0)
    assert "--images" in raised.value.hint


def test_an_answerer_that_loses_count_is_at_fault(tmp_path: Path) -> None:
    class Short(Told):
        def stream(self, asked: Any) -> Any:
            return iter([[]])

    with pytest.raises(DataError, match="fault of the answerer"):
        evaluate_reasoning(Short(truthful), load_questions(released_detection(tmp_path)), draws=0)


def test_empty_answers_are_wrong_and_named(tmp_path: Path) -> None:
    result = evaluate_reasoning(Told(lambda *_: ""), load_questions(own_list(tmp_path)), draws=0)
    assert result.detection[0].pooled.values["accuracy"] == 0
    assert result.choices is not None
    assert result.choices["unread"] == 4
    assert result.free_text["low"]["rouge_l"]["mean"] == 0
    assert any("empty answers to free-text questions: 4" in note for note in result.notes)


def test_a_class_with_one_label_is_undefined_and_said(tmp_path: Path) -> None:
    questions = load_questions(released_detection(tmp_path))
    kept = tuple(c for c in questions.conversations if c.category == "candle" or c.questions[0].reference == "yes")
    result = evaluate_reasoning(Told(truthful), replace(questions, conversations=kept), tmp_path / "run", draws=50)
    assert result.detection[0].categories[1].values["specificity"] is None
    assert result.detection[0].mean.values["specificity"] == 1.0
    assert any("one label only, some rates undefined: 1 (capsules)" in note for note in result.notes)


def test_the_judge_grades_and_its_nonsense_is_left_out(tmp_path: Path) -> None:
    questions, run = load_questions(own_list(tmp_path)), tmp_path / "run"
    with serving(ok("Score: 8"), ok("no idea"), ok("Score: 4"), ok("Score: 6"), ok("Score: 2")) as server:
        judge = Judge(Endpoint(EndpointConfig(server.url, "grader", api_key_env="")))
        result = evaluate_reasoning(Told(truthful), questions, run, judge=judge, draws=50)
        assert result.free_text["low"]["judge"]["mean"] == 6.0  # lid 8, cap 4
        assert result.free_text["complex"]["judge"]["mean"] == 6.0  # lid nonsense, cap 6
        assert result.free_text["complex"]["judge"]["graded"] == 1
        assert result.judge is not None
        assert (result.judge["model"], result.judge["graded"], result.judge["failed"]) == ("grader", 3, 1)
        assert any("not graded by the judge, left out of its mean: 1 (pictures/lid1.png~2#1" in n for n in result.notes)
        assert len(rows_of(run, "judge.jsonl")) == 4
        again = evaluate_reasoning(Told(truthful), questions, run, judge=judge, draws=50)
        assert len(server.bodies) == 5, "only the nonsense is asked for again"
        assert again.free_text["complex"]["judge"]["mean"] == 4.0
        assert again.judge is not None
        assert again.judge["failed"] == 0
        assert "judge grader at" in markdown([again])
