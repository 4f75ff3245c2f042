"""The benchmark of the detector on a random model and a few images: it says what an inspector says, and is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from anomaly_ov.inspector import Inspector
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.scoring.score import logit
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.data.samples import DataSet, read_mask
from anomaly_ov_lab.evaluation.pixel_metrics import pixel_metrics
from model_fixtures import small_model

ALL = ModeConfig(own=0.5, expert=0.2)
WEIGHED = {"alone": ALL, "few": ALL, "references": ALL, "folder": ALL}


def labelled(folder: Path, normal: int = 12, anomalous: int = 8, seed: int = 0) -> DataSet:
    """Images of 48 pixels, the anomalous ones with masks."""
    rng = np.random.default_rng(seed)
    for name, count in (("normal", normal), ("abnormal", anomalous)):
        for part in (name, "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(90, 130, (48, 48, 3), np.uint8)
            mask = np.zeros((48, 48), np.uint8)
            if name == "abnormal":
                mask[8 + i : 24 + i, 10:26] = 255
                pixels[mask > 0] = 255
                Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return discover(folder)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return labelled(tmp_path / "set")


@pytest.fixture
def store(benchmark: Any) -> Any:
    """In full precision: distances of a small random network lie close to each other."""
    return benchmark.Store.of(TorchEngine(small_model(**WEIGHED), "cpu", "float32"), np.float32)


def silent(benchmark: Any) -> Any:
    return benchmark.Pace("x", 1000, lambda text: None)


@pytest.mark.parametrize("kind", ["none", "references", "folder"])
def test_stored_images_score_as_an_inspector_scores_them(benchmark: Any, store: Any, data: DataSet, kind: str) -> None:
    inspector, samples = Inspector(small_model(**WEIGHED), device="cpu"), list(data)
    sources = benchmark.sources(samples)
    store.add(sources)
    ours = theirs = None
    if kind == "references":
        ours, theirs = store.builder.references(sources[:5], "x"), inspector.context(sources[:5])
    if kind == "folder":
        ours, theirs = store.builder.folder(sources, "x"), inspector.folder_context(sources)
    findings = list(inspector.stream(sources, context=theirs))
    found = benchmark.score(store, samples, ours, silent(benchmark), pixels=True)
    ours, theirs = logit(found.score), logit([one.score for one in findings])
    np.testing.assert_allclose(ours, theirs, atol=2e-2)
    assert np.ptp(ours) > 1
    assert found.pixels.images == 20
    maps = [finding.significance_map for finding in findings]
    masks = [np.zeros((48, 48), bool) if one.mask is None else read_mask(one.mask) for one in samples]
    assert found.pixels.auroc == pytest.approx(pixel_metrics(masks, maps).auroc, abs=2e-3)


def test_half_precision_moves_no_score_far(benchmark: Any, store: Any, data: DataSet) -> None:
    half = benchmark.Store.of(store.engine)
    assert half.precision is np.float16
    samples = list(data)
    both = []
    for one in (store, half):
        context = one.builder.folder(benchmark.sources(samples), "x")
        both.append(benchmark.score(one, samples, context, silent(benchmark), pixels=False).score)
    np.testing.assert_allclose(*both, atol=0.03)
    assert half.megabytes == store.megabytes / 2


def test_each_image_is_looked_at_once_and_unreadable_ones_are_left_out(
    benchmark: Any, store: Any, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = list(data)
    samples[2].image.write_bytes(b"broken")
    sources, seen = benchmark.sources(samples), []
    store.add(sources, lambda: seen.append(1))
    assert len(seen) == len(store.kept) == 20
    monkeypatch.setattr(TorchEngine, "encode", None)  # whatever comes now must not need the networks
    store.add(sources)
    assert [one is None for one in store.encode(sources)] == [i == 2 for i in range(20)]
    assert store.image(sources[2]) is None
    found = benchmark.score(store, samples, None, silent(benchmark), pixels=False)
    assert len(found.score) == 19
    with pytest.raises(KeyError):
        store.image(benchmark.Source("elsewhere.png", "elsewhere"))


@pytest.mark.parametrize(
    ("without", "config"),
    [
        ("mirror", {"mirror": False}),
        ("own_patches", {"own_patches": False, "alone": replace(ALL, own=0)}),
        ("expert", {name: replace(ALL, expert=0) for name in WEIGHED}),
    ],
)
def test_an_ablation_is_the_detector_with_that_switch(
    benchmark: Any, store: Any, data: DataSet, without: str, config: dict[str, Any]
) -> None:
    for sample in data:  # symmetric images, so that the mirror counts
        with Image.open(sample.image) as image:
            half = np.asarray(image)[:, :24]
        Image.fromarray(np.concatenate([half, half[:, ::-1]], 1)).save(sample.image)
    samples, sources = list(data), benchmark.sources(data)
    store.add(sources)
    less = store.without(without)
    inspector = Inspector(small_model(**WEIGHED | config), device="cpu")
    context = inspector.folder_context(sources)
    for ours, theirs in ((None, None), (less.builder.folder(sources, "x"), context)):
        found = benchmark.score(less, samples, ours, silent(benchmark), pixels=False).score
        findings = inspector.stream(sources, context=theirs)
        np.testing.assert_allclose(found, [one.score for one in findings], atol=1e-4)
    whole = benchmark.score(store, samples, None, silent(benchmark), pixels=False).score
    assert not np.allclose(whole, benchmark.score(less, samples, None, silent(benchmark), pixels=False).score)


def test_an_image_without_own_patches_and_expert_weight_is_judged_by_the_expert(benchmark: Any) -> None:
    from evidence_store import ablated

    assert ablated(ScoringConfig(), "own_patches").alone.expert == 1


def test_the_whole_protocol_of_one_set(benchmark: Any, store: Any, data: DataSet, tmp_path: Path) -> None:
    protocol = benchmark.Protocol(draws=2, resamples=20, without=("mirror",))
    said: list[str] = []
    (one,) = benchmark.measure_set(store, data, protocol, said.append)
    assert str(tmp_path) not in json.dumps(one, allow_nan=False)
    assert (one["set"], one["normal"], one["anomalous"], one["unreadable"]) == ("set", 12, 8, 0)
    assert one["folder"]["transductive"] is True
    assert [len(one["references"][count]["draws"]) for count in ("1", "4")] == [2, 2]
    assert one["references"]["16"] is None
    assert [draw["measured"] for draw in one["references"]["4"]["draws"]] == [16, 16]
    for way in (one["alone"], one["folder"], one["references"]["4"]):
        assert all(0 <= way[name] <= 1 for name in ("auroc", "false_alarms", "misses", "pixel_auroc", "pro"))
    assert one["without"]["mirror"]["references"]["16"] is None
    assert any("4 references" in text for text in said)


def test_rates_are_those_at_the_models_own_threshold(benchmark: Any) -> None:
    labels, scores = np.array([0, 0, 0, 0, 1, 1]), np.array([0.1, 0.5, 0.6, 0.2, 0.49, 0.5])
    found = benchmark.figures(benchmark.Scores(labels, scores, None), benchmark.Protocol(resamples=20))
    assert (found["false_alarms"], found["misses"], found["pro"]) == (0.5, 0.5, None)


def test_references_come_from_the_train_split_and_draws_are_nested(benchmark: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name, count in (("train/good", 6), ("test/good", 30), ("test/cut", 30)):
        (tmp_path / "tire" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / "tire" / name / f"{i}.png")
    (unit,) = benchmark.units_of(discover(tmp_path / "tire"))
    assert len(unit.tested) == 60
    one, four = (benchmark.drawn(unit, count, 3) for count in (1, 4))
    assert {sample.split for sample in four[0]} == {"train"}
    assert four[0][:1] == one[0]
    assert len(four[1]) == 60
    few = [benchmark.drawn(unit, 4, draw, 20)[1] for draw in range(2)]
    assert few[0] == few[1]
    assert len(few[0]) == 20
    assert benchmark.drawn(unit, 16, 0) is None


def test_a_killed_run_goes_on_with_the_next_set(
    benchmark: Any, tmp_path: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    for seed, name in enumerate(("one", "two")):
        labelled(tmp_path / name, seed=seed)
    app = typer.Typer()
    app.command()(benchmark.main)
    out = tmp_path / "detector.json"
    command = [str(tmp_path / "one"), str(tmp_path / "two"), "--model", str(small_folder), "--draws", "1"]
    command += ["--out", str(out)]
    measured: list[str] = []
    whole = benchmark.measure_set

    def watched(store: Any, dataset: DataSet, *arguments: Any) -> Any:
        measured.append(dataset.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return whole(store, dataset, *arguments)

    monkeypatch.setattr(benchmark, "measure_set", watched)
    assert CliRunner().invoke(app, command).exit_code != 0
    first = json.loads(out.read_text())["sets"]
    assert [one["set"] for one in first] == ["one"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert measured == ["one", "two", "two"]
    record = json.loads(out.read_text())
    assert record["sets"][0] == first[0]
    assert [one["set"] for one in record["sets"]] == ["one", "two"]
    assert record["threshold"] == 0.5
    assert CliRunner().invoke(app, [*command, "--again"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--without", "mirror"]).exit_code == 0  # another protocol
    assert measured[3:] == ["one", "two", "one", "two"]


# --- the generated tables ---------------------------------------------------------------------------------------------


def entry(name: str, value: float, pixel: float | None = None, **changes: Any) -> dict[str, Any]:
    common = {"false_alarms": 0.12, "misses": 0.3, "pixel_auroc": pixel, "pro": pixel}
    figures = {"auroc": value, "interval": [value - 0.1, value + 0.1], **common}
    draws = [{"auroc": value + 0.1}, {"auroc": value + 0.2}]
    four = {"auroc": value + 0.15, "sd": 0.0707, "draws": draws, **common}
    found = {"set": name, "of": name, "normal": 9, "anomalous": 3, "unreadable": 0, "alone": figures, "folder": figures}
    return found | {"references": {"1": four, "16": None}, "without": {}} | changes


def tables(benchmark: Any, *sets: dict[str, Any], most: int | None = None) -> list[str]:
    from detector_tables import detector

    record = {
        "model": {"name": "m", "revision": "r"},
        "protocol": {"draws": 2, "measured": most},
        "threshold": 0.5,
        "sets": list(sets),
    }
    found: list[str] = detector(record)
    return found


def test_the_first_table_has_the_published_figures_beside_ours(benchmark: Any) -> None:
    names = ("br35h", "headct", "brainmri", "elpv")
    lines = tables(benchmark, *(entry(name, 0.6 + 0.1 * k) for k, name in enumerate(names)))
    assert lines[0] == (
        "| set | normal / anomalous | single image | folder (transductive) | 1 reference | 16 references "
        "| WinCLIP | AnomalyCLIP | Anomaly-OV |"
    )
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| elpv", "| brainmri", "| headct", "| br35h"]
    assert lines[2] == (
        "| elpv | 9 / 3 | 90.0 [80.0, 100.0] | 90.0 [80.0, 100.0] | 105.0 ± 7.1 | - | 74.0 | 81.5 | 83.0 |"
    )
    # The spread of the mean over sets, whose draws all move together here.
    assert lines[6] == (
        "| mean of elpv, brainmri, headct, br35h |  | **75.0** | **75.0** | **90.0 ± 7.1** | **-** "
        "| **84.3** | **90.0** | **92.5** |"
    )
    assert "| elpv | 12.0 / 30.0 | 12.0 / 30.0 | 12.0 / 30.0 | - |" in lines
    assert "| mean of 4 | **12.0 / 30.0** | **12.0 / 30.0** | **12.0 / 30.0** | **-** |" in lines
    assert lines[-1].endswith("Br35H here is a sample of 12 images.")


def test_means_only_of_sets_that_were_measured_and_pixels_only_where_there_are_masks(benchmark: Any) -> None:
    lines = tables(benchmark, entry("tire", 0.7, 0.9), entry("other", 0.7), most=5)
    assert not any(line.startswith("| mean of elpv") for line in lines)
    assert lines[2].endswith("| - | - | - |")
    pixels = lines.index("| pixel AUROC / PRO | single image | folder (transductive) | 1 reference | 16 references |")
    assert lines[pixels + 2] == "| tire | 90.0 / 90.0 | 90.0 / 90.0 | 90.0 / 90.0 | - |"
    assert lines[pixels + 3] == ""
    assert "at most 5 random images" in lines[-1]
    assert "Br35H" not in lines[-1]


def test_the_readmes_table_has_a_protocol_to_every_way_and_no_intervals(benchmark: Any) -> None:
    from detector_tables import summary

    names = ("mtd", "br35h", "headct", "brainmri", "elpv")
    record = {
        "model": {"name": "m", "revision": "r"},
        "protocol": {"draws": 2, "measured": None},
        "threshold": 0.5,
        "sets": [entry(name, 0.5 + 0.1 * k) for k, name in enumerate(names)],
    }
    lines = summary(record)
    assert lines[0] == (
        "| image AUROC, % | single image | folder | 1 reference | 16 references | WinCLIP | AnomalyCLIP | Anomaly-OV |"
    )
    assert lines[2] == (
        "| *protocol* | *zero-shot* | *batch zero-shot* | *1-shot* | *16-shot* "
        "| *zero-shot* | *zero-shot* | *zero-shot* |"
    )
    assert lines[3] == "| elpv | 90.0 | 90.0 | 105.0 | - | 74.0 | 81.5 | 83.0 |"
    assert lines[7] == "| mtd (magnetic tiles) | 50.0 | 50.0 | 65.0 | - | - | - | - |"
    assert lines[8:12] == [
        "| **mean of the 4 published** | **75.0** | **75.0** | **90.0** | **-** | **84.3** | **90.0** | **92.5** |",
        "| **mean of all 5** | **70.0** | **70.0** | **85.0** | **-** | **-** | **-** | **-** |",
        "| false alarms, %, mean of 5 | 12.0 | 12.0 | 12.0 | - | - | - | - |",
        "| misses, %, mean of 5 | 30.0 | 30.0 | 30.0 | - | - | - | - |",
    ]
    assert summary(None) == []


def test_ablations_are_means_over_all_sets(benchmark: Any) -> None:
    one = {"auroc": 0.5}
    less = {"mirror": {"alone": one, "folder": one, "references": {"1": one, "16": None}}}
    lines = tables(benchmark, entry("a", 0.6, without=less), entry("b", 0.7, without=less))
    assert "| all evidence | 65.0 | 65.0 | 80.0 | - |" in lines
    assert "| without its mirror image | 50.0 | 50.0 | 50.0 | - |" in lines
    assert not any("mirror" in line for line in tables(benchmark, entry("a", 0.6, without=less), entry("b", 0.7)))


def test_what_was_not_measured_leaves_no_table(benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import readme_tables

    page = "a\n<!-- measuring:begin -->\nold\n<!-- measuring:end -->\nb\n"
    monkeypatch.setattr(readme_tables, "RESULTS", tmp_path)
    assert readme_tables.filled(page) == page.replace("old\n", "")
    assert readme_tables.detector(None) == []
