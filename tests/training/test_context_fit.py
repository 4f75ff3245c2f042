"""The fusion of expert and context, fitted on three small sets by experts of folds; and its verb ``train context``."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.cli.main import run
from anomaly_ov.configuration import parse, to_mapping
from anomaly_ov.context.bank import Usual
from anomaly_ov.context.tokens import Scales
from anomaly_ov.data.layouts import discover
from anomaly_ov.errors import CheckpointMismatch, DataError, WeightsError
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.models.config import ContextConfig
from anomaly_ov.models.hub import WEIGHTS_FILE
from anomaly_ov.models.model import CARD_FILE, AnomalyModel
from anomaly_ov.training import context_fit
from anomaly_ov.training.context_fit import EXPERT_WEIGHTS, TOPS, WIDER, ContextPlan, fit_context
from anomaly_ov.training.leave_one_out import rank_auroc
from anomaly_ov.training.with_fusion import with_fusion
from model_fixtures import small_config, small_model

NORMALS = {"masked": 18, "plain": 6, "other": 3}
ODD = 6
SHIFT = np.uint8(6)
"""Small enough that no way of scoring is perfect: a figure of 1 would prove little."""
WAYS = ["folder", "1", "4", "16"]
PLAN = ContextPlan()


def textured_set(folder: Path, normals: int, seed: int, masks: bool) -> Path:
    """Coloured noise is normal; in ``ODD`` further pictures a square of it is lighter."""
    rng = np.random.default_rng(seed)
    low_3 = rng.integers(20, 160, 3)
    for name in ("good", "bad", *(["masks"] if masks else [])):
        (folder / name).mkdir(parents=True)
    for k in range(normals + ODD):
        pixels = rng.integers(low_3, low_3 + 40, (40, 40, 3)).astype(np.uint8)
        if k < normals:
            Image.fromarray(pixels).save(folder / "good" / f"{k}.png")
            continue
        mask = np.zeros((40, 40), np.uint8)
        top, left = rng.integers(0, 24, 2)
        mask[top : top + 16, left : left + 16] = 255
        pixels[mask > 0] += SHIFT
        Image.fromarray(pixels).save(folder / "bad" / f"{k}.png")
        if masks:
            Image.fromarray(mask).save(folder / "masks" / f"{k}.png")
    return folder


def fold_of(model: AnomalyModel, folds: Path, name: str) -> None:
    model.save_pretrained(folds / f"without-{name}" / "model", torch.float16)


def with_other_expert(seed: int) -> AnomalyModel:
    """The encoder of ``small_model()`` with the expert of another seed."""
    model = small_model()
    model.expert.load_state_dict(small_model(seed).expert.state_dict())
    return model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data/masked`` and two sets without masks, ``model``, and in ``folds`` an expert of its own for each set."""
    root = tmp_path_factory.mktemp("root")
    for seed, (name, normals) in enumerate(NORMALS.items()):
        textured_set(root / "data" / name, normals, seed, masks=name == "masked")
        fold_of(with_other_expert(10 + seed), root / "folds", name)
    small_model().save_pretrained(root / "model", torch.float16, card="# Its card")
    return root


def sets_of(root: Path, *names: str) -> list[Path]:
    return [root / "data" / name for name in names or NORMALS]


@pytest.fixture(scope="module")
def fitted(root: Path) -> tuple[ContextConfig, dict[str, Any]]:
    """What is fitted on all sets, and its figures."""
    config = fit_context(sets_of(root), root / "model", root / "folds", root / "fit", PLAN)
    return config, figures(root / "fit")


def figures(out: Path) -> dict[str, Any]:
    def refuse(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads((out / "context.json").read_text(), parse_constant=refuse)
    return found


def test_the_config_is_written_and_in_range(root: Path, fitted: tuple[ContextConfig, dict[str, Any]]) -> None:
    config, _ = fitted
    written = json.loads((root / "fit" / "context_config.json").read_text())
    assert parse(ContextConfig, written, "context_config.json") == config
    assert 0 < config.threshold < 1
    assert 0 < config.map_threshold < 1
    assert config.context_weight > 0
    assert config.map_context_weight > 0
    assert min(config.half, config.usual, config.spread, config.expert_spread) > 0
    assert min(config.usual_spread, config.expert_usual_spread) >= 0.05
    assert Scales(config.whole_top, config.detail_top) in TOPS
    trials = sum(
        ODD + normals + sum(ODD + normals - n for n in (1, 1, 4, 4, 16, 16) if n < normals)
        for normals in NORMALS.values()
    )
    assert config.threshold_source == (
        f"F1-max on leave-one-set-out scores with contexts of masked, plain, other (n = {trials}, balanced)"
    )


def grid_of(table: dict[str, Any]) -> dict[tuple[float, float, float], float]:
    """Mean AUROC by (share of the base view, share of the crops, expert's weight)."""
    pattern = re.compile(r"whole ([\d.]+), detail ([\d.]+), expert weight ([\d.]+)")
    found = {}
    for key, value in table["grid"].items():
        match = pattern.fullmatch(key)
        assert match is not None, key
        whole, detail, weight = map(float, match.groups())
        found[whole, detail, weight] = value
    return found


def test_the_smallest_share_of_details_within_noise_and_the_best_with_it_are_chosen(
    fitted: tuple[ContextConfig, dict[str, Any]],
) -> None:
    config, table = fitted
    assert len(table["grid"]) == len(TOPS) * len(EXPERT_WEIGHTS)
    assert len(table["map_grid"]) == len(EXPERT_WEIGHTS)
    grid = grid_of(table)
    assert {(whole, detail) for whole, detail, _ in grid} == {(tops.whole, tops.detail) for tops in TOPS}
    map_best = max(table["map_grid"], key=table["map_grid"].get).split()
    good = [detail for (_, detail, _), value in grid.items() if value >= max(grid.values()) - context_fit.NOISE]
    assert config.detail_top == min(good)
    with_it = {key: value for key, value in grid.items() if key[1] == config.detail_top}
    whole, _, weight = max(with_it, key=lambda key: with_it[key])
    assert config.whole_top == whole
    assert config.expert_weight == pytest.approx(weight * config.context_weight)
    assert config.map_expert_weight == pytest.approx(float(map_best[-1]) * config.map_context_weight)


def folder_trial(dataset: str, usual: Usual, way: str = "folder") -> context_fit._Trial:
    """A trial of which only what is usual in it counts; the same for every pair of shares."""
    none = np.empty(0)
    pixels = (none, none, none.astype(bool))
    return context_fit._Trial(dataset, way, none.astype(int), none, none, (usual,) * len(TOPS), pixels)


def test_priors_are_medians_over_sets_and_how_much_objects_differ() -> None:
    """Set ``many`` has two categories: together they count as much as the one of ``single``."""
    trials = [
        folder_trial("many", Usual(math.exp(0), 1.0, 5, 0.1, 0.4)),
        folder_trial("many", Usual(math.exp(1), 2.0, 5, 0.3, 0.6)),
        folder_trial("single", Usual(math.exp(3), 7.0, 5, 0.4, 0.8)),
        folder_trial("single", Usual(math.exp(9), 99.0, 1, 9.0, 9.0), way="1"),  # draws of good pictures say nothing
    ]
    found = context_fit._typical(trials, 3)
    assert Scales(found.whole_top, found.detail_top) == TOPS[3]
    assert found.usual == pytest.approx(((1 + math.e) / 2 + math.exp(3)) / 2)
    assert (found.spread, found.expert_usual, found.expert_spread) == pytest.approx((0.3, 4.25, 0.65))
    # Means 1.75 and 4.25, the squares of what is left by 1/4, 1/4 and 1/2.
    expected = math.sqrt(1.75**2 / 4 + 0.75**2 / 4 + 1.25**2 / 2), math.sqrt(3.25**2 / 4 + 2.25**2 / 4 + 2.75**2 / 2)
    assert found.usual_spread == pytest.approx(WIDER * expected[0])
    assert found.expert_usual_spread == pytest.approx(WIDER * expected[1])
    assert WIDER >= 1


def test_of_one_category_nothing_is_known_of_how_much_objects_differ() -> None:
    found = context_fit._typical([folder_trial("single", Usual(0.2, 1.0, 5, 0.1, 0.4))], 0)
    assert (found.usual_spread, found.expert_usual_spread) == (0.05, 0.05)


def test_figures_name_every_set_in_every_way_that_it_has(fitted: tuple[ContextConfig, dict[str, Any]]) -> None:
    _, table = fitted
    assert set(table) == {"auroc", "pixel_auroc", "grid", "map_grid", "provenance", "plan", "model"}
    assert table["plan"] == to_mapping(PLAN)
    expected = {"folder": set(NORMALS), "1": set(NORMALS), "4": {"masked", "plain"}, "16": {"masked"}}
    for part in ("expert", "context", "fused"):
        assert {way: set(row) for way, row in table["auroc"][part].items()} == expected
        assert all(0 <= value <= 1 for row in table["auroc"][part].values() for value in row.values())
    for part in ("expert", "fused"):
        assert set(table["pixel_auroc"][part]) == {f"masked, {way}" for way in WAYS}
    assert table["auroc"]["context"]["16"]["masked"] > 0.8
    assert table["pixel_auroc"]["fused"]["masked, 16"] > 0.7


def test_sets_count_alike_however_few_ways_they_have(root: Path, fitted: tuple[ContextConfig, dict[str, Any]]) -> None:
    config, table = fitted
    fused = table["auroc"]["fused"]
    of_set = [np.mean([row[name] for row in fused.values() if name in row]) for name in NORMALS]
    chosen = (config.whole_top, config.detail_top)
    of_tops = [value for key, value in grid_of(table).items() if key[:2] == chosen]
    assert max(of_tops) == pytest.approx(np.mean(of_set))


def test_the_same_again(root: Path, tmp_path: Path, fitted: tuple[ContextConfig, dict[str, Any]]) -> None:
    config, table = fitted
    assert fit_context(sets_of(root), root / "model", root / "folds", tmp_path, PLAN) == config
    again = figures(tmp_path)
    assert {**again, "provenance": None} == {**table, "provenance": None}


def scores(inspector: Inspector, name: str, data: Path) -> tuple[Any, Any, Any]:
    """Labels, scores alone, and scores with the folder's own context, as inspecting gives them."""
    samples = discover(data / name).samples
    pictures = [str(sample.image) for sample in samples]
    context = inspector.folder_context(pictures)
    alone = [finding.score for finding in inspector.stream(pictures)]
    compared = [finding.score for finding in inspector.stream(pictures, context=context)]
    return np.array([sample.label for sample in samples]), np.array(alone), np.array(compared)


def test_figures_are_those_of_inspecting_with_the_folds_expert(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_fit, "TOPS", (Scales(0.3, 0.1),))
    monkeypatch.setattr(context_fit, "EXPERT_WEIGHTS", (0.0,))  # only then are ranks free of what is fitted after them
    config = fit_context(sets_of(root, "masked"), root / "model", root / "folds", tmp_path, PLAN)
    table = figures(tmp_path)["auroc"]
    fold = with_fusion(root / "folds/without-masked/model", config, tmp_path / "fold")
    labels, alone, compared = scores(load(str(fold), "cpu"), "masked", root / "data")
    assert table["expert"]["folder"]["masked"] == pytest.approx(rank_auroc(labels, alone))
    assert table["context"]["folder"]["masked"] == pytest.approx(rank_auroc(labels, compared))
    assert table["fused"] == table["context"]
    base = scores(load(str(root / "model"), "cpu"), "masked", root / "data")[1]
    assert rank_auroc(labels, base) != pytest.approx(rank_auroc(labels, alone))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["half", "full"])
def test_fusion_changes_nothing_but_the_config(
    dtype: torch.dtype, tmp_path: Path, fitted: tuple[ContextConfig, dict[str, Any]]
) -> None:
    model = small_model()
    model.config = replace(model.config, revision="")
    model.save_pretrained(tmp_path / "model", dtype, card="# Its card")
    assert with_fusion(tmp_path / "model", fitted[0], tmp_path / "new/out") == tmp_path / "new/out"
    before, after = (AnomalyModel.from_pretrained(tmp_path / name) for name in ("model", "new/out"))
    assert after.config == replace(before.config, context=fitted[0])
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    for name in (WEIGHTS_FILE, CARD_FILE):
        assert (tmp_path / "new/out" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_a_model_without_a_card_gets_none(
    root: Path, tmp_path: Path, fitted: tuple[ContextConfig, dict[str, Any]]
) -> None:
    small_model().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / CARD_FILE).unlink()
    out = with_fusion(tmp_path / "model", fitted[0], tmp_path / "out")
    assert AnomalyModel.from_pretrained(out).config.context == fitted[0]
    assert not (out / CARD_FILE).exists()


def test_a_fold_of_another_encoder_is_refused(root: Path, tmp_path: Path) -> None:
    fold_of(small_model(1), tmp_path / "folds", "masked")
    with pytest.raises(DataError, match=r"without-masked.* has another encoder"):
        fit_context(sets_of(root, "masked"), root / "model", tmp_path / "folds", tmp_path / "out", PLAN)
    assert not (tmp_path / "out").exists()


def test_a_fold_of_another_experts_shape_is_refused(root: Path, tmp_path: Path) -> None:
    config = small_config()
    fold = AnomalyModel(replace(config, expert=replace(config.expert, hidden=4)), small_model().encoder)
    fold_of(fold, tmp_path / "folds", "masked")
    with pytest.raises(CheckpointMismatch, match="without-masked"):
        fit_context(sets_of(root, "masked"), root / "model", tmp_path / "folds", tmp_path / "out", PLAN)


def test_a_missing_fold_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="without-masked"):
        fit_context(sets_of(root, "masked"), root / "model", tmp_path, tmp_path / "out", PLAN)


def test_sets_without_any_mask_cannot_fit_the_map(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture drawn from plain, other has a mask"):
        fit_context(sets_of(root, "plain", "other"), root / "model", root / "folds", tmp_path / "out", PLAN)
    assert not (tmp_path / "out").exists()


def test_a_set_of_which_too_little_is_drawn_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"masked: no category with normal and anomalous"):
        fit_context(sets_of(root, "masked"), root / "model", root / "folds", tmp_path, ContextPlan(pictures=2))


def test_figures_of_a_set_are_the_means_of_its_categories(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_fit, "TOPS", (Scales(0.3, 0.1),))
    # Ranks by the context alone do not hang on the priors, which are those of all categories together.
    monkeypatch.setattr(context_fit, "EXPERT_WEIGHTS", (0.0,))
    found = {}
    for seed, name in enumerate(("a", "b", "many")):
        fold_of(with_other_expert(10), tmp_path / "folds", name)
        data = tmp_path / "data/many"
        if name != "many":
            textured_set(data / name, 5, seed, masks=True)
            data = data / name
        fit_context([data], root / "model", tmp_path / "folds", tmp_path / name, PLAN)
        found[name] = figures(tmp_path / name)
    for part in ("expert", "fused"):
        for way in ("folder", "1", "4"):
            of_each = [found[name]["pixel_auroc"][part][f"{name}, {way}"] for name in "ab"]
            assert of_each[0] != of_each[1]
            assert found["many"]["pixel_auroc"][part][f"many, {way}"] == pytest.approx(np.mean(of_each))
            of_each = [found[name]["auroc"][part][way][name] for name in "ab"]
            assert found["many"]["auroc"][part][way]["many"] == pytest.approx(np.mean(of_each))


def test_the_plan_bounds_what_is_looked_at(root: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):  # the same pictures in both, so that as many normal ones are drawn
        textured_set(tmp_path / "data/many" / name, 5, 7, masks=True)
    fold_of(small_model(), tmp_path / "folds", "many")
    counts = []
    for categories in (1, 2):
        plan = ContextPlan(pictures=8, categories=categories)
        config = fit_context(sets_of(tmp_path, "many"), root / "model", tmp_path / "folds", tmp_path / "out", plan)
        counts.append(int(config.threshold_source.split("n = ")[1].split(",")[0]))
    # The folder's eight, and those that one reference leaves, or four; sixteen leave none.
    assert counts[0] in (8 + 7 + 7, 8 + 7 + 7 + 4 + 4)
    assert counts[1] == 2 * counts[0]


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "context", "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--data", "--model", "--folds", "--out", "--pictures", "--categories", "--device", "--seed"):
        assert option in said


def test_the_verb_writes_a_model_that_inspects(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fitted: tuple[ContextConfig, dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    data = [word for folder in sets_of(root) for word in ("--data", str(folder))]
    common = ["--model", str(root / "model"), "--folds", str(root / "folds"), "--out", str(out)]
    assert run(["train", "context", *data, *common]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "model written to" in said.err
    inspector = load(str(out / "model"), "cpu")
    context = inspector.context(str(root / "data/masked/good"))
    assert context.config == fitted[0]
    assert inspector.threshold_with(context).value == fitted[0].threshold


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"--data": None}, 2, "Missing option"),
        ({"--model": None}, 2, "Missing option"),
        ({"--folds": None}, 2, "Missing option"),
        ({"--out": None}, 2, "Missing option"),
        ({"--pictures": "7"}, 2, "--pictures"),
        ({"--categories": "0"}, 2, "--categories"),
        ({"--seed": "-1"}, 2, "--seed"),
        ({"--recipe": "x"}, 2, "--recipe"),
        ({"--data": "nowhere"}, 2, "nowhere"),
        ({"--model": "colossal"}, 4, "no model called 'colossal'"),
        ({"--folds": "nowhere"}, 4, "without-masked"),
        ({"--device": "cuda:99"}, 5, "cuda:99"),
    ],
    ids=lambda value: " ".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else "",
)
def test_wrong_arguments_end_in_one_line(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str | None],
    code: int,
    said: str,
) -> None:
    options: dict[str, str | None] = {
        "--data": str(root / "data/masked"),
        "--model": str(root / "model"),
        "--folds": str(root / "folds"),
        "--out": str(tmp_path / "out"),
    }
    given = [word for pair in (options | changed).items() if pair[1] is not None for word in pair]
    assert run(["train", "context", *map(str, given)]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
