"""Names that are no text or too long, old terminals, full disks: no run ends for them, nothing scored is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.cli.outputs import MOST_BYTES, unique_names
from anomaly_ov.files import utf8
from anomaly_ov.images.sources import Source

POSIX = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return path


def inspect(
    *args: str, cwd: Path, encoding: str = "utf-8", stdout: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "anomaly_ov.cli.main", "inspect", "--references", "none", *args]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    return subprocess.run(
        command, cwd=cwd, env=env, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, timeout=120
    )


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A folder in which one name is Latin-1 on a system of UTF-8."""
    for seed, name in enumerate("abz"):
        picture(tmp_path / f"set/{name}.png", seed)
    os.rename(tmp_path / "set/b.png", bytes(tmp_path / "set") + b"/pi\xe8ce.png")
    return tmp_path


@POSIX
def test_a_name_that_is_no_text_is_in_the_records_as_itself(latin: Path) -> None:
    assert inspect("set", "--out", "out", cwd=latin).returncode == 0
    ids = [json.loads(line)["id"] for line in (latin / "out/findings.jsonl").read_bytes().splitlines()]
    assert [os.fsencode(name) for name in ids] == [b"set/a.png", b"set/pi\xe8ce.png", b"set/z.png"]
    again = inspect("set", "--out", "out", "--resume", cwd=latin)
    assert b"all 3 pictures are already in out" in again.stderr


@POSIX
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_lines_are_json_in_any_encoding(latin: Path, encoding: str) -> None:
    picture(latin / "set/ü😀.png", 7)
    done = inspect("set", "--json", cwd=latin, encoding=encoding)
    assert done.returncode == 0, done.stderr
    names = {json.loads(line)["id"] for line in done.stdout.decode("utf-8").splitlines()}
    assert "set/ü😀.png" in names
    assert os.fsdecode(b"set/pi\xe8ce.png") in names


@pytest.mark.parametrize(("encoding", "filled"), [("utf-8", "█"), ("cp1252", "#"), ("ascii", "#")])
def test_a_table_is_written_in_any_encoding(tmp_path: Path, encoding: str, filled: str) -> None:
    picture(tmp_path / "set/ü.png")
    done = inspect("set", cwd=tmp_path, encoding=encoding)
    assert done.returncode == 0, done.stderr
    assert b"\xe2\x96\x88" not in done.stdout or filled == "█"
    assert {"█", "░", "#", "."} & set(done.stdout.decode(encoding)) >= ({"░"} if filled == "█" else {"."})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_full_disk_behind_stdout_is_said_and_no_bug(tmp_path: Path, form: list[str]) -> None:
    picture(tmp_path / "a.png")
    with open("/dev/full", "wb") as full:
        done = inspect("a.png", *form, cwd=tmp_path, stdout=full.fileno())
    assert done.returncode == 2
    told = done.stderr.decode()
    assert "error: cannot write the output: No space left on device" in told
    assert "this is a bug" not in told
    assert "Exception ignored" not in told


def test_names_too_long_for_their_files_are_shortened_in_the_middle() -> None:
    names = ["n" * 250, "n" * 251, "é" * 120, "short", "Short", "n" * 240 + "/end"]
    found = unique_names([Source(f"{name}.png", f"{name}.png") for name in names])
    assert found[3:5] == ["short", "Short-2"]
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert len(name.encode()) <= MOST_BYTES + 3
    assert found[0].startswith("nnn")
    assert found[0].endswith("nnn")


@POSIX
def test_a_long_name_among_others_has_its_files(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "n" * 247, "z")):
        picture(tmp_path / f"set/{name}.png", seed)
    assert inspect("set", "--out", "out", "--map", "png", cwd=tmp_path).returncode == 0
    assert len((tmp_path / "out/findings.jsonl").read_bytes().splitlines()) == 3
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 3


def test_utf8_comes_back_through_json() -> None:
    name = os.fsdecode(b"pi\xe8ce \xf0\x9f\x98\x80 \\udce8")
    assert json.loads(utf8(json.dumps(name, ensure_ascii=False))) == name
