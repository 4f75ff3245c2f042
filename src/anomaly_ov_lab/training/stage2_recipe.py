"""The recipe of an instruction-tuning run (``anomaly-ov train stage2``), one committed YAML file each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from anomaly_ov.configuration import parse, read_yaml
from anomaly_ov_lab.training.conversations import Epochs, TalkConfig
from anomaly_ov_lab.training.loop import LoopConfig
from anomaly_ov_lab.training.stage2 import Stage2Config


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


def read_stage2_recipe(path: Path, overrides: dict[str, Any]) -> Stage2Recipe:
    """The recipe with the loop's fields in ``overrides`` replaced; ``steps`` also ends an ``epochs`` run.

    ``ConfigError`` names a bad field.
    """
    values = read_yaml(path)
    given = {name: value for name, value in overrides.items() if value is not None}
    loop = values.get("loop", {})
    if given and isinstance(loop, dict):
        values = values | {"loop": loop | given}
        if "steps" in given and values.get("epochs"):
            values["most_steps"] = given["steps"]
    return parse(Stage2Recipe, values, str(path))


def with_steps(recipe: Stage2Recipe, conversations: int) -> Stage2Recipe:
    """The recipe with the ``loop.steps`` that its ``epochs`` over so many conversations take."""
    if recipe.epochs <= 0:
        return recipe
    samples = Epochs(conversations, recipe.epochs, recipe.loop.seed).total
    steps = math.ceil(samples / recipe.loop.samples_per_step)
    return replace(recipe, loop=replace(recipe.loop, steps=min(steps, recipe.most_steps or steps)))
