"""metric_fit.py: directions that good images share count less, and no fold's metric saw its set."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_ov.context.own_patches import own_patch_distance
from anomaly_ov.errors import CheckpointMismatch, DataError
from anomaly_ov.inspector import load
from anomaly_ov.models.folder import read_config, read_metric
from anomaly_ov.models.token_maps import unit
from anomaly_ov.scoring.evidence import log_distance
from anomaly_ov_lab.evaluation.metrics import auroc
from anomaly_ov_lab.training import metric_fit
from anomaly_ov_lab.training.metric_fit import Group, MetricPlan, fit_metric, groups_of, learn_metrics
from anomaly_ov_lab.training.runs import labelled_sets
from anomaly_ov_lab.training.scoring_fit import ScoringPlan, fit_scoring
from model_fixtures import save_small_model
from training_fixtures import labelled_folder

TOP = 0.05
SIDE, WIDTH = 6, 16
PLAN = MetricPlan(width=12, steps=100, rate=0.05, decay=1e-3, learned=0.7)


def group(name: str, seed: int, images: int = 16) -> Group:
    """Cells differ much in eight directions, in good images too; a defect moves one cell a little in a ninth."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    places = np.argwhere(np.ones((SIDE, SIDE), bool))
    tokens = []
    for label in labels:
        values = np.zeros((SIDE * SIDE, WIDTH))
        values[:, 0] = 2
        values[:, 1:9] = generator.normal(size=(SIDE * SIDE, 8))
        values[:, 9] = generator.normal(size=SIDE * SIDE) * 0.05
        values[generator.integers(SIDE * SIDE), 9] += label
        tokens.append(torch.from_numpy(unit(values.astype(np.float32))))
    near = tuple(metric_fit._near(places) for _ in labels)
    return Group(name, labels.astype(np.int64), tuple(tokens), near)


def told_apart(own: Group, metric_DM: np.ndarray) -> float:
    found = []
    for tokens_QD, near_QQ in zip(own.tokens_IQD, own.near_IQQ, strict=True):
        compared = torch.from_numpy(unit(tokens_QD.numpy() @ metric_DM))
        found.append(float(metric_fit._suspicion(compared, compared, TOP, near_QQ)))
    return auroc(own.labels_I, np.array(found)) or 0.0


def test_on_a_set_never_seen_the_directions_of_defects_count_and_those_of_good_images_do_not() -> None:
    metric_DM = fit_metric([group("a", 0), group("b", 1)], TOP, PLAN)
    other = group("c", 2, images=60)
    assert metric_DM.shape == (WIDTH, PLAN.width)
    assert told_apart(other, np.eye(WIDTH, dtype=np.float32)) < 0.75
    assert told_apart(other, metric_DM) > 0.95


def test_a_second_fit_gives_the_same_map_and_another_seed_another() -> None:
    groups = [group("a", 0), group("b", 1)]
    plan = replace(PLAN, steps=5)
    first = fit_metric(groups, TOP, plan)
    np.testing.assert_array_equal(fit_metric(groups, TOP, plan), first)
    assert not np.allclose(fit_metric(groups, TOP, replace(plan, seed=1)), first)


def test_with_nothing_learned_the_cosines_of_the_longest_directions_stay() -> None:
    groups = [group("a", 0), group("b", 1)]
    metric_DM = fit_metric(groups, TOP, replace(PLAN, width=10, steps=1, learned=0.0))
    tokens = groups[0].tokens_IQD[0].numpy()  # ten directions hold them whole
    compared = unit(tokens @ metric_DM)
    np.testing.assert_allclose(compared @ compared.T, tokens @ tokens.T, atol=1e-4)
    assert np.linalg.norm(tokens @ metric_DM, axis=1).mean() == pytest.approx(1, abs=0.05)


def test_suspicion_is_that_of_the_detectors_own_patches() -> None:
    own = group("a", 0)
    places = np.argwhere(np.ones((SIDE, SIDE), bool))
    for tokens_QD, near_QQ in zip(own.tokens_IQD, own.near_IQQ, strict=True):
        strongest = np.sort(log_distance(own_patch_distance(tokens_QD.numpy(), places)))[::-1]
        expected = strongest[: max(1, round(TOP * len(strongest)))].mean()
        found = float(metric_fit._suspicion(tokens_QD, tokens_QD, TOP, near_QQ))
        assert found == pytest.approx(expected, abs=0.02)  # the search is in bfloat16


def test_nothing_to_learn_on_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        fit_metric([], TOP, PLAN)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"steps": 0}, {"learned": 1.5}])
def test_impossible_plans_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        MetricPlan(**wrong)  # type: ignore[arg-type]


# --- end to end ------------------------------------------------------------------------------------------------------

NAMES = ("one", "two", "three")
DRAWN = ScoringPlan(images=8, categories=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(NAMES):
        labelled_folder(root / name, 9, seed)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def folds(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folds")
    for name in NAMES:
        shutil.copytree(model, root / f"without-{name}/model")
    return root


def metric_of(folder: Path) -> np.ndarray:
    found = read_metric(folder, read_config(folder))
    assert found is not None
    return found


def test_each_fold_has_a_metric_that_never_saw_its_set(data: Path, model: Path, folds: Path, tmp_path: Path) -> None:
    sets = labelled_sets([data / name for name in NAMES])
    plan = replace(PLAN, width=6, steps=4)
    made = learn_metrics(sets, model, tmp_path / "out", plan, DRAWN, folds)
    assert made == tmp_path / "out/model"
    assert metric_of(made).shape[1] == 6
    engine = load(str(model), "cpu").engine
    for name in NAMES:
        groups = [one for own in sets if own.name != name for one in groups_of(own, engine, DRAWN)]
        expected = fit_metric(groups, engine.config.scoring.top, plan)
        np.testing.assert_allclose(metric_of(tmp_path / f"out/folds/without-{name}/model"), expected, atol=1e-3)
        assert not np.allclose(metric_of(made), expected, atol=1e-3)
    # Scored with it, by engines that compare what inspections compare.
    experts = {name: load(str(tmp_path / f"out/folds/without-{name}/model"), "cpu").engine for name in NAMES}
    with pytest.raises(DataError, match="no metric"):
        fit_scoring(sets, engine, experts, tmp_path / "fit", DRAWN)
    fit_scoring(sets, load(str(made), "cpu").engine, experts, tmp_path / "fit", DRAWN)
    assert json.loads((tmp_path / "fit/scoring.json").read_text())["held_out"].keys() == set(NAMES)


def test_a_killed_run_goes_on_and_one_of_other_settings_is_refused(
    data: Path, model: Path, folds: Path, tmp_path: Path
) -> None:
    sets = labelled_sets([data / name for name in NAMES])
    plan = replace(PLAN, width=6, steps=2)
    out = tmp_path / "out"
    learn_metrics(sets, model, out, plan, DRAWN, folds)
    first = metric_of(out / "folds/without-two/model")
    shutil.rmtree(out / "folds/without-two")
    told: list[str] = []

    def progress(name: str) -> metric_fit.Progress:
        return lambda done, total: told.append(name)

    learn_metrics(sets, model, out, plan, DRAWN, folds, progress)
    np.testing.assert_array_equal(metric_of(out / "folds/without-two/model"), first)
    assert {name for name in told if name.startswith("learning")} == {"learning without two"}
    with pytest.raises(CheckpointMismatch, match="other settings"):
        learn_metrics(sets, model, out, replace(plan, steps=3), DRAWN, folds)


def test_an_inspection_compares_in_the_metric(data: Path, model: Path, tmp_path: Path) -> None:
    (one,) = labelled_sets([data / "one"])
    folder = learn_metrics([one], model, tmp_path / "out", replace(PLAN, width=6, steps=2), DRAWN)
    plain, learned = load(str(model), "cpu"), load(str(folder), "cpu")
    image = str(one.samples[0].image)
    context = learned.context([image])
    assert context.bank.tokens.whole.shape[-1] == 6
    assert learned.info.revision != plain.info.revision
    assert learned.inspect(image).score != plain.inspect(image).score
