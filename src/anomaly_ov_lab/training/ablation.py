"""Ablations: one stage-1 recipe, trained again with a field changed, for several seeds, from one frozen encoder.

A variant is what it changes in the base recipe and nothing else, so a table of them reads as the recipe file does. A
set under test never trains: with ``swap`` other sets take the place of the base's for it (the paper tests on MVTec AD
after training on VisA), and a test picture among the training pictures of any variant is a ``LeakageError``, before
anything is trained and also where everything was trained by an earlier call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anomaly_ov.configuration import parse, to_mapping
from anomaly_ov.errors import ConfigError
from anomaly_ov.models.hub import WEIGHTS_FILE
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov_lab.training.checkpoint import RUN
from anomaly_ov_lab.training.feature_cache import model_key
from anomaly_ov_lab.training.recipe import ExpertRecipe, merged, read_recipe
from anomaly_ov_lab.training.runs import labelled_sets, pictures_in, refuse_leakage, train_expert
from anomaly_ov_lab.training.tracker import say

BASE = "full"
"""The variant that changes nothing, which the others are compared with."""


@dataclass(frozen=True)
class AblationRecipe:
    """``variants``: name -> the fields of ``base`` that differ, nested as there; ``full`` is always among them.

    ``swap``: name of a test set -> the training sets to use, instead of ``base.sets``, when that set is tested.
    """

    name: str
    base: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)
    swap: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must name at least one, each once")
        bad = [name for name in self.variants if not name.replace("-", "").isalnum()]
        if bad:
            raise ValueError(f"variants must be called by letters, digits and hyphens, not {bad[0]!r}")
        own_sets = [name for name, changes in self.variants.items() if "sets" in changes]
        if self.swap and own_sets:
            raise ValueError(f"swap would undo the sets of variant {own_sets[0]!r}: give it a recipe of its own")

    @property
    def names(self) -> tuple[str, ...]:
        """All variants, ``full`` first."""
        return (BASE, *(name for name in self.variants if name != BASE))


@dataclass(frozen=True)
class Run:
    """One expert to train: the ``variant`` with a ``seed``, on the sets of a ``protocol`` (base, or a test set's)."""

    variant: str
    seed: int
    protocol: str
    recipe: ExpertRecipe

    @property
    def folder(self) -> Path:
        """Relative to the folder of the ablation."""
        return Path(self.protocol) / self.variant / f"seed{self.seed}"


def read_ablation_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> AblationRecipe:
    """As ``read_recipe``. Every variant is parsed here: a wrong field in the last one is named (``ConfigError``)
    before the first is trained.
    """
    recipe = read_recipe(AblationRecipe, path, overrides)
    for name in recipe.names:
        changed = _variant(recipe, name, recipe.seeds[0])
        if changed.stage1.train_encoder != "none" or not changed.cached:
            raise ConfigError(
                f"{path}: variant '{name}' trains the encoder, but all variants share its features",
                hint="keep stage1.train_encoder: none and cached: true",
            )
    return recipe


def protocol_of(recipe: AblationRecipe, test_set: str) -> str:
    """Which experts measure a test set: those trained for it alone, or the base's."""
    return test_set if test_set in recipe.swap else "base"


def planned(recipe: AblationRecipe, test_sets: Sequence[str]) -> Iterator[Run]:
    """Every run that the test sets need, variant by variant within each seed: after a kill whole seeds are complete."""
    protocols = list(dict.fromkeys(protocol_of(recipe, name) for name in test_sets))
    for protocol in protocols:
        for seed in recipe.seeds:
            for name in recipe.names:
                one = _variant(recipe, name, seed)
                sets = recipe.swap.get(protocol, one.sets)
                yield Run(name, seed, protocol, replace(one, sets=tuple(sets)))


def train(
    runs: Sequence[Run],
    data: Path,
    start: Path,
    out: Path,
    cache: Path,
    test: Mapping[str, Sequence[Path]],
    device: str = "cpu",
) -> dict[Run, Path]:
    """The model folder of every run. What the same recipe and start have trained there already is not trained again.

    ``test``: protocol -> folders and lists that its experts will be tested on. Raises ``LeakageError`` if they overlap,
    whoever trained them.
    """
    for protocol, sets in test.items():
        refuse_leakage(_training_pictures([run for run in runs if run.protocol == protocol], data), sets)
    base = AnomalyModel.from_pretrained(start)
    starts = {views: model_key(base, views) for views in {run.recipe.views for run in runs}}
    for index, run in enumerate(runs):
        if _is_done(run, out, starts[run.recipe.views]):
            continue
        say(f"run {index + 1} of {len(runs)}: {run.folder}")
        train_expert(run.recipe, data, start, out / run.folder, cache=cache, device=device)
    return {run: out / run.folder / "model" for run in runs}


def _training_pictures(runs: Sequence[Run], data: Path) -> list[Path]:
    """Every picture that any of the runs trains on, once."""
    labelled = [
        sample.image
        for folders in dict.fromkeys(run.recipe.sets for run in runs)
        for one in labelled_sets([data / folder for folder in folders])
        for sample in one
    ]
    photos = pictures_in(data / folder for folder in dict.fromkeys(name for run in runs for name in run.recipe.photos))
    return list(dict.fromkeys([*labelled, *photos]))


def _is_done(run: Run, out: Path, start: str) -> bool:
    """Whether the model was written by this very recipe from this start; else ``train_expert`` says what differs."""
    record = out / run.folder / RUN
    if not (out / run.folder / "model" / WEIGHTS_FILE).is_file() or not record.is_file():
        return False
    trained: Any = json.loads(record.read_text(encoding="utf-8"))
    same_recipe = trained.get("recipe") == json.loads(json.dumps(to_mapping(run.recipe)))
    return bool(same_recipe and trained.get("data", {}).get("start") == start)


def _variant(recipe: AblationRecipe, name: str, seed: int) -> ExpertRecipe:
    changes = recipe.variants.get(name, {})
    fixed = {"name": f"{recipe.name}-{name}", "loop": {"seed": seed}}
    where = f"ablation '{recipe.name}', variant '{name}'"
    return parse(ExpertRecipe, merged(merged(recipe.base, changes), fixed), where)


def settings(recipe: AblationRecipe) -> dict[str, Any]:
    """For a record: each variant as it was resolved, with its first seed."""
    return {name: to_mapping(_variant(recipe, name, recipe.seeds[0])) for name in recipe.names}
