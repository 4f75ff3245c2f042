"""Ablations: variants differ from the base in what they name, train once each, and never on a set under test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import CheckpointMismatch, ConfigError, LeakageError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import ExpertConfig, ModelConfig
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov_lab.training import ablation
from anomaly_ov_lab.training.ablation import AblationRecipe, merged, planned, protocol_of, read_ablation_recipe, train
from training_fixtures import encoder_config, labelled_folder

BASE: dict[str, Any] = {
    "name": "base",
    "sets": ["one"],
    "views": {"base_size": 32, "cap": 64, "grids": [[1, 1], [2, 2]]},
    "expert": {"hidden": 8},
    "loop": {"steps": 2, "batch": 4, "workers": 0, "warmup_steps": 1, "threads": 1},
}
RECIPE: dict[str, Any] = {
    "name": "small",
    "base": BASE,
    "seeds": [0, 1],
    "variants": {"no-look-back": {"expert": {"look_back": False}}},
    "swap": {"three": ["two"]},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` with three sets and ``start``, a model of random weights."""
    folder = tmp_path_factory.mktemp("ablation")
    for seed, name in enumerate(("one", "two", "three", "four")):
        labelled_folder(folder / "data" / name, seed=seed)
    torch.manual_seed(0)
    encoder = Encoder(encoder_config())
    config = ModelConfig(
        encoder=encoder_config(), expert=expert_for(encoder, ExpertConfig(hidden=8)), views=ViewsConfig(base_size=32)
    )
    AnomalyModel(config).save_pretrained(folder / "start")
    return folder


def test_a_variant_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    recipe = read_ablation_recipe(written(tmp_path))
    full, other = (to_mapping(run.recipe) for run in list(planned(recipe, ["four"]))[:2])
    assert full["expert"]["look_back"] is True
    assert other["expert"]["look_back"] is False
    different = {key for key in full if full[key] != other[key]}
    assert different == {"name", "expert"}
    assert {k for k in full["expert"] if full["expert"][k] != other["expert"][k]} == {"look_back"}


def test_runs_are_every_variant_and_seed_of_each_protocol_once(tmp_path: Path) -> None:
    recipe = read_ablation_recipe(written(tmp_path))
    runs = list(planned(recipe, ["four", "three", "one"]))
    assert len({run.folder for run in runs}) == len(runs) == 2 * 2 * 2
    assert {run.recipe.loop.seed for run in runs} == {0, 1}
    assert {(run.protocol, run.recipe.sets) for run in runs} == {("base", ("one",)), ("three", ("two",))}
    assert protocol_of(recipe, "three") == "three"


def test_merging_reaches_into_mappings_and_replaces_the_rest() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merged(base, {"a": {"c": [2, 3]}, "e": 4}) == {"a": {"b": 1, "c": [2, 3]}, "d": 2, "e": 4}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {"typo": {"expert": {"look_bak": False}}}}, "look_bak"),
        ({"variants": {"a/b": {}}}, "a/b"),
        ({"seeds": [1, 1]}, r"ablation\.yaml: Value error, seeds must name at least one, each once$"),
        ({"variants": {"fewer": {"sets": ["two"]}}}, "swap would undo the sets of variant 'fewer'"),
        ({"variants": {"live": {"cached": False, "stage1": {"train_encoder": "full"}}}}, "shares? its features"),
    ],
)
def test_a_wrong_recipe_is_named_before_anything_is_trained(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_ablation_recipe(written(tmp_path, **changes))
    assert re.search(said, raised.value.message)


def test_training_goes_on_where_it_ended_and_a_changed_recipe_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_ablation_recipe(written(tmp_path))
    runs, out = list(planned(recipe, ["four"])), tmp_path / "out"
    where = {"base": [place / "data/four"]}

    def again(runs: Any) -> dict[Any, Path]:
        return train(runs, place / "data", place / "start", out, tmp_path / "cache", where)

    models = again(runs)
    assert [AnomalyModel.from_pretrained(models[run]).config.expert.look_back for run in runs] == [True, False] * 2
    trained: list[str] = []
    monkeypatch.setattr(ablation, "train_expert", lambda recipe, *_, **__: trained.append(recipe.name))
    assert again(runs) == models
    assert not trained
    longer = list(planned(read_ablation_recipe(written(tmp_path), {"base.loop.steps": 3}), ["four"]))
    again(longer)
    assert len(trained) == len(longer)


def test_a_set_under_test_never_trains(place: Path, tmp_path: Path) -> None:
    recipe = read_ablation_recipe(written(tmp_path))
    runs = list(planned(recipe, ["one"]))
    with pytest.raises(LeakageError):
        train(runs, place / "data", place / "start", tmp_path / "out", tmp_path / "c", {"base": [place / "data/one"]})


def test_a_set_that_only_a_variant_trains_on_is_no_test_set(place: Path, tmp_path: Path) -> None:
    variants = {"more": {"sets": ["one", "two"]}}
    runs = list(planned(read_ablation_recipe(written(tmp_path, variants=variants, swap={})), ["two"]))
    with pytest.raises(LeakageError):
        train(runs, place / "data", place / "start", tmp_path / "out", tmp_path / "c", {"base": [place / "data/two"]})


def test_what_was_trained_before_is_no_licence_to_test_on_it(place: Path, tmp_path: Path) -> None:
    runs = list(planned(read_ablation_recipe(written(tmp_path, seeds=[0], variants={})), ["four"]))
    listed = place / "data/one/list.jsonl"
    listed.write_text('{"image": "test/good/0.png", "label": 0}\n')

    def again(test: Path) -> None:
        train(runs, place / "data", place / "start", tmp_path / "out", tmp_path / "cache", {"base": [test]})

    try:
        again(place / "data/four")
        for test in (place / "data/one", listed):
            with pytest.raises(LeakageError):
                again(test)
    finally:
        listed.unlink()


def test_another_start_is_not_taken_for_the_same_run(place: Path, tmp_path: Path) -> None:
    runs = list(planned(read_ablation_recipe(written(tmp_path, seeds=[0], variants={})), ["four"]))
    model = AnomalyModel.from_pretrained(place / "start")
    torch.nn.init.normal_(next(model.encoder.parameters()))
    model.save_pretrained(tmp_path / "other")
    where = (tmp_path / "out", tmp_path / "cache", {"base": [place / "data/four"]})
    train(runs, place / "data", place / "start", *where)
    with pytest.raises(CheckpointMismatch, match=r"data\.start differ"):
        train(runs, place / "data", tmp_path / "other", *where)


def test_full_is_always_among_the_variants() -> None:
    assert AblationRecipe("x", BASE, {}).names == ("full",)
    assert AblationRecipe("x", BASE, {"b": {}, "full": {}}).names == ("full", "b")


def test_the_committed_recipe_changes_one_thing_a_variant() -> None:
    recipe = read_ablation_recipe(Path(__file__).parents[3] / "recipes" / "ablation-tiny.yaml")
    assert len(recipe.seeds) == 3
    full, *others = [to_mapping(run.recipe) for run in planned(recipe, ["any"]) if run.seed == recipe.seeds[0]]
    for other in others:
        changed = {key for key in full if full[key] != other[key]} - {"name"}
        assert changed in ({"expert"}, {"photos", "sets"}), other["name"]
