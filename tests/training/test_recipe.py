"""Every committed recipe parses, and a wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from anomaly_ov.errors import ConfigError
from anomaly_ov.training.recipe import read_encoder_recipe, read_expert_recipe, read_projection_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


ENCODER = {"name": "x", "encoder": {}, "distill": {"taps": [["block7"]]}, "folders": ["a"]}
PROJECTION = {"name": "x", "folders": ["a"], "parts": [{"levels": [0, 1], "taps": ["block7"]}]}


def test_committed_recipes_parse() -> None:
    for path in RECIPES.glob("encoder-*.yaml"):
        recipe = read_encoder_recipe(path, {})
        taught = len(recipe.encoder.levels) if recipe.distill.method == "levels" else 0
        assert len(recipe.distill.taps) == taught, path
    experts = [read_expert_recipe(path, {}) for path in RECIPES.glob("expert-*.yaml")]
    assert {recipe.name for recipe in experts} >= {"tiny", "expert-siglip-so400m"}
    projections = [read_projection_recipe(path) for path in RECIPES.glob("projection-*.yaml")]
    assert "tiny-projection" in {recipe.name for recipe in projections}


def test_every_committed_recipe_is_of_a_kind_that_is_parsed_above() -> None:
    kinds = {path.name.partition("-")[0] for path in RECIPES.glob("*.yaml")}
    # ov: test_stage2_recipe.py; ablation: test_ablation.py
    assert kinds == {"encoder", "expert", "projection", "ov", "ablation"}


def test_the_longer_run_goes_on_with_the_same_encoder() -> None:
    first, longer = (read_encoder_recipe(RECIPES / f"encoder-tiny{end}.yaml", {}) for end in ("", "-longer"))
    assert longer.encoder == first.encoder
    assert (first.crop, first.synthetic) == (None, 0)
    assert longer.crop is not None
    assert longer.crop < longer.encoder.image_size
    assert longer.synthetic > 0


def test_what_was_taught_block_by_block_goes_on_end_to_end() -> None:
    blocks, whole = (read_encoder_recipe(RECIPES / f"encoder-tiny-{end}.yaml", {}) for end in ("blocks", "whole"))
    assert whole.encoder == blocks.encoder
    assert (blocks.distill.method, whole.distill.method) == ("blockwise", "whole")
    assert whole.loop.learning_rate < blocks.loop.learning_rate


def test_the_embedded_models_projection_reads_levels_that_its_encoder_has() -> None:
    encoder = read_encoder_recipe(RECIPES / "encoder-tiny-longer.yaml", {})
    taught = {tap for taps in encoder.distill.taps for tap in taps}
    for part in read_projection_recipe(RECIPES / "projection-tiny.yaml").parts:
        assert max(part.levels) < len(encoder.encoder.levels)
        assert set(part.taps) <= taught


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


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("crop: 31", "crop must be >= 32"),
        ("crop: big", "'crop' = 'big'"),
        ("synthetic: -0.1", "synthetic"),
        ("synthetic: 1.1", "synthetic"),
        ("smallest: 0", "smallest"),
        ("smallest: 1.5", "smallest"),
        ("parts: []", "parts"),
        ("distill: {}", "taps must name"),
        ("distill: {method: whole, taps: [[block7]]}", "whole takes none"),
        ("distill: {method: blockwise, taps: [[]]}", "blockwise takes none"),
        ("distill: {method: sideways}", "method' = 'sideways'"),
        ("distill: {method: whole, statistics_crops: 0}", "statistics_crops must be >= 1"),
    ],
)
def test_a_wrong_field_of_an_encoder_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(ENCODER | yaml.safe_load(line)))
    with pytest.raises(ConfigError, match=named):
        read_encoder_recipe(path, {})


@pytest.mark.parametrize(
    "line", ["crop: 32", "crop: null", "synthetic: 0", "synthetic: 1", "smallest: 1"], ids=lambda line: str(line)
)
def test_limits_themselves_are_allowed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(ENCODER | yaml.safe_load(line)))
    ((name, value),) = yaml.safe_load(line).items()
    assert getattr(read_encoder_recipe(path, {}), name) == value


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("parts: []", "parts"),
        ("parts: [{levels: [], taps: [block7]}]", "levels"),
        ("parts: [{levels: [-1], taps: [block7]}]", "levels"),
        ("parts: [{levels: [0], taps: []}]", "taps"),
        ("parts: [{levels: [0], taps: [block7], width: 3}]", "width"),
        ("crops: 0", "crops"),
        ("ridge: -1.0e-9", "ridge"),
        ("synthetic: 2", "synthetic"),
        ("smallest: 0", "smallest"),
        ("loop: {steps: 3}", "loop"),
    ],
)
def test_a_wrong_field_of_a_projection_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(PROJECTION | yaml.safe_load(line)))
    with pytest.raises(ConfigError, match=named):
        read_projection_recipe(path)
