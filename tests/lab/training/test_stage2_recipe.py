"""Recipes of stage 2: the committed ones parse and hold the published settings; bad fields are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_ov.errors import ConfigError
from anomaly_ov_lab.training.loop import learning_rate
from anomaly_ov_lab.training.recipe import Stage2Recipe, read_recipe, with_steps
from talk_fixtures import recipe_of

RECIPES = Path(__file__).parents[3] / "recipes"


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(**changes)))
    return path


def test_every_committed_recipe_parses() -> None:
    found = {path.stem: read_recipe(Stage2Recipe, path) for path in sorted(RECIPES.glob("ov-*.yaml"))}
    assert found.keys() >= {"ov-tiny", "ov-0.5b", "ov-7b"}
    assert found["ov-tiny"].language is not None


@pytest.mark.parametrize("name", ["ov-0.5b", "ov-7b"])
def test_the_published_settings(name: str) -> None:
    recipe = read_recipe(Stage2Recipe, RECIPES / f"{name}.yaml")
    loop, talk = recipe.loop, recipe.talk
    assert (loop.learning_rate, loop.schedule, loop.warmup_ratio, loop.weight_decay) == (1e-5, "cosine", 0.03, 0.0)
    assert (loop.samples_per_step, loop.precision, recipe.epochs) == (128, "bf16", 1.0)
    assert (talk.max_length, talk.mask, dict(talk.readings)) == (32768, "released", {"full": 1.0})
    assert (recipe.stage2.train, recipe.stage2.gradient_checkpointing) == ("full", True)
    assert recipe.language is None


def test_steps_follow_from_epochs(tmp_path: Path) -> None:
    path = written(tmp_path, epochs=2.0, loop={"batch": 4, "accumulate": 2})
    recipe = read_recipe(Stage2Recipe, path)
    assert with_steps(recipe, 15).loop.steps == 4  # 30 samples, 8 of them in a step
    assert with_steps(read_recipe(Stage2Recipe, path, {"loop.steps": 3, "most_steps": 3}), 15).loop.steps == 3
    assert with_steps(read_recipe(Stage2Recipe, path, {"loop.steps": 9, "most_steps": 9}), 15).loop.steps == 4
    drawn = read_recipe(Stage2Recipe, written(tmp_path), {"loop.steps": 9})
    assert with_steps(drawn, 15).loop.steps == 9


def test_a_share_of_the_steps_warms_up_then_the_cosine_runs_to_zero(tmp_path: Path) -> None:
    loop = {"steps": 100, "warmup_ratio": 0.03, "learning_rate": 1.0, "warmup_steps": 77}
    config = read_recipe(Stage2Recipe, written(tmp_path, loop=loop)).loop
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[51] == pytest.approx(0.5, abs=0.02)
    assert rates[99] < 1e-3


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({"loop": {"colour": 1}}, {}, "colour"),
        ({"loop": {"parallel": "many"}}, {}, "parallel"),
        ({}, {"loop.parallel": "many"}, "parallel"),
        ({"loop": {"accumulate": 0}}, {}, "accumulate"),
        ({"loop": {"warmup_ratio": 1.0}}, {}, "warmup_ratio"),
        ({"conversations": []}, {}, "needs conversations"),
        ({"epochs": -1.0}, {}, "epochs"),
        ({"epochs": 1.0, "talk": {"json": 1.0, "synthetic": 0.5}}, {}, "epochs"),
        ({"loop": {"group_by_length": True}, "talk": {"json": 1.0}}, {}, "group_by_length"),
        ({"talk": {"json": 1.0, "mask": "all"}}, {}, "mask"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changes: dict[str, Any], overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_recipe(Stage2Recipe, written(tmp_path, **changes), overrides)
