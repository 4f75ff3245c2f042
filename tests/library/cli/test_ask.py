"""``anomaly-ov ask``: arguments, built-in answers, endpoints, exit codes; and ``inspect --explain``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from anomaly_ov.cli import ask as verb
from anomaly_ov.cli import spoken
from anomaly_ov.cli.main import run
from anomaly_ov.cli.schema import finding_schema
from anomaly_ov.inspector import load
from anomaly_ov.reasoning import chat
from anomaly_ov.records import Answer
from model_fixtures import save_small_model
from remote_fixtures import Scripted, failing, ok, serving, token
from talk_fixtures import small_talker

QUESTION = "Is there a defect?"
MOST = ("--max-tokens", "6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_talker(tmp_path_factory.mktemp("talker") / "model")


@pytest.fixture
def ask(folder: Path) -> Any:
    def call(*args: object) -> int:
        return run(["ask", "--model", str(folder), "--device", "cpu", *MOST, *map(str, args)])

    return call


@pytest.fixture
def ask_remotely(small_folder: Path) -> Any:
    """With a model that does not speak itself."""

    def call(url: str, *args: object) -> int:
        endpoint = ["--endpoint", url, "--endpoint-model", "big"]
        return run(["ask", "--model", str(small_folder), "--device", "cpu", *endpoint, *map(str, args)])

    return call


def records(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    for record in found:
        jsonschema.validate(record, finding_schema())
    return found


class TestArguments:
    @pytest.mark.parametrize(
        ("args", "part"),
        [
            ([], "PATH"),
            (["p0.png"], "the question is missing"),
            (["absent.png", "--json"], "the question is missing"),
            (["."], "the question is missing"),
            ([QUESTION], "the pictures are missing"),
            ([QUESTION, "p0.png"], "the last argument must be the question, p0.png is a path"),
            (["p0.png", "p1.png"], "p1.png is a path"),
            (["p0.png", "."], "the last argument must be the question, . is a path"),
            (["p0.png", "absent.png"], "absent.png is a path"),
            (["p0.png", "Is", "it", "fine?"], "there is no file or folder Is"),
            (["p0.png", "   "], "the question is empty"),
            (["p0.png", QUESTION, "--reading", "fast"], "--reading"),
            (["p0.png", QUESTION, "--max-tokens", "0"], "--max-tokens"),
            (["p0.png", QUESTION, "--endpoint-model", "x"], "--endpoint-model is for an endpoint"),
            (["p0.png", QUESTION, "--crop"], "--crop is for an endpoint"),
            (["p0.png", QUESTION, "--no-logprobs"], "--no-logprobs is for an endpoint"),
            (["p0.png", QUESTION, "--endpoint", "http://h/v1"], "needs --endpoint-model"),
            (["p0.png", QUESTION, "--endpoint", "h", "--endpoint-model", "m"], "--endpoint must be an http"),
            (
                ["p0.png", QUESTION, "--endpoint", "http://h", "--endpoint-model", "m", "--spend-cap", "1"],
                "--spend-cap needs --price-in and --price-out",
            ),
            (["p0.png", QUESTION, "--endpoint", "http://h", "--endpoint-model", "m", "--timeout", "0"], "--timeout"),
            (["p0.png", QUESTION, "--endpoint", "http://h", "--endpoint-model", "m", "--reading", "full"], "--reading"),
            (["p0.png", QUESTION, "--endpoint", "http://h", "--endpoint-model", "m", "--views"], "--views and"),
            (["p0.png", QUESTION, "--views", "--context", "none"], "--views and --references"),
            (["p0.png", QUESTION, "--context", "folder"], "at least 3"),
            (["p0.png", QUESTION, "--references", "folder"], "at least 3"),
            (["*.gif", QUESTION], "nothing matches"),
        ],
    )
    def test_mistakes_are_told_before_a_model_is_loaded(
        self,
        args: list[str],
        part: str,
        pictures: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(pictures)
        monkeypatch.setattr("anomaly_ov.inspector.load", lambda *a, **k: pytest.fail("loaded"))
        assert run(["ask", *args]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        error, hint = captured.err.splitlines()
        assert part in error
        assert hint.startswith("hint: ")

    def test_a_reading_needs_a_language_side(
        self, small_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["ask", str(pictures), QUESTION, "--reading", "full"]
        assert run([*command, "--model", str(small_folder), "--device", "cpu"]) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert error == "error: --reading is for a language side, model 'small' has none"
        assert "anomaly-ov models" in hint

    def test_language_side_without_its_weights(
        self, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = small_talker(tmp_path / "broken")
        (broken / "language" / "model.safetensors").unlink()
        assert run(["ask", str(pictures), QUESTION, "--model", str(broken), "--device", "cpu"]) == 4
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "language" in captured.err

    def test_what_the_model_cannot_be_asked(self, ask: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert ask(pictures / "p0.png", "What is <image>?") == 2
        assert "must not hold <image>" in capsys.readouterr().err


class TestBuiltIn:
    def test_json_holds_the_answers(
        self, ask: Any, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (pictures / "p4.png").write_text("not a picture")
        assert ask(pictures, QUESTION, "--json", "--batch-size", 4) == 3
        captured = capsys.readouterr()
        found = records(captured.out)
        assert [Path(record["id"]).name for record in found] == [f"p{i}.png" for i in range(6)]
        assert (found[4]["answer"], found[4]["error"]["type"]) == (None, "UnreadableImage")
        assert "6 pictures: 5 answered, 1 unreadable" in captured.err
        inspector = load(str(folder), device="cpu")
        for i in (0, 1, 5):
            alone = inspector.inspect(pictures / f"p{i}.png").ask(QUESTION, max_tokens=6)
            assert found[i]["answer"]["text"] == alone.text
            assert found[i]["answer"]["tokens_in"] == alone.tokens_in
            assert found[i]["regions"] is not None

    def test_asks_in_batches(self, ask: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        real = chat.answer_each

        def counted(reasoner: Any, evidence: Any, questions: Any, **options: Any) -> Any:
            sizes.append(len(questions))
            return real(reasoner, evidence, questions, **options)

        monkeypatch.setattr(chat, "answer_each", counted)
        assert ask(pictures, QUESTION, "--batch-size", 4) == 0
        assert sizes == [4, 2]

    def test_text_names_picture_score_and_answer(
        self, ask: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        answer = Answer("Yes.\nA \x1b[31mscratch, " + "long " * 40, 0.876, "length", 10, 5)
        monkeypatch.setattr(chat, "answer_each", lambda *a, **k: [answer])
        assert ask(pictures / "p1.png", QUESTION) == 0
        captured = capsys.readouterr()
        first, *rest = captured.out.splitlines()
        assert first.startswith(f"{pictures / 'p1.png'}: score 0.")
        assert first.endswith("; P(yes) 0.88")
        assert rest[0] == "  Yes."
        assert rest[1].startswith("  A [31mscratch, long")
        assert len(rest) == 5
        assert all(len(line) <= spoken.MAX_WIDTH and line.startswith("  ") for line in rest)
        assert rest[-2].endswith("[...]")
        assert rest[-1].startswith("  [This contradicts the record: the image is not anomalous (score 0.")
        assert "may be wrong" in captured.err

    def test_missing_picture_is_a_record(self, ask: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert ask(pictures / "absent.png", pictures / "p1.png", QUESTION, "--json") == 3
        captured = capsys.readouterr()
        absent, there = records(captured.out)
        assert absent["error"]["type"] == "UnreadableImage"
        assert there["answer"]["text"]
        assert sum(line.startswith("error: ") for line in captured.err.splitlines()) == 1

    def test_readings_differ_in_length(self, ask: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lengths = []
        for reading in ("full", "focus"):
            assert ask(pictures / "p4.png", QUESTION, "--json", "--reading", reading) == 0
            lengths.append(records(capsys.readouterr().out)[0]["answer"]["tokens_in"])
        assert lengths[0] > lengths[1]

    def test_limit_and_context(self, ask: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        good = pictures / "p0.png"
        assert ask(pictures, QUESTION, "--json", "--limit", 2, "--context", good) == 0
        captured = capsys.readouterr()
        found = records(captured.out)
        assert [record["context"]["kind"] for record in found] == ["references"] * 2
        assert "context: 1 good picture" in captured.err

    def test_views_get_one_answer(
        self, ask: Any, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        paths = [pictures / "p1.png", pictures / "p2.png"]
        assert ask(*paths, QUESTION, "--views", "--json") == 0
        found = records(capsys.readouterr().out)
        inspector = load(str(folder), device="cpu")
        expected = inspector.chat(paths, views=True).ask(QUESTION, max_tokens=6)
        assert [record["answer"]["text"] for record in found] == [expected.text] * 2
        assert [record["score"] for record in found] == [one.score for one in inspector.inspect_views(paths)]
        assert ask(*paths, QUESTION, "--views") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines[:2]] == [str(path) for path in paths]
        assert lines[2].startswith("all 2 views together")
        assert ask(*paths, pictures / "absent.png", QUESTION, "--views") == 3

    def test_interruption_says_how_far(
        self, ask: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        real, calls = chat.answer_each, []

        def interrupted(*args: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(*args, **options)

        monkeypatch.setattr(chat, "answer_each", interrupted)
        assert ask(pictures, QUESTION, "--json", "--batch-size", 1) == 130
        captured = capsys.readouterr()
        assert len(records(captured.out)) == 2
        assert "2 of 6 pictures done" in captured.err

    def test_out_of_memory(
        self, ask: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def full(*args: Any, **options: Any) -> Any:
            raise RuntimeError("CUDA out of memory")

        monkeypatch.setattr(chat, "answer_each", full)
        assert ask(pictures, QUESTION) == 5
        assert "--batch-size" in capsys.readouterr().err

    def test_what_is_printed_stays_out_of_the_bar(
        self, ask: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With the bar on a terminal and stdout in a file, answers go into the file."""
        from anomaly_ov.cli import console

        monkeypatch.setattr(console, "BAR_AFTER_S", -1)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        assert ask(pictures, QUESTION) == 0
        captured = capsys.readouterr()
        assert captured.out.count(": score ") == 6
        assert "asking" in captured.err


class TestFromRecord:
    """With a model that does not speak."""

    @pytest.fixture
    def ask_record(self, small_folder: Path) -> Any:
        return lambda *args: run(["ask", "--model", str(small_folder), "--device", "cpu", *map(str, args)])

    def test_json_holds_what_the_records_say(
        self, ask_record: Any, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (pictures / "p4.png").write_text("not a picture")
        assert ask_record(pictures, QUESTION, "--json", "--context", "none") == 3
        captured = capsys.readouterr()
        found = records(captured.out)
        assert [record["answer"] is None for record in found] == [i == 4 for i in range(6)]
        for record in found[:4]:
            said = record["answer"]
            assert said["text"].startswith("Yes, " if record["anomalous"] else "No, ")
            assert f"{record['score']:.3f}" in said["text"]
            assert (said["p_yes"] >= 0.5) is record["anomalous"]
            assert (said["finish"], said["tokens_in"], said["tokens_out"]) == ("stop", None, None)
        assert "6 pictures: 5 answered, 1 unreadable" in captured.err

    def test_it_is_said_once_where_answers_come_from(
        self, ask_record: Any, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert ask_record(pictures, "Who won the cup?", "--context", "none") == 0
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        assert sum(line.startswith(f"{pictures}") for line in lines) == 6
        assert sum("The record of this image does not answer that" in line for line in lines) == 6
        assert captured.err.count("answers are taken from the record") == 1
        assert "--endpoint URL" in captured.err
        assert "may be wrong" not in captured.err

    def test_views_get_one_answer(self, ask_record: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paths = [pictures / "p1.png", pictures / "p2.png"]
        assert ask_record(*paths, QUESTION, "--views", "--json") == 0
        first, second = records(capsys.readouterr().out)
        assert first["answer"] == second["answer"]
        best = 1 if first["score"] >= second["score"] else 2
        assert f"This is view {best} of 2, the one with the highest score." in first["answer"]["text"]
        assert ask_record(*paths, QUESTION, "--views") == 0
        captured = capsys.readouterr()
        assert captured.out.splitlines()[2].startswith("all 2 views together; P(yes) 0.")
        assert "may be wrong" not in captured.err

    def test_anomalous_pictures_are_explained(
        self, small_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores = sorted(one.score for one in load(str(small_folder), device="cpu").stream(pictures))
        command = ["inspect", str(pictures), "--explain", "--model", str(small_folder), "--device", "cpu"]
        options = ["--threshold", str((scores[2] + scores[3]) / 2), "--context", "none"]
        assert run([*command, *options, "--json"]) == 0
        captured = capsys.readouterr()
        found = records(captured.out)
        assert sum(bool(record["anomalous"]) for record in found) == 3
        for record in found:
            assert (record["answer"] is not None) is record["anomalous"]
            if record["anomalous"]:
                assert record["answer"]["text"].startswith(f"The image is anomalous (score {record['score']:.3f}")
        assert captured.err.count("answers are taken from the record") == 1
        assert "3 explained\n" in captured.err
        assert run([*command, *options]) == 0
        assert capsys.readouterr().out.count("  The image is anomalous (score") == 3


class TestEndpoint:
    def test_is_sent_the_picture_and_what_was_found(
        self, ask_remotely: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this-machine")
        yes = [token("Yes", -0.1, ("No", -2.4))]
        with serving(ok("Yes, a dent."), ok("Yes.", logprobs=yes)) as server:
            options = ["--crop", "--image-side", 64, "--max-tokens", 33, "--price-in", 1, "--price-out", 2]
            assert ask_remotely(server.url, pictures / "p0.png", pictures / "p1.png", QUESTION, "--json", *options) == 0
        captured = capsys.readouterr()
        first, second = records(captured.out)
        assert first["answer"]["text"] == "Yes, a dent."
        assert second["answer"]["p_yes"] == pytest.approx(np.exp(-0.1) / (np.exp(-0.1) + np.exp(-2.4)))
        body = server.bodies[0]
        assert (body["model"], body["max_tokens"], body["logprobs"], body["temperature"]) == ("big", 33, True, 0.0)
        parts = body["messages"][1]["content"]
        assert f"Score {first['score']:.2f}" in parts[0]["text"]
        assert parts[-1]["text"] == QUESTION
        assert "sk-not-for-this-machine" not in str(server.headers)  # a local server gets no key unasked
        assert f"big at {server.url}, 0.000268 spent" in captured.err

    def test_leaves_out_what_a_server_does_not_know(self, ask_remotely: Any, pictures: Path) -> None:
        with serving(ok()) as server:
            options = ["--no-logprobs", "--no-temperature"]
            assert ask_remotely(server.url, pictures / "p0.png", QUESTION, *options) == 0
        assert not {"logprobs", "top_logprobs", "temperature"} & server.bodies[0].keys()

    def test_one_failure_does_not_stop_the_run(
        self, ask_remotely: Any, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(ok(), failing(400, "temperature must be 1"), ok()) as server:
            assert ask_remotely(server.url, *(pictures / f"p{i}.png" for i in range(3)), QUESTION, "--json") == 6
        captured = capsys.readouterr()
        found = records(captured.out)
        assert [record["answer"] is not None for record in found] == [True, False, True]
        assert found[1]["score"] is not None
        assert found[1]["error"]["type"] == "EndpointError"
        assert "hint: add --no-temperature" in captured.err
        assert "3 pictures: 2 answered, 1 without an answer" in captured.err

    def test_unreadable_pictures_are_not_sent(self, ask_remotely: Any, pictures: Path) -> None:
        (pictures / "p0.png").write_text("not a picture")
        with serving(ok()) as server:
            assert ask_remotely(server.url, pictures / "p0.png", pictures / "p1.png", QUESTION) == 3
        assert len(server.bodies) == 1

    @pytest.mark.parametrize(
        ("refusal", "options", "part"),
        [
            (failing(401), [], "does not accept"),
            (ok(usage=(900_000, 5)), ["--spend-cap", 1, "--price-in", 1, "--price-out", 1], "raise --spend-cap"),
        ],
    )
    def test_a_refusal_stops_and_keeps_what_is_done(
        self,
        refusal: Scripted,
        options: list[object],
        part: str,
        ask_remotely: Any,
        pictures: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        script = [ok(), refusal] if refusal.status != 200 else [refusal]
        with serving(*script) as server:
            assert ask_remotely(server.url, pictures, QUESTION, "--json", *options) == 6
            assert len(server.bodies) == len(script)
        captured = capsys.readouterr()
        assert len(records(captured.out)) == 1
        assert "stopped: 1 of 6 pictures done" in captured.err
        assert part in captured.err

    def test_a_key_that_is_not_there(
        self, ask_remotely: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert ask_remotely("http://api.example.invalid/v1", pictures, QUESTION) == 2
        assert "export OPENAI_API_KEY=..., or give --api-key-env ''" in capsys.readouterr().err


class TestExplain:
    @pytest.fixture
    def mixed(self, tmp_path: Path, pictures: Path) -> tuple[Path, float]:
        """A model that speaks, and a threshold between its scores."""
        model = save_small_model(small_talker(tmp_path / "model"))
        scores = sorted(finding.score for finding in load(str(model), device="cpu").stream(pictures))
        return model, (scores[2] + scores[3]) / 2

    def test_only_what_is_anomalous(
        self, mixed: tuple[Path, float], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model, threshold = mixed
        (pictures / "bad.png").write_text("not a picture")
        command = ["inspect", str(pictures), "--explain", "--model", str(model), "--device", "cpu"]
        options = ["--threshold", str(threshold), "--out", str(tmp_path / "out"), "--no-overlay"]
        assert run([*command, *options, "--json"]) == 3
        captured = capsys.readouterr()
        found = records(captured.out)
        assert [record["answer"] is not None for record in found] == [bool(record["anomalous"]) for record in found]
        assert sum(record["answer"] is not None for record in found) == 3
        assert records((tmp_path / "out" / "findings.jsonl").read_text()) == found
        assert "3 explained" in captured.err
        assert run([*command, *options]) == 3
        lines = capsys.readouterr().out.splitlines()
        for record in found:
            below = record["id"] in lines  # a line of its own, below the table
            assert below is (record["answer"] is not None)

    def test_overlays_are_drawn_all_the_same(self, folder: Path, pictures: Path, tmp_path: Path) -> None:
        command = ["inspect", str(pictures / "p1.png"), "--explain", "--model", str(folder), "--device", "cpu"]
        assert run([*command, "--threshold", "0", "--out", str(tmp_path / "out")]) == 0
        assert run([*command[:2], *command[3:], "--threshold", "0", "--out", str(tmp_path / "plain")]) == 0
        assert (tmp_path / "out" / "p1.overlay.png").read_bytes() == (
            tmp_path / "plain" / "p1.overlay.png"
        ).read_bytes()


def test_exit_code_prefers_the_endpoints() -> None:
    tally = verb.Tally(done=3, answered=1, unreadable=1)
    assert tally.exit_code == 6
    assert verb.Tally(done=2, answered=1, unreadable=1).exit_code == 3
    assert verb.Tally(done=2, answered=2).exit_code == 0
