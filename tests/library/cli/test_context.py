"""``anomaly-ov context``: building, extending and showing context files; arguments as a new user gets them wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.cli.main import run
from anomaly_ov.context.context_file import load_context, save_context
from anomaly_ov.inspector import load
from anomaly_ov.models.model import AnomalyModel
from context_fixtures import assert_same
from model_fixtures import small_config


@pytest.fixture
def context(small_folder: Path) -> Any:
    def call(verb: str, *args: object) -> int:
        model = ["--model", str(small_folder), "--device", "cpu"] if verb in ("build", "add") else []
        return run(["context", verb, *map(str, args), *model])

    return call


@pytest.fixture
def built(context: Any, pictures: Path, tmp_path: Path) -> Path:
    """A context file of the first four pictures."""
    assert context("build", *(pictures / f"p{i}.png" for i in range(4)), "--out", tmp_path / "part.ctx") == 0
    return tmp_path / "part.ctx"


def test_build_holds_what_the_inspector_makes(
    context: Any, pictures: Path, tmp_path: Path, small_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert context("build", pictures, "--out", tmp_path / "all.CTX") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("6 good pictures; ")
    assert captured.err.endswith(f"written to {tmp_path / 'all.CTX'}\n")
    found, expected = load_context(tmp_path / "all.CTX"), load(str(small_folder), "cpu").context(str(pictures))
    assert (found.kind, found.source) == ("references", str(pictures))
    assert found.bank.digests == expected.bank.digests
    assert_same(found.bank.tokens, expected.bank.tokens)


def test_one_good_picture_is_enough(
    context: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert context("build", pictures / "p1.png", "--out", tmp_path / "one.ctx") == 0
    assert capsys.readouterr().err.startswith("1 good picture; written")
    assert context("show", tmp_path / "one.ctx") == 0
    assert "not known from one picture" in capsys.readouterr().out


def test_added_is_as_if_built_at_once(
    context: Any, built: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert context("add", built, pictures) == 0  # four of the six are there already
    assert "2 pictures were added to 4" in capsys.readouterr().err
    assert context("build", pictures, "--out", tmp_path / "all.ctx") == 0
    found, expected = load_context(built), load_context(tmp_path / "all.ctx")
    assert found.bank.digests == expected.bank.digests
    assert_same(found.bank.tokens, expected.bank.tokens)


def test_adding_what_is_there_changes_nothing(
    context: Any, built: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = built.read_bytes()
    shutil.copy(pictures / "p0.png", pictures / "copy.png")
    assert context("add", built, pictures / "p2.png", pictures / "copy.png") == 0
    assert "all 2 pictures are already in" in capsys.readouterr().err
    assert built.read_bytes() == before


def test_unreadable_pictures_are_named_and_the_rest_serves(
    context: Any, built: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = pictures / "p5.png"
    bad.write_text("not a picture")
    assert context("add", built, pictures) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"error: cannot read {bad}: ")
    assert "5 good pictures" in err
    assert context("build", pictures, "--out", tmp_path / "new.ctx") == 3
    assert len(load_context(tmp_path / "new.ctx").bank) == 5


def test_a_failed_addition_leaves_the_file_as_it_was(
    context: Any, built: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = built.read_bytes()
    (pictures / "p5.png").write_text("not a picture")
    assert context("add", built, pictures / "p5.png") == 2
    assert "no readable picture" in capsys.readouterr().err
    assert built.read_bytes() == before


def test_add_needs_the_model_of_the_file(
    built: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AnomalyModel(replace(small_config(), revision="other")).save_pretrained(tmp_path / "other")
    before = built.read_bytes()
    assert run(["context", "add", str(built), str(pictures), "--model", str(tmp_path / "other")]) == 4
    assert "revision test, the one in use is other" in capsys.readouterr().err
    assert built.read_bytes() == before


def test_nothing_is_added_to_a_folders_own_context(
    context: Any, pictures: Path, tmp_path: Path, small_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_context(tmp_path / "f.ctx", load(str(small_folder), "cpu").folder_context(str(pictures)))
    assert context("add", tmp_path / "f.ctx", pictures) == 2
    assert "is a folder's own" in capsys.readouterr().err


def test_show(context: Any, built: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert context("show", built) == 0
    out = capsys.readouterr().out
    for part in (str(built), "good references", str(pictures), "model revision  test", "4, ", "suspicion -"):
        assert part in out
    assert context("show", built, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["references"], facts["model_revision"]) == ("references", 4, "test")
    assert facts["bytes"] == built.stat().st_size
    bank = load_context(built).bank
    assert facts["tokens_each"] == {"whole": bank.tokens.whole.shape[1], "detail": bank.tokens.detail.shape[1]}
    assert facts["token_width"] == bank.tokens.whole.shape[2]
    whole, detail = facts["tokens_each"].values()
    assert f"4, {whole} (whole) + {detail} (detail) tokens of {facts['token_width']} values each" in " ".join(
        out.split()
    )
    group = facts["groups"][0]
    assert (group["references"], group["measured"]) == (4, 4)
    assert group["usual_suspicion"] == pytest.approx(load_context(built).suspicion_R.mean(), abs=1e-4)
    assert group["spread"] > 0


def test_names_from_a_file_cannot_steer_the_terminal(
    context: Any, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = load_context(built)
    object.__setattr__(found, "source", "\x1b[2J[bold]x")
    save_context(tmp_path / "odd.ctx", found)
    capsys.readouterr()
    assert context("show", tmp_path / "odd.ctx") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]x" in out


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["build", "{p}"], "--out"),
        (["build", "--out", "x.ctx"], "GOOD"),
        (["build", "{p}", "--out", "{p}/p0.png"], "ends in .ctx"),
        (["build", "{p}", "--out", "{p}"], "ends in .ctx"),
        (["build", "{p}", "--out", "{p}/no/x.ctx"], "there is no folder"),
        (["build", "{p}/nothing", "--out", "{p}/x.ctx"], "no file or folder"),
        (["build", "{p}/*.gif", "--out", "{p}/x.ctx"], "nothing matches"),
        (["build", "{ctx}", "--out", "{p}/x.ctx"], "is a context file"),
        (["add", "{ctx}"], "GOOD"),
        (["add", "{p}", "{ctx}"], "is a context file"),
        (["add", "{ctx}", "{p}/nothing"], "no file or folder"),
        (["show", "{p}", "more"], "unexpected extra argument"),
        (["shw"], "No such command"),
    ],
)
def test_wrong_arguments_are_one_line(
    args: list[str], part: str, context: Any, built: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = built.read_bytes()
    capsys.readouterr()
    assert context(*(word.format(p=pictures, ctx=built) for word in args)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error, hint = captured.err.splitlines()
    assert part in error
    assert hint.startswith("hint: ")
    assert built.read_bytes() == before


@pytest.mark.parametrize("verb", ["show", "add"])
def test_files_that_are_no_context(
    verb: str, context: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.ctx").write_bytes((pictures / "p0.png").read_bytes())
    more = [pictures] if verb == "add" else []
    assert context(verb, tmp_path / "x.ctx", *more) == 4
    assert "is no context file or a damaged one" in capsys.readouterr().err
    assert context(verb, tmp_path / "none.ctx", *more) == 4
    assert "there is no context file" in capsys.readouterr().err


def test_without_a_verb_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["context"]) == 2
    captured = capsys.readouterr()
    for verb in ("build", "add", "show"):
        assert f" {verb} " in captured.out + captured.err
