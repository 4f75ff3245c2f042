"""``anomaly-ov serve``: what it hands on, every wrong argument in one line with a next step, and how it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import anomaly_ov.inspector
import anomaly_ov_server.run
from anomaly_ov.cli.main import run
from anomaly_ov_server import cli as verb
from serving_core_fixtures import FakeInspector, png

Serve = Callable[..., int]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """The verb with a data folder, any free port and no networks to load."""
    monkeypatch.setattr(anomaly_ov.inspector, "load", lambda *_, **__: FakeInspector())
    monkeypatch.delenv(verb.TOKEN_VARIABLE, raising=False)

    def call(*args: object, data: Path | None = None) -> int:
        return run(["serve", "--port", "0", "--data", str(data or tmp_path / "data"), *map(str, args)])

    return call


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be run, and nothing is."""
    calls: list[tuple[Any, ...]] = []

    def take(inspector: Any, settings: Any, first: Any = (), *, name: str, say: Any) -> None:
        calls.append((settings, [source.id for source in first], name))

    monkeypatch.setattr(anomaly_ov_server.run, "run", take)
    return calls


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The error and its hint, which are all there is."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("warning: ")]
    assert captured.out == ""
    assert [line.partition(": ")[0] for line in lines] == ["error", "hint"], lines
    return lines[0], lines[1]


def test_options_reach_the_service(
    serve: Serve, handed_on: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("sesame-sesame-sesame\n")
    (tmp_path / "a.png").write_bytes(png())
    options = ["--allow-host", "line3.example", "--remote-images", "--batch-size", "4"]
    assert serve(tmp_path / "a.png", "--host", "0.0.0.0", "--token-file", tmp_path / "token", *options) == 0
    settings, first, name = handed_on[0]
    assert (first, name) == ([str(tmp_path / "a.png")], "a.png")
    assert (settings.token, settings.allowed_hosts) == ("sesame-sesame-sesame", ("line3.example",))
    assert (settings.host, settings.batch_size, settings.remote_images) == ("0.0.0.0", 4, True)
    assert capsys.readouterr().err == f"stopped; pictures, findings and decisions are kept in {tmp_path / 'data'}\n"


def test_a_batch_is_called_after_what_was_named(
    serve: Serve, handed_on: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "scans" / name).write_bytes(png())
    assert serve(tmp_path / "scans" / "a.png", tmp_path / "scans" / "b.png") == 0
    monkeypatch.chdir(tmp_path / "scans")
    assert serve(".") == 0
    assert serve() == 0
    assert [name for _, _, name in handed_on] == ["scans", "scans", "From the command line"]


@pytest.mark.parametrize(("host", "open_door"), [("localhost", False), ("127.0.0.2", False), ("0.0.0.0", True)])
def test_an_open_door_is_warned_of_unless_there_is_a_token(
    serve: Serve,
    handed_on: list[tuple[Any, ...]],
    host: str,
    open_door: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert serve("--host", host) == 0
    assert ("may see and change" in capsys.readouterr().err) is open_door
    monkeypatch.setenv(verb.TOKEN_VARIABLE, "sesame-sesame-sesame")
    assert serve("--host", host) == 0
    assert "warning" not in capsys.readouterr().err
    assert handed_on[-1][0].token == "sesame-sesame-sesame"


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["none.jpg"], "no such picture: none.jpg", "files, folders or quoted globs"),
        (["a.jpg", "b.jpg", "c.jpg", "d.jpg"], "no such picture: a.jpg, b.jpg, c.jpg, ...", "globs"),
        (["*.nothing"], "*.nothing", ""),
        (["--host", "no.such.name.invalid"], "cannot listen on --host no.such.name.invalid", "0.0.0.0"),
        (["--host", "a..b"], "cannot listen on --host a..b", "127.0.0.1"),
        (["--port", "70000"], "--port", "serve --help"),
        (["--batch-size", "0"], "--batch-size", "serve --help"),
        (["--token-file", "none.txt"], "cannot read the token in none.txt: No such file or directory", "one line"),
        (["--token-file", "empty.txt"], "empty.txt holds no token", "16 characters"),
        (["--token-file", "words.txt"], "words.txt holds more than one word", "one word"),
        (["--token-file", "noise.txt"], "cannot read the token in noise.txt: it is no text", "one line"),
        (["--token-file", "accents.txt"], "other than ASCII", "16 letters"),
    ],
)
def test_wrong_arguments_before_anything_is_loaded_or_made(
    serve: Serve,
    args: list[str],
    error: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(anomaly_ov.inspector, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    for name, text in {"empty": b"\n", "words": b"one two", "noise": b"\xff\xfe\xff", "accents": "é".encode()}.items():
        (tmp_path / f"{name}.txt").write_bytes(text)
    assert serve(*args) == 2
    said, next_step = told(capsys)
    assert error in said
    assert hint in next_step
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("args", "code", "error"),
    [
        (["--model", "nobody"], 4, "no model called 'nobody'"),
        (["--threshold", "3"], 2, "must lie in 0..1"),
        (["--threshold", "none.json"], 2, "neither a number nor a file"),
        (["--threshold", "broken.json"], 2, "not valid JSON"),
        (["--device", "cuda:99"], 5, "cuda:99"),
    ],
)
def test_wrong_models_and_thresholds(
    small_folder: Path,
    args: list[str],
    code: int,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text('{"threshold":')
    assert run(["serve", "--data", str(tmp_path / "data"), "--port", "0", "--model", str(small_folder), *args]) == code
    assert error in told(capsys)[0]
    assert not (tmp_path / "data").exists()


def test_a_missing_extra_names_the_line_to_install(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert serve() == 4
    assert told(capsys) == (
        "error: this needs the package 'uvicorn', which is not installed",
        'hint: pip install "anomaly-ov[server]"',
    )


def test_a_port_that_is_taken_leaves_no_folder(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serve("--port", port) == 2
    error, hint = told(capsys)
    assert f"cannot listen on 127.0.0.1 port {port}" in error
    assert "--port" in hint
    assert not (tmp_path / "data").exists()


def test_data_folders_that_cannot_be_used(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert serve(data=tmp_path / "file") == 2
    assert "is a file" in told(capsys)[0]
    assert serve(data=tmp_path / "file" / "below") == 2
    assert "cannot use data folder" in told(capsys)[0]
    assert (tmp_path / "file").read_text() == "mine"
    # Nobody, root included, can make a folder there.
    assert serve(data=Path("/proc/anomaly-ov-data")) == 2
    error, hint = told(capsys)
    assert "cannot use data folder /proc/anomaly-ov-data" in error
    assert "--data" in hint


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_says_where_things_are(
    serve: Serve, tmp_path: Path, sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs, its folder belongs to it; afterwards to whoever wants it, with what was in it."""
    said: list[str] = []
    second: list[int] = []

    def note(line: str) -> None:
        said.append(line)
        if line.startswith("open http://127.0.0.1:"):
            second.append(in_another_process(tmp_path / "data") if sent == signal.SIGINT else 2)
            os.kill(os.getpid(), sent)

    monkeypatch.setattr(verb, "note", note)
    (tmp_path / "a.png").write_bytes(png())
    assert serve(tmp_path / "a.png") == 0
    assert said[-1] == f"stopped; pictures, findings and decisions are kept in {tmp_path / 'data'}"
    assert second == [2]
    assert len(list((tmp_path / "data" / "pictures").glob("*/*"))) == 1
    said.clear()
    assert serve(tmp_path / "a.png") == 0
    assert len(list((tmp_path / "data" / "pictures").glob("*/*"))) == 1


def in_another_process(data: Path) -> int:
    """Exit code of an attempt to use the same folder."""
    code = (
        "import sys; from pathlib import Path; from anomaly_ov.errors import UsageError\n"
        "from anomaly_ov_server.store.folder import Folder\n"
        "try: Folder(Path(sys.argv[1]), 0)\n"
        "except UsageError as error: sys.exit(error.exit_code if 'in use by another process' in str(error) else 1)"
    )
    return subprocess.run([sys.executable, "-c", code, str(data)], check=False).returncode
