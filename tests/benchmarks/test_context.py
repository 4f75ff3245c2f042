"""The context benchmark on a random model and a few pictures: it says what an inspector says, and fills its tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.data.layouts import discover
from anomaly_ov.data.samples import DataSet
from anomaly_ov.inspector import Inspector
from model_fixtures import small_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripts import each other by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import context

    return context


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Twelve normal and eight anomalous pictures of 48 pixels, the latter with masks."""
    rng = np.random.default_rng(0)
    for name, count in (("normal", 12), ("abnormal", 8)):
        for folder in (name, "masks"):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(90, 130, (48, 48, 3), np.uint8)
            mask = np.zeros((48, 48), np.uint8)
            if name == "abnormal":
                mask[8 + i : 24 + i, 10:26] = 255
                pixels[mask > 0] = 255
                Image.fromarray(mask).save(tmp_path / "set/masks" / f"{i}.png")
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    return discover(tmp_path / "set")


@pytest.fixture
def store(benchmark: Any, tmp_path: Path) -> Iterator[Any]:
    folder = tmp_path / "store"
    folder.mkdir()
    with torch.inference_mode():
        yield benchmark.TokenStore(small_model(), folder, "cpu", batch_size=3)


@pytest.mark.parametrize("kind", ["none", "references", "folder"])
def test_stored_pictures_score_as_an_inspector_scores_them(
    benchmark: Any, store: Any, data: DataSet, kind: str
) -> None:
    inspector, samples = Inspector(small_model(), device="cpu"), list(data)
    pictures = benchmark.sources(samples)
    store.add(pictures)
    ours = theirs = None
    if kind == "references":
        ours, theirs = store.builder.references(pictures[:3], "x"), inspector.context(pictures[:3])
    if kind == "folder":
        ours, theirs = store.builder.folder(pictures, "x"), inspector.folder_context(pictures)
    findings = list(inspector.stream(pictures, context=theirs))
    found = benchmark.score(store, samples, ours, pixels=True)
    tolerance = 1e-7 if kind == "none" else 1e-5
    np.testing.assert_allclose(found.score, [one.score for one in findings], atol=tolerance)
    if kind != "none":
        np.testing.assert_allclose(found.context, [one.score_context for one in findings], atol=tolerance)
    assert found.pixels.images == 20
    assert np.ptp(found.score if kind == "none" else found.context) > 10 * tolerance


def test_each_picture_is_encoded_once_and_unreadable_ones_are_left_out(
    benchmark: Any, store: Any, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = list(data)
    samples[2].image.write_bytes(b"broken")
    pictures, seen = benchmark.sources(samples), []
    store.add(pictures, lambda: seen.append(1))
    assert len(seen) == len(store) == 20
    monkeypatch.setattr(store._runner, "forward", None)  # whatever comes now must not need the networks
    store.add(pictures)
    assert [store.readable(one) for one in pictures] == [i != 2 for i in range(20)]
    assert [one is None for one in store.encode(pictures)] == [i == 2 for i in range(20)]
    assert store.picture(pictures[2]) is None
    with pytest.raises(KeyError):
        store.picture(benchmark.Source("elsewhere.png", "elsewhere"))


def test_the_whole_protocol(benchmark: Any, store: Any, data: DataSet, tmp_path: Path) -> None:
    protocol = benchmark.Protocol(draws=2, contaminations=2, normals=12, resamples=20)
    shutil.copytree(tmp_path / "set", tmp_path / "other")
    said: list[str] = []
    sets = [data, discover(tmp_path / "other")]
    result = benchmark.measure(store, sets, protocol, [("set", "other"), ("set", "absent")], said.append)
    text = json.dumps(result, allow_nan=False)
    assert str(tmp_path) not in text
    one = result["sets"][0]
    assert (one["normal"], one["anomalous"]) == (12, 8)
    assert one["folder"]["transductive"] is True
    assert one["folder"]["largest_difference_between_orders"] == 0
    assert one["folder"]["orders"] == [one["folder"]["auroc"]] * 3
    assert [len(one["references"][count]["draws"]) for count in ("1", "4")] == [2, 2]
    assert one["references"]["16"] is None
    assert set(result["mean"]["references"]) == {"1", "4"}
    assert 0 <= one["folder"]["pixel_auroc"] <= 1
    (mixed,) = result["mixtures"]
    assert mixed["sets"].keys() == {"set", "other"}
    (dirty, _) = result["contamination"]
    assert dirty["normals"] == 12
    assert [len(draws) for draws in dirty["draws"].values()] == [2, 2, 2]
    last = dirty["mean"]["0.4"]
    assert last["scored_alike"] == last["in_folder"]  # the folder of 40 % holds all that is scored


def test_train_goods_are_references_and_counted_in_a_second_entry(benchmark: Any, store: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name, count in (("train/good", 4), ("test/good", 4), ("test/cut", 4)):
        (tmp_path / "tire" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (48, 48, 3), np.uint8)).save(tmp_path / "tire" / name / f"{i}.png")
    data = discover(tmp_path / "tire")
    (unit,) = benchmark.units_of(data)
    references, rest = benchmark.drawn(unit, 4, 0)
    assert {sample.split for sample in references} == {"train"}
    assert len(rest) == 8
    protocol = benchmark.Protocol(draws=1, contaminations=0, resamples=20)
    result = benchmark.measure(store, [data], protocol, [], lambda text: None)
    (also,) = result["with_train_goods"]
    assert (also["set"], also["normal"]) == ("tire, train goods too", 8)
    assert result["sets"][0]["normal"] == 4


def test_the_readme_table_has_a_row_per_set_and_their_mean(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import readme_tables

    def figures(value: float, pixel: float | None = None) -> dict[str, Any]:
        return {"auroc": value, "interval": [value - 0.1, value + 0.1], "pixel_auroc": pixel, "pro": pixel}

    four = {"mean": 0.8, "sd": 0.02, "pixel_auroc": 0.9, "pro": 0.7}
    found = {
        "model": {"name": "m", "revision": "r"},
        "protocol": {"draws": 5},
        "sets": [
            {
                "set": "tile",
                "normal": 9,
                "anomalous": 3,
                "none": figures(0.6, 0.5),
                "folder": figures(0.7, 0.6),
                "references": {"4": four, "16": None},
            }
        ],
        "mean": {"none": 0.6, "folder": 0.7, "references": {"4": {"mean": 0.8, "sd": None}}},
        "with_train_goods": [],
    }
    lines = readme_tables.context(found)
    assert lines[0] == "| set | normal / anomalous | none | folder (transductive) | 4 references |"
    assert lines[2] == "| tile | 9 / 3 | 60.0 [50.0, 70.0] | 70.0 [60.0, 80.0] | 80.0 ± 2.0 |"
    assert lines[3] == "| mean of 1 | | **60.0** | **70.0** | **80.0** |"
    assert lines[4] == "| tile, pixel AUROC | | 50.0 | 60.0 | 90.0 |"
    assert readme_tables.context(None) == []
    page = "a\n<!-- context:begin -->\nold\n<!-- context:end -->\nb\n"
    monkeypatch.setattr(readme_tables, "RESULTS", tmp_path)
    assert readme_tables.filled(page) == page.replace("old\n", "")
    (tmp_path / "context.json").write_text(json.dumps(found))
    assert "\n| tile | 9 / 3 |" in readme_tables.filled(page)
