"""``anomaly-ov inspect --context``: which context is used and said, and that a resumed run keeps to it."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from anomaly_ov.cli import contexts
from anomaly_ov.cli.main import run
from anomaly_ov.cli.schema import finding_schema
from anomaly_ov.context.context_file import load_context
from anomaly_ov.inspector import Inspector
from anomaly_ov.records import UNLIKE, ContextInfo, Finding, ImageInfo, ModelInfo


@pytest.fixture
def inspect(small_folder: Path) -> Any:
    def call(*args: object) -> int:
        return run(["inspect", "--model", str(small_folder), "--device", "cpu", *map(str, args)])

    return call


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder of three good pictures."""
    folder = tmp_path / "good"
    folder.mkdir()
    generator = np.random.default_rng(7)
    for index in range(3):
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"g{index}.png")
    return folder


def records(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    for record in found:
        jsonschema.Draft202012Validator(finding_schema()).validate(record)
        del record["timing_ms"]
    return found


def said(inspect: Any, capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> tuple[list[Any], str]:
    """Records and stderr of a run with --json."""
    capsys.readouterr()
    assert inspect(*args, "--json") == code
    captured = capsys.readouterr()
    return records(captured.out), captured.err


def test_without_a_context_the_record_says_none(
    inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, err = said(inspect, capsys, pictures, "--context", "none")
    assert "context" not in err
    for record in found:
        assert record["context"]["note"] is None
        assert record["context"]["kind"] == "none"
        assert record["score_context"] is None
        assert record["score_expert"] == record["score"]


def test_good_pictures(inspect: Any, pictures: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, err = said(inspect, capsys, pictures, "--context", good)
    assert err.startswith(f"context: 3 good pictures from {good}\n")
    for record in found:
        assert record["context"] | {"distance": 0} == {
            "kind": "references", "source": str(good), "references": 3, "group": 0, "distance": 0, "note": None,
        }  # fmt: skip
        assert record["context"]["distance"] > 0
        assert 0 < record["score_context"] < 1
        assert 0 < record["score_expert"] < 1
    named = said(inspect, capsys, pictures, *(f"--context={good / name}" for name in ("g2.png", "g0.png", "g1.png")))
    assert named == (found, err.replace(err.splitlines()[1], named[1].splitlines()[1]))
    matched, _ = said(inspect, capsys, pictures, "--context", good / "*.png")
    assert [one["score"] for one in matched] == [one["score"] for one in found]


def test_a_context_file_is_as_good_as_its_pictures(
    inspect: Any, pictures: Path, good: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "part.ctx"
    assert run(["context", "build", str(good), "--out", str(file), "--model", str(small_folder)]) == 0
    found, err = said(inspect, capsys, pictures, "--context", file)
    assert f"3 good pictures from {good}" in err
    assert found == said(inspect, capsys, pictures, "--context", good)[0]


def test_the_folder_itself(inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, err = said(inspect, capsys, pictures, "--context", "folder")
    assert err.startswith(f"context: the folder's own pictures, 6 references from {pictures}; ")
    assert {record["context"]["kind"] for record in found} == {"folder"}
    limited, _ = said(inspect, capsys, pictures, "--context", "folder", "--limit", 2)
    assert limited == found[:2]  # of the same context: all the pictures given


def test_auto_is_the_default_and_silent_about_few(
    inspect: Any, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    default, err = said(inspect, capsys, pictures)
    assert "context" not in err
    assert default == said(inspect, capsys, pictures, "--context", "auto")[0]
    assert {record["context"]["kind"] for record in default} == {"none"}
    assert "it takes 8 readable, distinct pictures" in default[0]["context"]["note"]


def test_auto_says_why(
    inspect: Any, pictures: Path, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (pictures, good, "--context", "auto")
    for picture in ("p0.png", "p1.png"):  # nine files, seven of them readable
        (pictures / picture).write_text("not a picture")
    found, err = said(inspect, capsys, *both, code=3)
    reason = found[2]["context"]["note"]
    assert "it takes 8 readable, distinct pictures" in reason
    assert f"context: none; {reason}\n" in err
    folder = Inspector.folder_context
    monkeypatch.setattr(Inspector, "auto_context", lambda self, *args: (folder(self, *args), "they are alike"))
    found, err = said(inspect, capsys, *both, code=3)
    assert "they are alike" in err
    assert {record["context"]["kind"] for record in found} == {"folder"}


def test_context_is_the_old_name_of_references(
    inspect: Any, pictures: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = said(inspect, capsys, pictures, "--references", good)
    assert found == said(inspect, capsys, pictures, "--context", good)[0]
    assert {record["context"]["kind"] for record in found} == {"references"}


def test_table_has_a_column_only_with_a_context(
    inspect: Any, pictures: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "p4.png").write_text("not a picture")
    assert inspect(pictures, "--context", good) == 3
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["picture", "score", "context", "anomalous", "suspicion", "regions"]
    assert rows[4].split()[1:] == ["unreadable", "-", "-", "-", "-"]
    found, _ = said(inspect, capsys, pictures, "--context", good, code=3)
    assert rows[0].split()[3] == f"{found[0]['score_context']:.3f}"


def test_out_folder_keeps_the_context_and_loses_an_old_one(
    inspect: Any, pictures: Path, good: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--out", out, "--context", good) == 0
    assert load_context(out / "context.ctx").source == str(good)
    assert (out / "p1.overlay.png").is_file()
    assert inspect(pictures, "--out", out, "--no-overlay") == 0
    assert not (out / "context.ctx").exists()


def test_overlay_tells_the_parts_of_the_score(
    inspect: Any, pictures: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: dict[str, list[str]] = {}

    def drawn(pixels: Any, map_: Any, regions: Any, threshold: float, caption: list[str]) -> Image.Image:
        captions[caption[0]] = list(caption)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr("anomaly_ov.cli.outputs.overlay", drawn)
    assert inspect(pictures / "p1.png", "--out", tmp_path / "out", "--context", good) == 0
    (record,) = records((tmp_path / "out" / "findings.jsonl").read_text())
    assert captions["p1.png"][2] == (
        f"expert alone {record['score_expert']:.3f}, context {record['score_context']:.3f}: "
        f"{record['context']['distance']:.1f} times the usual distance from 3 references"
    )
    assert inspect(pictures / "p1.png", "--out", tmp_path / "out") == 0
    assert len(captions["p1.png"]) == 2


def test_keywords_as_names_of_folders(
    inspect: Any, pictures: Path, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(good.parent)
    for name in ("folder", "folder.ctx"):
        shutil.copytree(good, name)
    assert "own pictures, 6 references" in said(inspect, capsys, pictures, "--context", "folder")[1]
    assert "3 good pictures from ./folder" in said(inspect, capsys, pictures, "--context", "./folder")[1]
    assert "3 good pictures from folder.ctx" in said(inspect, capsys, pictures, "--context", "folder.ctx")[1]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (["fodler"], "no file or folder fodler"),
        (["Auto"], "no file or folder Auto"),
        ([""], "no file or folder ''"),
        (["-"], "does not read standard input"),
        (["no.ctx"], "no file or folder no.ctx"),
        (["auto", "{g}"], "auto stands alone"),
        (["{g}", "none"], "none stands alone"),
        (["folder", "folder"], "folder stands alone"),
        (["{g}", "{g}/part.ctx"], "part.ctx stands alone"),
        (["{g}/*.gif"], "nothing matches"),
        (["{g}/empty"], "no picture in folder"),
        (["{g}/broken.png"], "no readable picture in"),
    ],
)
def test_wrong_contexts_are_usage_errors(
    values: list[str], part: str, inspect: Any, pictures: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good / "empty").mkdir()
    (good / "broken.png").write_text("not a picture")
    assert inspect(pictures, *(f"--context={value.format(g=good)}" for value in values)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    *_, error, hint = captured.err.splitlines()
    assert part in error
    assert hint.startswith("hint: ")


def test_a_broken_context_file_ruins_no_earlier_run(inspect: Any, pictures: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "x.ctx"
    assert inspect(pictures, "--out", out, "--no-overlay") == 0
    before = (out / "findings.jsonl").read_bytes()
    file.write_text("broken")
    assert inspect(pictures, "--out", out, "--no-overlay", "--context", file) == 4
    assert (out / "findings.jsonl").read_bytes() == before


def test_one_picture_is_no_folder(
    inspect: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((pictures / "p1.png").read_bytes())))
    assert inspect("-", "--context", "folder") == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "needs at least 3; here is 1" in error
    assert "--references GOOD_FOLDER" in hint
    assert inspect(pictures / "p1.png", pictures / "p2.png", "--context", "folder") == 2
    assert "here are 2" in capsys.readouterr().err


def test_standard_input_against_good_pictures(
    inspect: Any, pictures: Path, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((pictures / "p1.png").read_bytes())))
    found, _ = said(inspect, capsys, "-", "--context", good)
    assert found[0]["context"]["references"] == 3


# ---- resuming -------------------------------------------------------------------------------------------------------


def interrupt_after(count: int, patch: pytest.MonkeyPatch) -> None:
    whole = Inspector.stream_with_previews

    def stream(self: Inspector, sources: Any, batch_size: int, *rest: Any, **options: Any) -> Any:
        for done, item in enumerate(whole(self, sources, batch_size, *rest, **options)):
            if done == count:
                raise KeyboardInterrupt
            yield item

    patch.setattr(Inspector, "stream_with_previews", stream)


@pytest.mark.parametrize("value", ["folder", "{g}", "{g}/g1.png", "auto", "none"])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    value: str, inspect: Any, pictures: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [pictures, "--no-overlay", "--batch-size", 1, "--context", value.format(g=good)]
    assert inspect(*args, "--out", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        assert inspect(*args, "--out", tmp_path / "parts") == 130
    assert inspect(*args, "--out", tmp_path / "parts", "--resume") == 0
    parts, whole = ((tmp_path / name / "findings.jsonl").read_text() for name in ("parts", "whole"))
    assert records(parts) == records(whole)
    assert len(records(parts)) == 6


def test_the_rest_of_a_run_is_judged_by_the_folder_as_it_was(
    inspect: Any, pictures: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--out", out, "--no-overlay", "--context", "folder") == 0
    before = (out / "context.ctx").read_bytes()
    shutil.copy(good / "g0.png", pictures / "new.png")
    found, err = said(inspect, capsys, pictures, "--out", out, "--no-overlay", "--context", "folder", "--resume")
    assert f"6 references from {pictures}; kept in {out / 'context.ctx'} since this run began" in err
    assert [record["context"]["references"] for record in found] == [6]
    assert (out / "context.ctx").read_bytes() == before


@pytest.mark.parametrize(
    ("first", "second", "used"),
    [
        ("none", "folder", "with no context"),
        ("none", "auto", "with no context"),
        ("auto", "none", "with --references auto, which chose none"),
        ("folder", "none", "with the folder as context"),
        ("folder", "{g}", "with the folder as context"),
        ("{g}", "auto", "with 3 good pictures from"),
        ("{g}", "{g}/g0.png", "with 3 good pictures from"),
    ],
)
def test_another_context_is_refused_on_resume(
    first: str,
    second: str,
    used: str,
    inspect: Any,
    pictures: Path,
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--limit", 5, "--out", out, "--no-overlay", "--context", first.format(g=good)) == 0
    before = (out / "findings.jsonl").read_bytes()
    capsys.readouterr()
    again = [pictures, "--out", out, "--no-overlay", "--context", second.format(g=good), "--resume"]
    assert inspect(*again) == 2
    assert used in capsys.readouterr().err
    assert (out / "findings.jsonl").read_bytes() == before


def test_a_finished_run_is_not_passed_off_as_one_with_another_context(
    inspect: Any, pictures: Path, tmp_path: Path
) -> None:
    assert inspect(pictures, "--out", tmp_path / "out", "--no-overlay") == 0
    assert inspect(pictures, "--out", tmp_path / "out", "--no-overlay", "--resume", "--context", "folder") == 2


def test_resume_without_the_kept_context_says_so(
    inspect: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--limit", 5, "--out", out, "--no-overlay", "--context", "folder") == 0
    (out / "context.ctx").unlink()
    assert inspect(pictures, "--out", out, "--no-overlay", "--context", "folder", "--resume") == 2
    assert "context.ctx, the context of this run, is missing" in capsys.readouterr().err


def test_records_of_earlier_releases_had_no_context(inspect: Any, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert inspect(pictures, "--limit", 2, "--out", out, "--no-overlay", "--context", "none") == 0
    old = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
    for record in old:
        for name in ("context", "score_expert", "score_context"):
            del record[name]
    (out / "findings.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    assert inspect(pictures, "--out", out, "--no-overlay", "--resume", "--context", "folder") == 2
    assert inspect(pictures, "--out", out, "--no-overlay", "--resume") == 2  # auto is another than none
    assert inspect(pictures, "--out", out, "--no-overlay", "--resume", "--context", "none") == 0


# ---- warnings -------------------------------------------------------------------------------------------------------


def warnings_of(unlike: list[bool], capsys: pytest.CaptureFixture[str], own: int = 0) -> str:
    bank = SimpleNamespace(digests=(f"{0:064}",))
    watch = contexts.Watch(SimpleNamespace(bank=bank, kind="references"))  # type: ignore[arg-type]
    model = ModelInfo("m", "r", "cpu", "float32")
    watch.add(Finding("unreadable", ImageInfo("x"), model))
    for index, note in enumerate(UNLIKE if one else None for one in unlike):
        image = ImageInfo("x", sha256=f"{0 if index < own else 99:064}")
        watch.add(Finding("x", image, model, context=ContextInfo("references", "s", 4, 0, 50.0, note)))
    capsys.readouterr()
    watch.say()
    return capsys.readouterr().err


def test_pictures_unlike_the_references_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert warnings_of([True, False, True], capsys) == (
        "warning: 2 of 3 pictures look like none of the references: are these of the same object?\n"
    )
    assert "1 of 1 pictures looks like none" in warnings_of([True], capsys)
    assert warnings_of([True, False], capsys) == ""
    assert warnings_of([False], capsys) == "", "a large distance alone may be a defect"
    assert warnings_of([], capsys) == ""


def test_references_among_the_pictures_are_a_warning(
    inspect: Any, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "warning: 1 of 3 pictures is itself a reference" in warnings_of([False] * 3, capsys, own=1)
    assert inspect(good, "--context", good) == 0
    assert "warning: 3 of 3 pictures are themselves references" in capsys.readouterr().err
    assert inspect(good, "--context", "folder") == 0
    assert "warning" not in capsys.readouterr().err
