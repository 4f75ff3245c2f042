"""Recipes: one committed YAML file per published training run, parsed into frozen dataclasses.

Folders in a recipe are relative to the data folder that the command is given, so that a recipe names no machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anomaly_ov.configuration import parse, read_yaml
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import EncoderConfig, ExpertConfig
from anomaly_ov.training.defect_samples import MixConfig
from anomaly_ov.training.distill import DistillConfig
from anomaly_ov.training.loop import LoopConfig
from anomaly_ov.training.stage1 import Stage1Config


@dataclass(frozen=True)
class EncoderRecipe:
    """``anomaly-ov train encoder``: distil ``encoder`` from a teacher over random crops of ``folders``.

    ``smallest``: least share of a picture's shorter side that a crop covers. ``crop``: side of the crops in pixels,
    None = the encoder's image size; a smaller one trains a convolutional network on more pictures in the same time.
    ``synthetic``: share of crops of generated pictures.
    """

    name: str
    encoder: EncoderConfig
    distill: DistillConfig
    folders: tuple[str, ...]
    loop: LoopConfig = field(default_factory=LoopConfig)
    smallest: float = 0.35
    crop: int | None = None
    synthetic: float = 0.0

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 32:
            raise ValueError("crop must be >= 32 pixels, or null for the encoder's image size")
        if not (0 < self.smallest <= 1 and 0 <= self.synthetic <= 1):
            raise ValueError("smallest must lie in (0, 1], synthetic in 0..1")


@dataclass(frozen=True)
class ExpertRecipe:
    """``anomaly-ov train expert``: stage 1 on ``sets`` (labelled folders) and, live, on synthetic defects.

    ``expert``: widths and grid are taken from the encoder. ``warm_start``: begin with the start model's expert, which
    must have the same shape, instead of fresh weights. ``cached``: frozen encoder, features of all views from
    disk (the paper's setting); otherwise single views live. ``photos``: folders whose pictures carry synthetic
    defects. ``synthetic_pictures``: with ``cached``, so many generated pictures join as one more set.
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

    def __post_init__(self) -> None:
        if self.cached and self.stage1.train_encoder != "none":
            raise ValueError(
                "stage1.train_encoder needs cached: false, since cached features come from a frozen encoder"
            )
        if not self.cached and self.synthetic_pictures:
            raise ValueError("synthetic_pictures needs cached: true; live runs draw them as mix says")
        if not self.sets and not (self.synthetic_pictures if self.cached else self.mix.synthetic):
            raise ValueError("nothing to train on: name sets, or ask for synthetic pictures")


@dataclass(frozen=True)
class ProjectionPartRecipe:
    """One linear map: the encoder's ``levels`` (positions, 0 = shallowest), concatenated, to the teacher's ``taps``."""

    levels: tuple[int, ...]
    taps: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 0 or not self.taps:
            raise ValueError("levels and taps must name at least one each")


@dataclass(frozen=True)
class ProjectionRecipe:
    """``anomaly-ov train projection``: least squares over ``crops`` random crops of ``folders``.

    ``ridge``: penalty in units of the inputs' mean variance. ``synthetic``, ``smallest``: as in ``EncoderRecipe``.
    """

    name: str
    folders: tuple[str, ...]
    parts: tuple[ProjectionPartRecipe, ...]
    crops: int = 2000
    ridge: float = 1e-4
    smallest: float = 0.35
    synthetic: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.parts or self.crops < 1 or self.ridge < 0:
            raise ValueError("parts must name at least one map, crops be >= 1 and ridge >= 0")
        if not (0 < self.smallest <= 1 and 0 <= self.synthetic <= 1):
            raise ValueError("smallest must lie in (0, 1], synthetic in 0..1")


def read_projection_recipe(path: Path) -> ProjectionRecipe:
    """The recipe in ``path``. ``ConfigError`` names a bad field."""
    return parse(ProjectionRecipe, read_yaml(path), str(path))


def read_encoder_recipe(path: Path, overrides: dict[str, Any]) -> EncoderRecipe:
    """The recipe with the loop's fields in ``overrides`` replaced. ``ConfigError`` names a bad field."""
    recipe = parse(EncoderRecipe, read_yaml(path), str(path))
    return replace(recipe, loop=_overridden(recipe.loop, overrides))


def read_expert_recipe(path: Path, overrides: dict[str, Any]) -> ExpertRecipe:
    """The recipe with the loop's fields in ``overrides`` replaced. ``ConfigError`` names a bad field."""
    recipe = parse(ExpertRecipe, read_yaml(path), str(path))
    return replace(recipe, loop=_overridden(recipe.loop, overrides))


def _overridden(loop: LoopConfig, overrides: dict[str, Any]) -> LoopConfig:
    given = {name: value for name, value in overrides.items() if value is not None}
    return replace(loop, **given)
