"""``anomaly-ov eval reason`` from the command line to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly_ov.cli.main import run
from question_fixtures import own_list, released_detection
from remote_fixtures import ok, serving
from talk_fixtures import small_talker


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_talker(tmp_path_factory.mktemp("talker"))


def test_our_model_is_measured_and_a_second_call_asks_nothing(
    talker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, summary = own_list(tmp_path), tmp_path / "run", tmp_path / "summary.json"
    command = ["eval", "reason", "--data", str(data), "--model", str(talker), "--out", str(out), "--no-sbert"]
    command += ["--phrasings", "2", "--max-tokens", "4", "--markdown", "--summary", str(summary)]
    assert run(command) == 0
    shown = capsys.readouterr()
    assert "| asked | always Yes | 2 / 2 | 50.0 |" in shown.out
    assert "**free text" in shown.out
    assert "**choices" in shown.out
    assert f"answers and figures in {out / 'asked'}" in shown.err
    (figures,) = json.loads(summary.read_text())
    assert figures == json.loads((out / "asked" / "metrics.json").read_text())
    assert (figures["counts"]["answered"], figures["speed"]["asked"]) == (16, 16)
    assert run(command) == 0
    assert json.loads((out / "asked" / "metrics.json").read_text())["speed"]["asked"] == 0
    assert run([*command, "--max-tokens", "5"]) == 2
    assert "holds answers given with" in capsys.readouterr().err


def test_an_endpoint_is_measured_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "one.jsonl"
    own_list(tmp_path)
    lines = (tmp_path / "asked.jsonl").read_text().splitlines()
    data.write_text(lines[1] + "\n")
    with serving(*map(ok, ("Yes", "A", "a dent", "a fall", "Score: 3", "Score: 5"))) as server:
        command = ["eval", "reason", "--data", str(data), "--endpoint", server.url, "--endpoint-model", "seer"]
        command += ["--judge", server.url, "--judge-model", "grader", "--parallel", "1", "--no-sbert"]
        assert run(command) == 0
    assert [body["model"] for body in server.bodies] == ["seer"] * 4 + ["grader"] * 2
    out = capsys.readouterr().out
    assert "3.00" in out
    assert "5.00" in out
    assert "judge grader at" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "none.json"], "no questions at none.json"),
        (["--judge", "http://localhost:1/v1"], "--judge needs --judge-model"),
        (["--judge-model", "x"], "add --judge URL"),
        (["--endpoint", "http://localhost:1/v1"], "--endpoint needs --endpoint-model"),
        (["--classes", "nut"], "no class nut"),
        (["--phrasings", "99"], "99 phrasings"),
        (["--phrasings", "2", "--question", "Bad?"], "do not go together"),
        (["--question", " "], "the question is empty"),
        (["--summary", "no/such/file.json"], "no folder no/such"),
        (["--parser", "loose"], "loose"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [] if "--data" in arguments else ["--data", str(released_detection(tmp_path))]
    assert run(["eval", "reason", *data, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_does_not_speak(small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "reason", "--data", str(released_detection(tmp_path)), "--model", str(small_folder)]) == 4
    assert "no language side" in capsys.readouterr().err


def test_an_endpoint_that_refuses_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from remote_fixtures import failing

    with serving(failing(401)) as server:
        command = ["eval", "reason", "--data", str(released_detection(tmp_path)), "--endpoint", server.url]
        assert run([*command, "--endpoint-model", "seer", "--parallel", "1"]) == 6
    assert "does not accept" in capsys.readouterr().err


def test_a_question_in_brackets_is_no_markup(talker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "reason", "--data", str(own_list(tmp_path)), "--model", str(talker), "--no-sbert"]
    assert run([*command, "--limit", "1", "--max-tokens", "2", "--question", "Is [/b] [red]it[/red] bad?"]) == 0
    assert "[red]it[/red]" in " ".join(capsys.readouterr().out.split())
