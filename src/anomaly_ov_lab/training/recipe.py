"""Recipes: one committed YAML file per published training run, parsed into frozen dataclasses.

Folders in a recipe are relative to the data folder that the command is given, so that a recipe names no machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from anomaly_ov.configuration import parse, read_yaml
from anomaly_ov.errors import UsageError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov_lab.training.conversations import Epochs, TalkConfig
from anomaly_ov_lab.training.defect_samples import MixConfig
from anomaly_ov_lab.training.loop import LoopConfig
from anomaly_ov_lab.training.stage1 import Stage1Config
from anomaly_ov_lab.training.stage2 import Stage2Config

T = TypeVar("T")


def read_recipe(cls: type[T], path: Path, overrides: Mapping[str, Any] | None = None) -> T:
    """The recipe in ``path`` as a ``cls``. ``overrides``: other values by dotted name (``loop.steps``), None = none.

    Raises ``ConfigError``, which names a bad field.
    """
    values = read_yaml(path)
    for name, value in (overrides or {}).items():
        if value is not None:
            values = merged(values, _nested(name, value))
    return parse(cls, values, str(path))


def settings_of(assignments: Iterable[str]) -> dict[str, Any]:
    """Overrides from texts such as ``loop.steps=200``; what follows the sign is YAML. Raises ``UsageError``."""
    import yaml

    found = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        try:
            if not sign or not all(name.split(".")):
                raise ValueError("no field and value")
            found[name] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError):
            raise UsageError(f"--set {text} is not understood", hint="for example --set loop.steps=200") from None
    return found


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` put in, mappings within mappings too."""
    found = dict(base)
    for name, value in changes.items():
        inner = found.get(name)
        found[name] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return found


def _nested(name: str, value: Any) -> dict[str, Any]:
    first, _, rest = name.partition(".")
    return {first: _nested(rest, value) if rest else value}


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


@dataclass(frozen=True)
class FreshLanguage:
    """A compact Qwen2 of random weights with a tokenizer of its own, learnt from generated conversations, or another
    decoder.

    ``decoder``: the folder of a language model that transformers loads, or ``talk``, the one that ``anomaly-ov models
    pull talk`` fetched; the fields from ``vocabulary`` to ``positions`` then mean nothing.
    ``vocabulary``: most tokens of the tokenizer; ``texts``: pictures whose conversations it is learnt from.
    """

    decoder: str = ""
    vocabulary: int = 2048
    texts: int = 3000
    hidden: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    intermediate: int = 704
    positions: int = 8192
    reading: Literal["full", "focus", "highlight"] = "focus"
    level_score: Literal["head", "fused"] = "fused"
    annotate: bool = True
    crop_budget: int = 64
    focus_pool: int = 2

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ValueError("hidden must be a multiple of heads, and heads of kv_heads")
        if min(self.vocabulary - 300, self.texts, self.layers, self.positions) < 1:
            raise ValueError("vocabulary must be > 300, and texts, layers and positions >= 1")


@dataclass(frozen=True)
class Stage2Recipe:
    """``language``: None = the start folder's own, otherwise a fresh one. Folders and files are relative to the data
    folder: ``sets`` (labelled), ``photos`` (backgrounds of synthetic defects), ``conversations`` (LLaVA JSON, .json or
    .jsonl) with the folder ``images`` that their paths are relative to, "" = the data folder.

    ``epochs``: > 0 = every conversation once per epoch in shuffled order, instead of drawing them; ``loop.steps`` then
    follows from their number. ``most_steps``: ends such a run, and its schedule, sooner; 0 = never.
    ``projector``: ``given`` = as it comes, ``standardised`` = begun anew (``projector_start``).
    """

    name: str
    talk: TalkConfig = field(default_factory=TalkConfig)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    loop: LoopConfig = field(default_factory=LoopConfig)
    language: FreshLanguage | None = None
    sets: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()
    images: str = ""
    epochs: float = 0.0
    most_steps: int = 0
    projector: Literal["given", "standardised"] = "given"

    def __post_init__(self) -> None:
        if self.talk.labelled > 0 and not self.sets:
            raise ValueError("talk.labelled > 0 needs sets")
        if self.talk.json > 0 and not self.conversations:
            raise ValueError("talk.json > 0 needs conversations")
        json_alone = self.talk.json > 0 and self.talk.synthetic == self.talk.labelled == 0
        if (self.epochs > 0 or self.loop.group_by_length) and not json_alone:
            raise ValueError(
                "epochs and loop.group_by_length need talk.json > 0, and talk.synthetic and talk.labelled 0"
            )
        if min(self.epochs, self.most_steps) < 0:
            raise ValueError("epochs and most_steps must be >= 0")


def with_steps(recipe: Stage2Recipe, conversations: int) -> Stage2Recipe:
    """The recipe with the ``loop.steps`` that its ``epochs`` over so many conversations take."""
    if recipe.epochs <= 0:
        return recipe
    samples = Epochs(conversations, recipe.epochs, recipe.loop.seed).total
    steps = math.ceil(samples / recipe.loop.samples_per_step)
    return replace(recipe, loop=replace(recipe.loop, steps=min(steps, recipe.most_steps or steps)))
