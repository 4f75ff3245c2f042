"""The recipe of an instruction-tuning run (``anomaly-ov train stage2``), one committed YAML file each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from anomaly_ov.configuration import parse, read_yaml
from anomaly_ov.training.conversations import TalkConfig
from anomaly_ov.training.loop import LoopConfig
from anomaly_ov.training.stage2 import Stage2Config


@dataclass(frozen=True)
class FreshLanguage:
    """A compact Qwen2 of random weights with a tokenizer of its own, learnt from generated conversations.

    ``vocabulary``: most tokens of the tokenizer; ``texts``: pictures whose conversations it is learnt from.
    """

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
    folder: ``sets`` (labelled), ``photos`` (backgrounds of synthetic defects), ``conversations`` (LLaVA JSON) with its
    ``images``.
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

    def __post_init__(self) -> None:
        if self.talk.labelled > 0 and not self.sets:
            raise ValueError("talk.labelled > 0 needs sets")
        if self.talk.json > 0 and not self.conversations:
            raise ValueError("talk.json > 0 needs conversations")


def read_stage2_recipe(path: Path, overrides: dict[str, Any]) -> Stage2Recipe:
    """The recipe with the loop's fields in ``overrides`` replaced. ``ConfigError`` names a bad field."""
    recipe = parse(Stage2Recipe, read_yaml(path), str(path))
    given = {name: value for name, value in overrides.items() if value is not None}
    return replace(recipe, loop=replace(recipe.loop, **given))
