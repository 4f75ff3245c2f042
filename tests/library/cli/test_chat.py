"""``anomaly-ov chat``: questions through a pipe and from the keyboard, commands, endpoints, exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.cli import chat as verb
from anomaly_ov.cli import spoken
from anomaly_ov.cli.main import run
from anomaly_ov.inspector import load
from anomaly_ov.reasoning.chat import Chat
from anomaly_ov.records import Answer
from anomaly_ov.words.from_record import REFUSAL, answer
from remote_fixtures import chunk, failing, serving, streamed
from talk_fixtures import small_talker

MOST = ("--max-tokens", "6")
FIRST, SECOND = "Is there a defect?", "Where is it?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_talker(tmp_path_factory.mktemp("talker") / "model")


Talk = Callable[..., int]


@pytest.fixture
def talk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Runs ``chat`` with ``lines`` on standard input."""

    def call(lines: str | bytes, *args: object, model: Path = folder) -> int:
        data = lines.encode() if isinstance(lines, str) else lines
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return run(["chat", "--model", str(model), "--device", "cpu", *MOST, *map(str, args)])

    return call


def spoken_after(out: str) -> dict[str, list[str]]:
    """The lines that follow each question."""
    found: dict[str, list[str]] = {}
    said: list[str] = []
    for line in out.splitlines():
        if line.startswith("> "):
            said = found.setdefault(line[2:], [])
        else:
            said.append(line)
    return found


def test_a_conversation_through_a_pipe(
    talk: Talk, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictures / "p1.png"
    assert talk(f"{FIRST}\n{SECOND}\n", path) == 0
    captured = capsys.readouterr()
    said = spoken_after(captured.out)
    expected = load(str(folder), device="cpu").chat(path)
    for question in (FIRST, SECOND):
        (line,) = said[question]
        assert line.split(" [")[0].strip() == spoken.clean(expected.ask(question, max_tokens=6).text)
    assert captured.err.count("may be wrong") == 1


def test_the_finding_stands_above(talk: Talk, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pictures / "p1.png"
    assert talk("", path) == 0
    first, second = capsys.readouterr().out.splitlines()
    finding = load(str(folder), device="cpu").inspect(path)
    assert first.startswith(f"{path} (96 x 64): score {finding.score:.3f}, threshold ")
    assert first.endswith(f"{finding.level} suspicious")
    count = len(finding.regions)
    assert second.strip().startswith(f"{count} suspicious region" if count else "no region stands out")


def test_commands(talk: Talk, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [FIRST, SECOND, "/help", "/nonsense", "/new", "/quit", "never asked"]
    assert talk("\n".join(lines), pictures / "p1.png") == 0
    captured = capsys.readouterr()
    assert "/new   forget" in captured.err
    assert "there is no /nonsense" in captured.err
    assert "forgotten" in captured.err
    assert "never asked" not in captured.out


def test_new_forgets(talk: Talk, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[int] = []
    real = Chat.ask

    def watched(self: Chat, question: str, **options: Any) -> Answer:
        known.append(len(self.history))
        return real(self, question, **options)

    monkeypatch.setattr(Chat, "ask", watched)
    assert talk(f"{FIRST}\n{SECOND}\n/new\n{FIRST}\n", pictures / "p1.png") == 0
    assert known == [0, 2, 0]


def test_an_empty_line_ends(talk: Talk, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert talk(f"{FIRST}\n\n{SECOND}\n", pictures / "p1.png") == 0
    assert SECOND not in capsys.readouterr().out


def test_a_question_that_fails_does_not_end_it(talk: Talk, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert talk(f"What is <image>?\n{FIRST}\n", pictures / "p1.png") == 2
    captured = capsys.readouterr()
    assert "must not hold <image>" in captured.err
    assert spoken_after(captured.out)[FIRST]


def test_broken_characters_are_no_bug(talk: Talk, pictures: Path) -> None:
    assert talk(b"Is \xff\xfe there a defect?\n", pictures / "p1.png") == 0


def test_an_answer_cannot_steer_the_terminal(
    talk: Talk, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(self: Chat, question: str, *, on_text: Callable[[str], None], **options: Any) -> Answer:
        on_text("\x1b[2Jgone\r\u202e")
        return Answer("gone", 0.25, "stop")

    monkeypatch.setattr(Chat, "ask", said)
    assert talk(f"{FIRST}\n", pictures / "p1.png") == 0
    assert spoken_after(capsys.readouterr().out)[FIRST] == ["[2Jgone  [P(yes) 0.25]"]


class TestPictures:
    def test_several_views(self, talk: Talk, folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paths = [pictures / "p1.png", pictures / "p2.png"]
        assert talk(f"{FIRST}\n", *paths, "--views") == 0
        out = capsys.readouterr().out
        assert [line.split(" (")[0] for line in out.splitlines()[:3:2]] == [str(path) for path in paths]
        expected = load(str(folder), device="cpu").chat(paths, views=True).ask(FIRST, max_tokens=6)
        assert spoken_after(out)[FIRST][0].split(" [")[0].strip() == spoken.clean(expected.text)

    def test_pages_are_views(self, talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pages = [Image.fromarray(np.full((20, 30, 3), 60 * k, np.uint8)) for k in range(3)]
        pages[0].save(tmp_path / "turn.tif", save_all=True, append_images=pages[1:])
        assert talk("", tmp_path / "turn.tif") == 2
        assert "3 pictures" in capsys.readouterr().err
        assert talk(f"{FIRST}\n", tmp_path / "turn.tif", "--views") == 0
        assert capsys.readouterr().out.count("#page=") == 3

    def test_good_pictures_as_context(self, talk: Talk, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert talk("", pictures / "p1.png", "--context", pictures / "p0.png") == 0
        assert "context: 1 good picture" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("args", "code", "part"),
        [
            (["p0.png", "p1.png"], 2, "add --views"),
            (["."], 2, "6 pictures"),
            (["-"], 2, "standard input"),
            (["absent.png"], 3, "absent.png"),
            (["p0.png", "absent.png", "--views"], 3, "absent.png"),
            (["p0.png", "--views", "--context", "p1.png"], 2, "--views and --references"),
            (["p0.png", "--context", "auto"], 2, "no context for itself"),
            (["p0.png", "--references", "auto"], 2, "no context for itself"),
            (["p0.png", "--crop"], 2, "--crop is for an endpoint"),
            ([], 2, "IMAGE"),
        ],
    )
    def test_mistakes(
        self,
        args: list[str],
        code: int,
        part: str,
        talk: Talk,
        folder: Path,
        pictures: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(pictures)
        assert (talk("", *args) if args else run(["chat"])) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert part in captured.err

    def test_model_that_does_not_speak(
        self, talk: Talk, small_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Answers from the record, and says so once, in place of the warning."""
        assert talk(f"{FIRST}\nWhere?\n/new\nWho won?\n", pictures / "p0.png", model=small_folder) == 0
        captured = capsys.readouterr()
        said = spoken_after(captured.out)
        finding = load(str(small_folder), device="cpu").inspect(pictures / "p0.png")
        expected = answer(finding, FIRST)
        assert said[FIRST] == [f"{expected.text} [P(yes) {expected.p_yes:.2f}]"]
        assert said["Where?"][0].rstrip() == answer(finding, "Where?").text
        assert said["Who won?"][0].rstrip() == REFUSAL
        assert captured.err.count("answers are taken from the record") == 1
        assert "/help for help" in captured.err
        assert "may be wrong" not in captured.err


class TestKeyboard:
    @pytest.fixture
    def typed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
        """Lines as ``input`` gives them; an exception among them is raised."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        def call(lines: list[str | type[BaseException]], *args: object) -> int:
            upcoming = iter(lines)

            def read(prompt: str) -> str:
                assert prompt == verb.PROMPT
                line = next(upcoming)
                if isinstance(line, str):
                    return line
                raise line

            monkeypatch.setattr(sys, "stdin", Terminal())
            monkeypatch.setattr("builtins.input", read)
            code = run(["chat", "--model", str(folder), "--device", "cpu", *MOST, *map(str, args)])
            assert next(upcoming, None) is None, "all lines were read"
            return code

        return call

    def test_control_c_stops_the_answer_only(
        self, typed: Talk, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        real, calls = Chat.ask, []

        def stopped(self: Chat, question: str, **options: Any) -> Answer:
            calls.append(question)
            if len(calls) == 1:
                options["on_text"]("It is ")
                raise KeyboardInterrupt
            return real(self, question, **options)

        monkeypatch.setattr(Chat, "ask", stopped)
        assert typed([FIRST, KeyboardInterrupt, SECOND, EOFError], pictures / "p1.png") == 0
        captured = capsys.readouterr()
        assert "It is  [stopped]" in captured.out
        assert calls == [FIRST, SECOND]
        assert "Ctrl-D ends" in captured.err

    @pytest.mark.parametrize("end", [EOFError, "", "/quit"])
    def test_ends(self, end: Any, typed: Talk, pictures: Path) -> None:
        assert typed([end], pictures / "p1.png") == 0


class TestEndpoint:
    def call(self, talk: Talk, lines: str, url: str, picture: Path, model: Path) -> int:
        return talk(lines, picture, "--endpoint", url, "--endpoint-model", "big", model=model)

    def test_streams_and_remembers(
        self, talk: Talk, small_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = streamed(chunk("Yes, "), chunk("a dent."), chunk(finish="stop"))
        script = [said, streamed(chunk("Left."), chunk(finish="stop")), said]
        with serving(*script) as server:
            lines = f"{FIRST}\n{SECOND}\n/new\n{FIRST}\n"
            assert self.call(talk, lines, server.url, pictures / "p1.png", small_folder) == 0
        assert spoken_after(capsys.readouterr().out)[SECOND] == ["Left."]
        assert [len(body["messages"]) for body in server.bodies] == [2, 4, 2]
        assert server.bodies[1]["messages"][2] == {"role": "assistant", "content": "Yes, a dent."}
        assert all(body["stream"] for body in server.bodies)

    def test_a_failure_is_told_and_the_conversation_goes_on(
        self, talk: Talk, small_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = streamed(chunk("Ye"), done=False)
        with serving(broken, streamed(chunk("Left."), chunk(finish="stop"))) as server:
            assert self.call(talk, f"{FIRST}\n{SECOND}\n", server.url, pictures / "p1.png", small_folder) == 6
        captured = capsys.readouterr()
        assert "broke off" in captured.err
        assert spoken_after(captured.out) == {FIRST: ["Ye"], SECOND: ["Left."]}
        assert len(server.bodies[1]["messages"]) == 2  # what failed is no part of the conversation

    def test_a_refusal_ends_it(
        self, talk: Talk, small_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(failing(401)) as server:
            assert self.call(talk, f"{FIRST}\n{SECOND}\n", server.url, pictures / "p1.png", small_folder) == 6
        assert len(server.bodies) == 1
        assert "does not accept" in capsys.readouterr().err
