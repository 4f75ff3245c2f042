"""``anomaly-ov models``."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov.cli.main import run
from anomaly_ov.models import hub
from talk_fixtures import small_talker


@pytest.mark.parametrize("args", [["models"], ["models", "list"]])
def test_list_shows_size_revision_and_description(
    args: list[str], small_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "available", lambda: [hub.Available("small", small_folder, "a small one")])
    assert run(args) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "size", "revision", "speaks", "description"]
    assert row.split()[0] == "small"
    assert " MB " in row
    assert " test " in row
    assert "a small one" in row


def test_show_prints_the_card(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", str(small_folder)]) == 0
    assert capsys.readouterr().out.strip() == (small_folder / "README.md").read_text().strip()


def test_show_of_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "no-such-model"]) == 4
    assert "no-such-model" in capsys.readouterr().err


def test_convert_refuses_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "expert.pth").write_bytes(b"not a checkpoint")
    assert run(["models", "convert", str(tmp_path / "expert.pth"), "--out", str(tmp_path / "out")]) == 4
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.startswith("error: ")


def test_convert_with_an_encoder_makes_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Path, Path, str]] = []

    def converted(path: Path, out: Path, encoder: str) -> Path:
        calls.append((path, out, encoder))
        return out

    monkeypatch.setattr("anomaly_ov.models.convert.convert_model", converted)
    assert run(["models", "convert", "e.pth", "--out", str(tmp_path / "m"), "--encoder", "siglip"]) == 0
    assert calls == [(Path("e.pth"), tmp_path / "m", "siglip")]
    assert capsys.readouterr().err == f"written to {tmp_path / 'm'}\n"


def test_convert_of_a_folder_makes_a_model_that_talks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Path, Path, dict[str, object]]] = []

    def converted(checkpoint: Path, out: Path, **options: object) -> Path:
        calls.append((checkpoint, out, options))
        return out

    monkeypatch.setattr("anomaly_ov.reasoning.convert.convert_llava", converted)
    out = tmp_path / "m"
    assert run(["models", "convert", str(tmp_path), "--out", str(out), "--expert", "e.pth"]) == 0
    assert capsys.readouterr().err == f"written to {out}\n"
    defaults = {"encoder": None, "dtype": "bfloat16", "levels": None, "final": None}
    assert calls.pop() == (tmp_path, out, defaults | {"expert": Path("e.pth")})
    options = ["--encoder", "siglip", "--dtype", "float16", "--levels", "1,2", "--final", "3"]
    assert run(["models", "convert", str(tmp_path), "--out", str(out), *options]) == 0
    given = {"expert": None, "encoder": "siglip", "dtype": "float16", "levels": (1, 2), "final": 3}
    assert calls.pop() == (tmp_path, out, given)


@pytest.mark.parametrize("option", [["--expert", "e.pth"], ["--dtype", "float16"], ["--levels", "1"], ["--final", "2"]])
def test_what_is_for_folders_is_refused_for_a_file(
    tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "expert.pth").write_bytes(b"an expert")
    out = tmp_path / "out"
    assert run(["models", "convert", str(tmp_path / "expert.pth"), "--out", str(out), *option]) == 2
    assert "are for the folder of a language model" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_no_checkpoint_and_levels_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    command = ["models", "convert", str(checkpoint), "--out", str(tmp_path / "out")]
    assert run(command) == 4
    assert "config.json is missing" in capsys.readouterr().err
    (checkpoint / "config.json").write_text('{"model_type": "llama"}')
    assert run(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "model_type = 'llama'" in error
    assert "llava_qwen" in error  # the hint
    assert run([*command, "--levels", "one"]) == 2
    assert "--levels one is no list of numbers" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_list_says_which_speak(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talker = small_talker(tmp_path / "talker")
    found = [hub.Available("mute", small_folder, "sees"), hub.Available("talker", talker, "sees and speaks")]
    monkeypatch.setattr(hub, "available", lambda: found)
    assert run(["models"]) == 0
    _, mute, speaking = capsys.readouterr().out.splitlines()
    assert mute.split()[4] == "no"
    assert speaking.split()[4] == "yes"
