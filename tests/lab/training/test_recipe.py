"""Every committed recipe parses, and a wrong field is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from anomaly_ov.errors import AnomalyOVError, ConfigError, UsageError
from anomaly_ov_lab.training.recipe import ExpertRecipe, read_recipe, settings_of

RECIPES = Path(__file__).parents[3] / "recipes"


def test_committed_recipes_parse() -> None:
    experts = [read_recipe(ExpertRecipe, path) for path in RECIPES.glob("expert-*.yaml")]
    assert {recipe.name for recipe in experts} >= {"tiny", "expert-siglip-so400m"}


def test_every_committed_recipe_is_of_a_kind_that_is_parsed_above() -> None:
    kinds = {path.name.partition("-")[0] for path in RECIPES.glob("*.yaml")}
    # ov: test_stage2_recipe.py; ablation: test_ablation.py
    assert kinds == {"expert", "ov", "ablation"}


def test_the_published_recipe_has_the_published_values() -> None:
    recipe = read_recipe(ExpertRecipe, RECIPES / "expert-siglip-so400m.yaml")
    assert (recipe.loop.learning_rate, recipe.loop.batch, recipe.loop.schedule) == (1e-4, 128, "cosine-restarts")
    assert recipe.loop.steps == 2 * 125_000 // 128
    assert recipe.loop.restart_steps == 125_000 // 2 // 128
    assert recipe.stage1.map_loss_weight == 0
    assert recipe.stage1.train_encoder == "none"


def test_overrides_replace_and_none_does_not() -> None:
    path = RECIPES / "expert-tiny.yaml"
    before = read_recipe(ExpertRecipe, path)
    recipe = read_recipe(ExpertRecipe, path, {"loop.steps": 7, "loop.seed": None})
    assert recipe == replace(before, loop=replace(before.loop, steps=7))


def test_any_field_can_be_set() -> None:
    given = ["loop.learning_rate=1e-5", "name=other", "sets=[a, b]", "stage1.map_loss_weight=0.5", "views.base_size=64"]
    recipe = read_recipe(ExpertRecipe, RECIPES / "expert-tiny.yaml", settings_of(given))
    assert (recipe.loop.learning_rate, recipe.name, recipe.sets) == (1e-5, "other", ("a", "b"))
    assert (recipe.stage1.map_loss_weight, recipe.views.base_size) == (0.5, 64)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("loop.steps", UsageError, "--set loop.steps is not understood"),
        ("loop..steps=1", UsageError, "not understood"),
        ("=1", UsageError, "not understood"),
        ("loop.steps=[", UsageError, "not understood"),
        ("loop.stps=1", ConfigError, "field 'loop.stps'"),
        ("loop=1", ConfigError, "field 'loop'"),
        ("name.first=x", ConfigError, "field 'name'"),
    ],
)
def test_a_wrong_setting_is_named(text: str, error: type[AnomalyOVError], said: str) -> None:
    with pytest.raises(error) as raised:
        read_recipe(ExpertRecipe, RECIPES / "expert-tiny.yaml", settings_of([text]))
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("lop: {}", "lop"),
        ("loop: {steps: -1}", "steps"),
        ("loop: {schedule: linear}", "schedule"),
        ("stage1: {train_encoder: half}", "train_encoder"),
        ("expert: {match: cos}", "match"),
        ("stage1: {train_encoder: lora}", "cached: false"),
        ("{cached: false, synthetic_pictures: 5}", "synthetic_pictures"),
        ("sets: []", "nothing to train on"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "recipe.yaml"
    values = {"name": "x", "sets": ["a"]} | yaml.safe_load(line)
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=named):
        read_recipe(ExpertRecipe, path)
