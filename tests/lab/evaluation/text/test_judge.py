"""The judge: what counts as a grade, what it is sent, what is kept, and what becomes of its failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly_ov.errors import EndpointRefused
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.endpoint import Endpoint
from anomaly_ov_lab.evaluation.row_file import RowFile
from anomaly_ov_lab.evaluation.text.judge import (
    PROMPT_FILE,
    VERSION,
    Graded,
    Judge,
    ToGrade,
    graded_before,
    score_of,
)
from remote_fixtures import FakeTime, Scripted, Server, failing, ok, serving

ITEMS = [ToGrade(str(k), "What is it?", "A scratch.", f"answer {k}") for k in range(4)]


def judge_at(server: Server, **changes: object) -> Judge:
    config = EndpointConfig(server.url, "grader", api_key_env="", logprobs=False, **changes)  # type: ignore[arg-type]
    return Judge(Endpoint(config, clock=FakeTime().clock))


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It agrees.\nScore: 7", 7),
        ("Score: 0", 0),
        ("because\n\n**Score: 10**", 10),
        ("- score : 3/10.", 3),
        ("Score: 11", None),
        ("Score: -1", None),
        ("Score: 7.5", None),
        ("Score: 7\nScore: 8", None),
        ("Score: 7\nScore: 7", None),
        ("I would give it a Score: 7 perhaps", None),
        ("seven", None),
        ("", None),
        ("Score: N", None),
    ],
)
def test_only_one_grade_in_the_asked_form_counts(reply: str, score: int | None) -> None:
    assert score_of(reply) == score


def test_what_the_judge_is_sent_and_what_is_kept() -> None:
    kept: list[Graded] = []
    with serving(ok("Right.\nScore: 9"), ok("blah")) as server:
        judge = judge_at(server)
        found = list(judge.grade(ITEMS[:2], {}, kept.append))
    system, user = server.bodies[0]["messages"]
    assert system["content"] == PROMPT_FILE.read_text(encoding="utf-8")
    assert user["content"] == (
        "<question>\nWhat is it?\n</question>\n<reference>\nA scratch.\n</reference>\n<answer>\nanswer 0\n</answer>"
    )
    assert server.bodies[0]["temperature"] == 0
    assert [one.score for one in found] == [9, None]
    assert found[1].error is not None
    assert "no single line" in found[1].error
    assert found[1].reply == "blah"
    assert kept == found
    assert found[0].judge == judge.identity
    assert judge.identity["prompt"] == VERSION
    assert len(judge.identity["prompt_sha256"]) == 64


def test_failures_are_kept_apart_and_the_rest_goes_on() -> None:
    with serving(failing(500), ok("Score: 4"), Scripted(b"{}", delay=0.6), ok("Score: 6")) as server:
        found = list(judge_at(server, retries=0, timeout_s=0.3).grade(ITEMS, {}, lambda graded: None))
    assert [one.score for one in found] == [None, 4, None, 6]
    assert found[0].error is not None
    assert "status 500" in found[0].error
    assert found[2].error is not None
    assert "did not answer within 0.3 s" in found[2].error


def test_a_refusal_ends_the_run_and_what_was_graded_is_kept() -> None:
    kept: list[Graded] = []
    with serving(ok("Score: 4"), failing(401)) as server, pytest.raises(EndpointRefused):
        list(judge_at(server).grade(ITEMS, {}, kept.append))
    assert [one.score for one in kept] == [4]


def test_graded_once_is_not_paid_twice(tmp_path: Path) -> None:
    path = tmp_path / "judge.jsonl"
    with serving(ok("Score: 4"), ok("nonsense"), ok("Score: 5")) as server:
        judge = judge_at(server)
        first = list(judge.grade(ITEMS[:2], {}, lambda graded: None))
        kept = RowFile(path, Graded, None)
        kept.replace(first)
        path.write_text(path.read_text() + '{"id": "cut')
        known = graded_before(kept.read())
        again = list(judge.grade(ITEMS[:2], known, lambda graded: None))
        assert [one.score for one in again] == [4, 5]
        assert len(server.bodies) == 3
        assert again[0] == first[0]
    with serving(ok("Score: 8")) as other:
        renamed = Judge(Endpoint(EndpointConfig(other.url, "another", api_key_env="")))
        assert [one.score for one in renamed.grade(ITEMS[:1], known, lambda graded: None)] == [8], "another judge"


def test_transcripts_of_others_are_not_trusted(tmp_path: Path) -> None:
    row = {"id": "0", "key": "k", "judge": {}, "asked": "", "reply": "", "score": 400, "error": None}
    path = tmp_path / "judge.jsonl"
    lines = [json.dumps(row), json.dumps(row | {"score": "7"}), json.dumps(row | {"extra": 1}), "[]", "null", "x"]
    path.write_text("\n".join(lines))
    assert graded_before(RowFile(path, Graded, None).read()) == {}
    path.write_text(json.dumps(row | {"score": 7}))
    assert graded_before(RowFile(path, Graded, None).read())["k"].score == 7


def test_an_empty_answer_is_put_as_such() -> None:
    with serving(ok("Score: 0")) as server:
        list(judge_at(server).grade([ToGrade("0", "q", "r", "  ")], {}, lambda graded: None))
    assert "(no answer was given)" in server.bodies[0]["messages"][1]["content"]
