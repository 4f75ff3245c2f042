"""``anomaly-ov calibrate``, and ``inspect --threshold`` with what it wrote."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.cli.main import run


def _pictures(folder: Path, count: int, seed: int, size: int = 32) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return _pictures(tmp_path / "good", 12, 1)


@pytest.fixture
def calibrate(small_folder: Path, good: Path, tmp_path: Path) -> Any:
    def call(*args: object, out: bool = True) -> int:
        target = ["--out", str(tmp_path / "t.json")] if out else []
        given = ["--model", str(small_folder), "--device", "cpu", "--max-false-alarms", "0.1", *target]
        return run(["calibrate", str(good), *given, *map(str, args)])

    return call


def _written(tmp_path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((tmp_path / "t.json").read_text())
    return values


def test_what_it_finds_and_says(
    calibrate: Any, good: Path, tmp_path: Path, small_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = _pictures(tmp_path / "bad", 5, 2)
    shutil.copy(good / "0.png", good / "copy.png")
    assert calibrate("--bad", bad) == 0
    captured = capsys.readouterr()
    values = _written(tmp_path)
    assert (values["schema"], values["n"], values["k"]) == ("anomaly-ov.threshold/1", 12, 12)
    assert values["left_out"] == {"copies": 1, "references": 0, "unreadable": 0}
    assert values["expected_false_alarms"] == pytest.approx(1 / 13)
    assert values["recall"]["n"] == 5
    assert "12 distinct good pictures; left out: 1 copies" in captured.out
    assert "at most 10 % of new good pictures" in captured.out
    assert "with 95 % certainty" in captured.out
    assert "--threshold" in captured.err
    command = ["inspect", str(good), "--model", str(small_folder), "--device", "cpu", "--json"]
    assert run([*command, "--threshold", str(tmp_path / "t.json")]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["threshold"]["value"] for record in records} == {values["value"]}
    assert records[0]["threshold"]["source"].startswith("conformal on 12 good pictures")
    assert {record["context"]["kind"] for record in records} == {"none"}
    assert not any(record["anomalous"] for record in records)


def test_too_few_are_named_before_the_model_is_loaded(
    calibrate: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly_ov.inspector.load", lambda *_: pytest.fail("loaded"))
    assert calibrate("--max-false-alarms", "0.01") == 2
    error = capsys.readouterr().err
    assert "need 99 distinct good pictures; the 12 at hand can guarantee 0.077" in error
    assert "give 87 more, or --max-false-alarms 0.077" in error
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--context", "folder"], "a folder's scores depend on its other pictures"),
        (["--references", "auto"], "a folder's scores depend on its other pictures"),
        (["--max-false-alarms", "0"], "between 0 and 1"),
        (["--max-false-alarms", "nan"], "between 0 and 1"),
        (["--out", "no/such/folder.json"], "lies in no folder that is there"),
        (["--bad", "nowhere/at/all"], "there is no nowhere/at/all"),
        (["nowhere"], "there is no nowhere"),
    ],
)
def test_what_makes_no_sense_is_named(
    calibrate: Any, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(*arguments) == 2
    assert said in capsys.readouterr().err


def test_a_picture_cannot_be_good_and_bad(
    calibrate: Any, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = _pictures(tmp_path / "bad", 2, 2)
    shutil.copy(good / "3.png", bad / "other-name.png")
    assert calibrate("--bad", bad) == 2
    assert "1 pictures are among the good and the bad ones" in capsys.readouterr().err


def test_it_goes_beside_the_model_but_never_into_the_package(
    calibrate: Any, good: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(small_folder, tmp_path / "own")
    assert calibrate("--model", own, out=False) == 0
    assert (own / "threshold.json").is_file()
    assert run(["inspect", str(good), "--model", str(own), "--limit", "1", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert run(["calibrate", str(good), "--max-false-alarms", "0.1"]) == 2
    assert "--out threshold.json" in capsys.readouterr().err


def test_unreadable_pictures_are_named_and_do_not_count(
    calibrate: Any, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good / "broken.png").write_bytes(b"no picture")
    assert calibrate() == 3
    assert "broken.png" in capsys.readouterr().err
    values = _written(tmp_path)
    assert (values["n"], values["left_out"]["unreadable"]) == (12, 1)


def test_with_a_context(
    calibrate: Any, good: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = _pictures(tmp_path / "references", 4, 3)
    shutil.copy(references / "0.png", good / "reference.png")
    assert calibrate("--context", references) == 0
    values = _written(tmp_path)
    assert (values["n"], values["left_out"]["references"], values["context"]["references"]) == (12, 1, 4)
    capsys.readouterr()
    command = ["inspect", str(good / "0.png"), "--model", str(small_folder), "--device", "cpu", "--json"]
    command += ["--threshold", str(tmp_path / "t.json")]
    assert run([*command, "--context", str(references)]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"]["value"] == values["value"]
    for context in ([], ["--context", "none"], ["--context", str(good)]):
        assert run([*command, *context]) == 4
        error = capsys.readouterr().err
        assert "calibrated" in error
        assert "hint: " in error


def test_inspect_refuses_what_does_not_go_with_it(
    calibrate: Any, good: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate() == 0
    command = ["inspect", str(good), "--model", str(small_folder), "--device", "cpu"]
    command += ["--threshold", str(tmp_path / "t.json")]
    capsys.readouterr()
    assert run([*command, "--dtype", "bfloat16"]) == 4
    assert "in bfloat16" in capsys.readouterr().err
    assert run([*command, "--context", "folder"]) == 4
    assert "leave out --references" in capsys.readouterr().err
    assert run([*command[:-1], "nowhere.json"]) == 2
    assert "--threshold" in capsys.readouterr().err


def test_what_it_says_to_type_next_is_right(
    calibrate: Any, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = _pictures(tmp_path / "good ones", 2, 9)
    target = tmp_path / "a threshold.json"
    assert calibrate("--dtype", "bfloat16", "--context", references, "--out", target, out=False) == 0
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("use it:"))
    command = shlex.split(said.removeprefix("use it: anomaly-ov "))
    assert run([str(good / "0.png") if word == "PICTURES" else word for word in command]) == 0


def test_a_wrong_threshold_says_what_would_be_right(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(good), "--threshold", "no-such.json"]) == 2
    error = capsys.readouterr().err
    assert "Invalid value for --threshold: threshold 'no-such.json' is neither a number nor a file" in error
    assert "hint: give a number from 0 to 1, or a file made by 'anomaly-ov calibrate'" in error
