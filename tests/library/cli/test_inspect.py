"""``anomaly-ov inspect``: table, JSON lines, files, exit codes, interruption, pipes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from anomaly_ov.cli.main import run
from anomaly_ov.cli.schema import finding_schema
from anomaly_ov.inspector import Inspector


@pytest.fixture
def inspect(small_folder: Path) -> Any:
    def call(*args: object) -> int:
        return run(["inspect", "--model", str(small_folder), "--device", "cpu", *map(str, args)])

    return call


def records(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    validator = jsonschema.Draft202012Validator(finding_schema())
    for record in found:
        validator.validate(record)
    return found


def test_table_in_the_order_given(inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(pictures / "p3.png", pictures / "p1.png") == 0
    captured = capsys.readouterr()
    header, *rows = captured.out.splitlines()
    assert header.split() == ["picture", "score", "anomalous", "suspicion", "regions"]
    assert [row.split()[0] for row in rows] == [str(pictures / "p3.png"), str(pictures / "p1.png")]
    assert "2 pictures: " in captured.err


def test_json_lines_match_the_published_schema(
    inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "p4.png").write_text("not a picture")
    assert inspect(pictures, "--json", "--threshold", 0) == 3
    captured = capsys.readouterr()
    found = records(captured.out)
    assert [Path(record["id"]).name for record in found] == [f"p{i}.png" for i in range(6)]
    assert found[4]["error"]["type"] == "UnreadableImage"
    assert found[4]["score"] is None
    assert sum(line.startswith("error: ") for line in captured.err.splitlines()) == 1
    good = found[1]
    assert good["image"]["width"] == 96
    assert good["regions"]
    for region in good["regions"]:
        x0, y0, x1, y1 = region["box"]
        assert 0 <= x0 < x1 <= 96
        assert 0 <= y0 < y1 <= 64
        assert sum(region["rle"]["counts"][1::2]) == region["area"]


def test_a_long_run_ends_with_the_names_to_look_at_first(
    inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for copy in range(3):
        Image.new("RGB", (30, 30), (0, copy, 0)).save(pictures / f"q{copy}.png")
    (pictures / "q3.png").write_text("not a picture")
    assert inspect(pictures, "--json") == 3
    captured = capsys.readouterr()
    scores = {record["id"]: record["score"] for record in records(captured.out) if record["score"] is not None}
    assert len(scores) == 9
    named = sorted(scores, key=lambda name: -scores[name])[:5]
    told = ", ".join(f"{name} ({scores[name]:.3f})" for name in named)
    assert captured.err.splitlines()[-1] == f"most suspicious: {told}"
    (pictures / "q2.png").unlink()
    assert inspect(pictures) == 3
    assert "most suspicious" not in capsys.readouterr().err


@pytest.mark.parametrize("field", ["score", "regions", "error", "schema"])
def test_schema_refuses_what_is_no_record(
    inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    inspect(pictures / "p0.png", "--json")
    record = records(capsys.readouterr().out)[0]
    for broken in ({k: v for k, v in record.items() if k != field}, record | {field: "high"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, finding_schema())


def test_schema_command_prints_a_valid_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_exit_codes(inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, missing = pictures / "p0.png", pictures / "missing.png"
    assert inspect(good, "--threshold", 0) == 0
    assert inspect(good, "--threshold", 0, "--fail-on-anomaly") == 1
    assert inspect(good, "--threshold", 1, "--fail-on-anomaly") == 0
    assert inspect(good, missing, "--threshold", 0, "--fail-on-anomaly") == 3
    assert inspect(pictures / "*.gif") == 2
    assert run(["inspect", str(good), "--model", "no-such-model"]) == 4
    assert inspect(good, "--device", "cuda:99") == 5
    assert "Traceback" not in capsys.readouterr().err


def test_threshold_of_the_caller_is_recorded(inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(pictures / "p0.png", "--json", "--threshold", 0.25)
    assert records(capsys.readouterr().out)[0]["threshold"] == {"value": 0.25, "source": "set by the caller"}


def test_limit(inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(pictures, "--json", "--limit", 2)
    assert len(records(capsys.readouterr().out)) == 2


def test_out_folder(inspect: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out"
    assert inspect(pictures, "--json", "--out", out, "--map", "png") == 0
    names = {path.name for path in out.iterdir()}
    stems = [f"p{i}" for i in range(6)]
    assert names == {
        "findings.jsonl",
        "names.json",
        *(f"{s}.overlay.png" for s in stems),
        *(f"{s}.map.png" for s in stems),
    }
    written = records((out / "findings.jsonl").read_text())
    assert written == records(capsys.readouterr().out)
    for record in written:
        with Image.open(record["map"]["path"]) as saved:
            assert saved.size == (record["image"]["width"], record["image"]["height"])
    with Image.open(out / "p1.overlay.png") as overlay:
        assert overlay.width >= 96


def test_out_folder_without_overlays(inspect: Any, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert inspect(pictures / "p1.png", "--out", out, "--no-overlay", "--map", "npy") == 0
    assert {path.name for path in out.iterdir()} == {"findings.jsonl", "names.json", "p1.map.npy"}
    map_HW = np.load(out / "p1.map.npy", allow_pickle=False)
    assert map_HW.shape == (64, 96)
    assert 0 <= map_HW.min() <= map_HW.max() <= 1


def test_equal_stems_get_names_of_their_own(inspect: Any, pictures: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (pictures / "p0.png").rename(tmp_path / folder / "x.png") if folder == "a" else (pictures / "p1.png").rename(
            tmp_path / folder / "X.png"
        )
    out = tmp_path / "out"
    inspect(tmp_path / "a", tmp_path / "b", "--out", out, "--no-overlay", "--map", "npy")
    assert np.load(out / "x.map.npy").shape == (40, 40)
    assert np.load(out / "X-2.map.npy").shape == (64, 96)


@pytest.mark.parametrize("option", [["--overlay"], ["--map", "png"], ["--resume"]])
def test_files_need_a_folder(inspect: Any, pictures: Path, option: list[str]) -> None:
    assert inspect(pictures, *option) == 2


def test_interruption_says_how_far_and_resume_continues(
    inspect: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    whole = Inspector.stream_with_previews

    def interrupted(self: Inspector, sources: Any, batch_size: int = 8, *rest: Any, **options: Any) -> Any:
        for count, item in enumerate(whole(self, sources, 1, *rest, **options)):
            if count == 2:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(Inspector, "stream_with_previews", interrupted)
        assert inspect(pictures, "--out", out, "--map", "npy", "--no-overlay") == 130
    err = capsys.readouterr().err
    assert "2 of 6 pictures done" in err
    assert "--resume" in err
    findings = out / "findings.jsonl"
    assert len(records(findings.read_text())) == 2
    findings.write_text(findings.read_text() + '{"torn": ')
    assert inspect(pictures, "--out", out, "--map", "npy", "--no-overlay", "--resume") == 0
    assert [Path(record["id"]).stem for record in records(findings.read_text())] == [f"p{i}" for i in range(6)]
    assert inspect(pictures, "--out", out, "--resume") == 0
    assert "all 6 pictures" in capsys.readouterr().err


def test_resume_tries_unreadable_pictures_again(inspect: Any, pictures: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out", pictures / "p2.png"
    content = bad.read_bytes()
    bad.write_bytes(content[:50])
    assert inspect(pictures, "--out", out, "--no-overlay") == 3
    bad.write_bytes(content)
    assert inspect(pictures, "--out", out, "--no-overlay", "--resume") == 0
    found = records((out / "findings.jsonl").read_text())
    assert sorted(Path(record["id"]).stem for record in found) == [f"p{i}" for i in range(6)]
    assert all(record["error"] is None for record in found)


def test_resume_looks_again_at_what_changed(
    inspect: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--out", out, "--no-overlay") == 0
    before = {one["id"]: one for one in records((out / "findings.jsonl").read_text())}
    shutil.copyfile(pictures / "p1.png", pictures / "p0.png")
    assert inspect(pictures, "--out", out, "--no-overlay", "--resume") == 0
    assert "1 picture changed since the earlier run: looked at again" in capsys.readouterr().err
    after = {one["id"]: one for one in records((out / "findings.jsonl").read_text())}
    assert len(after) == len(before)
    changed = str(pictures / "p0.png")
    assert after[changed]["image"]["sha256"] == hashlib.sha256((pictures / "p0.png").read_bytes()).hexdigest()
    assert {name: one for name, one in after.items() if name != changed} == {
        name: one for name, one in before.items() if name != changed
    }


def test_resume_leaves_no_two_thresholds_in_one_folder(
    inspect: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--out", out, "--no-overlay", "--limit", 2) == 0
    assert inspect(pictures, "--out", out, "--no-overlay", "--resume", "--threshold", 0.1) == 0
    assert "2 findings had another threshold than 0.100: looked at again" in capsys.readouterr().err
    found = records((out / "findings.jsonl").read_text())
    assert len(found) == len({one["id"] for one in found}) == 6
    assert {one["threshold"]["value"] for one in found} == {0.1}


def test_resume_refuses_findings_of_another_model(
    inspect: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--out", out, "--no-overlay") == 0
    path = out / "findings.jsonl"
    path.write_text(path.read_text().replace('"revision": "test"', '"revision": "other"'))
    kept = path.read_bytes()
    assert inspect(pictures, "--out", out, "--no-overlay", "--resume") == 2
    assert "revision other; this is small, revision test" in capsys.readouterr().err
    assert path.read_bytes() == kept


def test_a_picture_is_the_same_however_its_path_is_spelt(
    inspect: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    out = tmp_path / "out"
    assert inspect(pictures.name, "--out", out, "--no-overlay") == 0
    for spelt in (f"./{pictures.name}", str(pictures), f"{pictures.name}/../{pictures.name}"):
        assert inspect(spelt, "--out", out, "--no-overlay", "--resume") == 0
        assert len(records((out / "findings.jsonl").read_text())) == 6


def test_a_resumed_run_never_writes_over_another_pictures_files(inspect: Any, pictures: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "in/b", tmp_path / "in/a"
    first.mkdir(parents=True)
    shutil.copyfile(pictures / "p0.png", first / "x.png")
    out = tmp_path / "out"
    assert inspect(tmp_path / "in", "--out", out, "--no-overlay", "--map", "npy") == 0
    kept = (out / "x.map.npy").read_bytes()
    second.mkdir()
    shutil.copyfile(pictures / "p1.png", second / "x.png")
    assert inspect(tmp_path / "in", "--out", out, "--no-overlay", "--map", "npy", "--resume") == 0
    assert (out / "x.map.npy").read_bytes() == kept
    maps = [one["map"]["path"] for one in records((out / "findings.jsonl").read_text())]
    assert len(set(maps)) == 2
    shutil.copyfile(pictures / "p2.png", first / "x.png")  # the first one again keeps its name
    assert inspect(tmp_path / "in", "--out", out, "--no-overlay", "--map", "npy", "--resume") == 0
    assert (out / "x.map.npy").read_bytes() != kept
    assert sorted(path.name for path in out.glob("*.npy")) == ["x-2.map.npy", "x.map.npy"]


def test_resume_refuses_a_file_that_is_not_ours(inspect: Any, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "findings.jsonl").write_text('["something", "else"]\n')
    assert inspect(pictures, "--out", tmp_path, "--resume") == 2
    assert (tmp_path / "findings.jsonl").read_text() == '["something", "else"]\n'


def test_reader_that_stops_early_is_no_error(small_folder: Path, pictures: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "anomaly_ov.cli.main", "inspect", pictures, "--json", "--model", small_folder]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert b"Error" not in err
    assert b"error" not in err


def test_standard_input(
    inspect: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO((pictures / "p1.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert inspect("-", "--json") == 0
    record = records(capsys.readouterr().out)[0]
    assert (record["id"], record["image"]["width"]) == ("-", 96)
