"""``anomaly-ov eval ablation``: what is wrong is said before hours of training, and nothing is measured from the cache
of another call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from anomaly_ov.cli.main import run
from training_fixtures import labelled_folder

RECIPE = {
    "name": "small",
    "base": {
        "name": "base",
        "sets": ["one"],
        "views": {"base_size": 32, "cap": 64, "grids": [[1, 1]]},
        "expert": {"hidden": 8},
        "loop": {"steps": 1, "batch": 2, "workers": 0, "warmup_steps": 1, "threads": 1},
    },
    "seeds": [0],
    "variants": {"no-look-back": {"expert": {"look_back": False}}},
}


@pytest.fixture
def command(tmp_path: Path, small_folder: Path) -> list[str]:
    for seed, name in enumerate(("one", "two")):
        labelled_folder(tmp_path / name, 3, seed)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    command = ["eval", "ablation", "--recipe", str(tmp_path / "recipe.yaml"), "--data", str(tmp_path)]
    return [*command, "--start", str(small_folder), "--out", str(tmp_path / "out")]


def test_variants_are_trained_and_measured(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.json"
    assert run([*command, "--test", str(tmp_path / "two"), "--summary", str(summary)]) == 0
    assert "no-look-back" in capsys.readouterr().out
    figures = json.loads(summary.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(figures["sets"]["two"]["variants"]) == {"full", "no-look-back"}
    assert run([*command, "--test", str(tmp_path / "one")]) == 2
    assert "training and test data overlap" in capsys.readouterr().err


def test_sets_that_cannot_be_measured_are_named_before_training(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two/list.jsonl").write_text('{"image": "test/good/0.png", "label": 0}\n')
    assert run([*command, "--test", str(tmp_path / "two/list.jsonl")]) == 2
    assert "no category of list has normal and anomalous pictures" in capsys.readouterr().err
    assert run([*command, "--test", str(tmp_path / "two"), "--test", str(tmp_path / "two")]) == 2
    assert "two sets of one name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
