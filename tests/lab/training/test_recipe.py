"""Every committed recipe parses, and a wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from anomaly_ov.errors import ConfigError
from anomaly_ov_lab.training.recipe import read_expert_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


def test_committed_recipes_parse() -> None:
    experts = [read_expert_recipe(path, {}) for path in RECIPES.glob("expert-*.yaml")]
    assert {recipe.name for recipe in experts} >= {"tiny", "expert-siglip-so400m"}


def test_every_committed_recipe_is_of_a_kind_that_is_parsed_above() -> None:
    kinds = {path.name.partition("-")[0] for path in RECIPES.glob("*.yaml")}
    # ov: test_stage2_recipe.py; ablation: test_ablation.py
    assert kinds == {"expert", "ov", "ablation"}


def test_the_published_recipe_has_the_published_values() -> None:
    recipe = read_expert_recipe(RECIPES / "expert-siglip-so400m.yaml", {})
    assert (recipe.loop.learning_rate, recipe.loop.batch, recipe.loop.schedule) == (1e-4, 128, "cosine-restarts")
    assert recipe.loop.steps == 2 * 125_000 // 128
    assert recipe.loop.restart_steps == 125_000 // 2 // 128
    assert recipe.stage1.map_loss_weight == 0
    assert recipe.stage1.train_encoder == "none"


def test_overrides_replace_and_none_does_not() -> None:
    recipe = read_expert_recipe(RECIPES / "expert-tiny.yaml", {"steps": 7, "seed": None})
    assert recipe.loop.steps == 7
    assert recipe.loop.seed == 0


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
        read_expert_recipe(path, {})
