"""``anomaly-ov synthesise``: pictures, masks and facts that belong together, the same for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.cli.main import run


def synthesise(out: Path, *options: object) -> int:
    return run(["synthesise", str(out), "--size", "64", *map(str, options)])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_masks_and_facts_belong_together(tmp_path: Path) -> None:
    assert synthesise(tmp_path, "--count", 4, "--normal", 0.5) == 0
    facts = [json.loads(line) for line in (tmp_path / "facts.jsonl").read_text().splitlines()]
    assert len(facts) == 4
    assert sum(not fact["defects"] for fact in facts) == 2
    for fact in facts:
        picture, mask = (np.asarray(Image.open(tmp_path / fact[key])) for key in ("image", "mask"))
        assert picture.shape == (64, 64, 3)
        assert set(np.unique(mask)) <= {0, 255}
        assert bool(mask.any()) == bool(fact["defects"])


def test_facts_are_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synthesise(tmp_path, "--count", 4, "--normal", 0.5) == 0
    assert run(["data", "check", str(tmp_path / "facts.jsonl"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sets"]
    assert found["counts"] == [
        {"category": "facts", "split": None, "normal": 2, "anomalous": 2, "unknown": 0, "masks": 4}
    ]
    assert run(["data", "check", str(tmp_path)]) == 2
    assert f"hint: give the list itself: {tmp_path / 'facts.jsonl'}" in capsys.readouterr().err


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert synthesise(tmp_path / name, "--count", 2, "--seed", seed) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")


def test_one_kind_without_masks(tmp_path: Path) -> None:
    assert synthesise(tmp_path, "--count", 2, "--kind", "stain", "--normal", 0, "--no-masks") == 0
    assert sorted(content(tmp_path)) == ["00000-stain.png", "00001-stain.png", "facts.jsonl"]


def test_unknown_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synthesise(tmp_path, "--kind", "sadness") == 2
    assert "sadness" in capsys.readouterr().err
