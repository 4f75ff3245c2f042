"""``anomaly-ov train stage2``: from the command line to a model that talks, and what it says when it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_ov.cli.main import run
from anomaly_ov.reasoning.folder import load_reasoner
from talk_fixtures import recipe_of, small_talker, talk_data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage2")
    talk_data(folder / "data")
    small_talker(folder / "model")
    return folder


def command(place: Path, tmp_path: Path, *more: str, **changes: Any) -> list[str]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_of(**changes)))
    given = {"--data": str(place / "data"), "--start": str(place / "model"), "--out": str(tmp_path / "out")}
    pairs = [part for name, value in given.items() if name not in more for part in (name, value)]
    return ["train", "stage2", "--recipe", str(recipe), *pairs, *more]


def test_a_run_writes_a_model_that_talks(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--steps", "3", "--batch", "1", "--accumulate", "2", "--workers", "0", "--threads", "1", "--seed", "4"]
    assert run(command(place, tmp_path, *options, "--set", "loop.weight_decay=0.25")) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "15 conversations in talk.jsonl, 4 skipped" in said.err
    assert f"model written to {tmp_path / 'out/model'}" in said.err.replace("\n", "")
    load_reasoner(tmp_path / "out/model")
    record = json.loads((tmp_path / "out/run.json").read_text())
    loop = record["recipe"]["loop"]
    assert (loop["steps"], loop["batch"], loop["accumulate"], loop["seed"]) == (3, 1, 2, 4)
    assert loop["weight_decay"] == 0.25
    assert "defaults" not in record


def test_a_fresh_language_side_on_generated_pictures(place: Path, tmp_path: Path) -> None:
    language = {"vocabulary": 400, "texts": 8, "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 16}
    talk = {"json": 0.5, "synthetic": 0.5, "sizes": [64], "max_length": 512}
    changes: dict[str, Any] = {"language": language, "talk": talk, "loop": {"steps": 2, "batch": 2}}
    assert run(command(place, tmp_path, **changes)) == 0
    assert load_reasoner(tmp_path / "out/model").model.config.text_config.hidden_size == 16


def test_pictures_that_will_be_tested_on_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "data/images", tmp_path / "test", ignore=shutil.ignore_patterns("broken*", "1*"))
    assert run(command(place, tmp_path, "--test", str(tmp_path / "test"))) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out/model").exists()


@pytest.mark.parametrize(
    ("more", "changes", "code", "said"),
    [
        (["--start", "nowhere"], {}, 4, "no model called 'nowhere'"),
        (["--data", "nowhere"], {}, 2, "nowhere/talk.jsonl"),
        (["--device", "cuda:99"], {}, 5, "cuda:99"),
        (["--device", "abacus"], {}, 2, "unknown device"),
        (["--parallel", "ddp"], {}, 2, "torchrun"),
        (["--parallel", "many"], {}, 2, "loop.parallel"),
        (["--batch", "0"], {}, 2, "--batch"),
        ([], {"stage2": {"train": "half"}}, 2, "stage2.train"),
        ([], {"loop": {"speed": 9}}, 2, "speed"),
        ([], {"images": "elsewhere"}, 2, "no folder of images"),
        ([], {"sets": ["none"], "talk": {"json": 1.0, "labelled": 1.0}}, 2, "none"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    changes: dict[str, Any],
    code: int,
    said: str,
) -> None:
    assert run(command(place, tmp_path, *more, **changes)) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_model_without_a_language_side_is_named(
    place: Path, small_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(place, tmp_path, "--start", str(small_folder))) == 4
    assert "no language side" in capsys.readouterr().err
