"""Recipes: one committed YAML file per published training run, parsed into frozen dataclasses.

Folders in a recipe are relative to the data folder that the command is given, so that a recipe names no machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anomaly_ov.configuration import parse, read_yaml
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov_lab.training.defect_samples import MixConfig
from anomaly_ov_lab.training.loop import LoopConfig
from anomaly_ov_lab.training.stage1 import Stage1Config


@dataclass(frozen=True)
class ExpertRecipe:
    """``anomaly-ov train expert``: stage 1 on ``sets`` (labelled folders) and, live, on synthetic defects.

    ``expert``: widths and grid are taken from the encoder. ``warm_start``: begin with the start model's expert, which
    must have the same shape, instead of fresh weights. ``cached``: frozen encoder, features of all views from
    disk (the paper's setting); otherwise single views live. ``photos``: folders whose pictures carry synthetic
    defects. ``synthetic_pictures``: with ``cached``, so many generated pictures join as one more set. ``images``: most
    images of each label of a set, drawn by the loop's seed; 0 = all.
    """

    name: str
    sets: tuple[str, ...]
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    loop: LoopConfig = field(default_factory=LoopConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    warm_start: bool = False
    cached: bool = True
    photos: tuple[str, ...] = ()
    synthetic_pictures: int = 0
    images: int = 0

    def __post_init__(self) -> None:
        if self.cached and self.stage1.train_encoder != "none":
            raise ValueError(
                "stage1.train_encoder needs cached: false, since cached features come from a frozen encoder"
            )
        if not self.cached and self.synthetic_pictures:
            raise ValueError("synthetic_pictures needs cached: true; live runs draw them as mix says")
        if not self.sets and not (self.synthetic_pictures if self.cached else self.mix.synthetic):
            raise ValueError("nothing to train on: name sets, or ask for synthetic pictures")


def read_expert_recipe(path: Path, overrides: dict[str, Any]) -> ExpertRecipe:
    """The recipe with the loop's fields in ``overrides`` replaced. ``ConfigError`` names a bad field."""
    recipe = parse(ExpertRecipe, read_yaml(path), str(path))
    given = {name: value for name, value in overrides.items() if value is not None}
    return replace(recipe, loop=replace(recipe.loop, **given))
