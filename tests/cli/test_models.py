"""``anomaly-ov models``."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov.cli.main import run
from anomaly_ov.models import hub


@pytest.mark.parametrize("args", [["models"], ["models", "list"]])
def test_list_shows_size_revision_and_description(
    args: list[str], small_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "available", lambda: [hub.Available("small", small_folder, "a small one")])
    assert run(args) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "size", "revision", "description"]
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
