"""Many experts on one encoder, measured in one pass over a labelled set: what ablations need.

The encoder is nearly all of the work and the same for all, so each picture passes it once. Two scores of each expert,
a finding's ``score_raw`` and ``score_map``: ``head``, the paper's image score, and ``map``, the mean of the highest
share ``map_top`` of its map's cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from anomaly_ov.errors import DataError, ImageError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.read import read
from anomaly_ov.images.views import anyres
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.runner import Runner
from anomaly_ov.scoring.anomaly_map import blended_cells, map_score
from anomaly_ov_lab.data.hashing import sha256_file
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.evaluation.metrics import Interval, auroc, bootstrap_draws, percentile_interval
from anomaly_ov_lab.evaluation.selection import measured

SCORES = ("head", "map")
DRAWS = 2000


@dataclass(frozen=True)
class Scores:
    """Of one set: ``labels`` (pictures,), ``categories``, ``values`` by expert: (pictures, 2) in the order of
    ``SCORES``; ``unreadable``: how many pictures were left out.
    """

    labels: npt.NDArray[np.int64]
    categories: tuple[str, ...]
    values: Mapping[str, npt.NDArray[np.float64]]
    unreadable: int


def score_all(
    models: Mapping[str, AnomalyModel], dataset: DataSet, out: Path, map_top: float, device: str = "cpu"
) -> Scores:
    """Scores of the labelled pictures of ``dataset`` (of its test split, if it has one) by every model; kept in ``out``
    and used again for the same weights, pictures, labels and ``map_top``.

    Raises ``WeightsError`` if the models do not share their encoder.
    """
    pictures = require_both_labels(dataset)
    _require_one_encoder(models)
    key = _key(models, pictures, map_top)
    kept = _stored(out, key)
    if kept is None:
        kept = {"key": key} | _score(models, pictures, map_top, device)
        write_atomic(out, json.dumps(kept).encode())
    good = [row for row in kept["rows"] if row["scores"] is not None]
    values = np.array([row["scores"] for row in good], dtype=np.float64)
    return Scores(
        np.array([row["label"] for row in good], dtype=np.int64),
        tuple(row["category"] for row in good),
        {name: values[:, index] for index, name in enumerate(kept["experts"])},
        len(kept["rows"]) - len(good),
    )


def require_both_labels(dataset: DataSet) -> DataSet:
    """The labelled pictures to measure. Raises ``DataError`` if no category has both labels: nothing is to be had."""
    pictures = measured(dataset).labelled()
    labels = {category: {s.label for s in pictures if s.category == category} for category in pictures.categories}
    if not any(found == {0, 1} for found in labels.values()):
        raise DataError(
            f"no category of {dataset.name} has normal and anomalous pictures: AUROC is undefined",
            hint="test on another set; 'anomaly-ov data check' shows what is in one",
        )
    return pictures


def _require_one_encoder(models: Mapping[str, AnomalyModel]) -> None:
    own = next(iter(models.values())).encoder.state_dict()
    for name, model in models.items():
        other: dict[str, Tensor] = model.encoder.state_dict()
        if own.keys() != other.keys() or any(not torch.equal(own[key], other[key]) for key in own):
            raise WeightsError(f"the encoder of {name} is not that of the others", hint="measure it on its own")


def _key(models: Mapping[str, AnomalyModel], pictures: DataSet, map_top: float) -> str:
    """Digest of all that the scores depend on, and of the labels that are kept with them."""
    first = next(iter(models.values()))
    modules = {"encoder": first.encoder, **{f"expert {name}": model.expert for name, model in models.items()}}
    configs = [first.config.views, first.config.encoder, *(model.config.expert for model in models.values())]
    parts = (SCORES, "cells", map_top, first.config.scoring.whole_weight, configs)
    digest = hashlib.sha256(repr(parts).encode())
    for name, module in modules.items():
        digest.update(name.encode())
        for part, value in sorted(module.state_dict().items()):
            digest.update(part.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    for sample in pictures:
        sha256 = sha256_file(sample.image) if sample.image.is_file() else None
        digest.update(repr((pictures.id_of(sample), sample.label, sample.category, sha256)).encode())
    return digest.hexdigest()


def _score(models: Mapping[str, AnomalyModel], pictures: DataSet, map_top: float, device: str) -> dict[str, Any]:
    first = next(iter(models.values()))
    runner = Runner(first, device, "float32", None)
    experts = [model.expert.eval().to(runner.device, torch.float32) for model in models.values()]
    console = Console(stderr=True)
    rows = []
    for sample in track(pictures.samples, description=f"{pictures.name}, {len(models)} experts", console=console):
        row = {"id": pictures.id_of(sample), "label": sample.label, "category": sample.category}
        rows.append(row | {"scores": _of_picture(sample, first, runner, experts, map_top)})
    return {"experts": list(models), "map_top": map_top, "rows": rows}


def _of_picture(
    sample: Sample, model: AnomalyModel, runner: Runner, experts: Sequence[Any], map_top: float
) -> list[list[float]] | None:
    try:
        views = anyres(read(sample.image).pixels_HW3, model.config.views)
    except ImageError:
        return None
    features = runner.features(views.pixels_NHW3)
    found = []
    with torch.inference_mode():
        for expert in experts:
            output = expert(features, [len(views.pixels_NHW3)])
            map_Nhw, weight = output.map_Nhw.cpu().numpy(), model.config.scoring.whole_weight
            map_rc = blended_cells(map_Nhw, views.geometry, base_weight=weight, patch=runner.patch)
            found.append([float(output.score_B[0]), map_score(map_rc, map_top)])
    return found


def _stored(path: Path, key: str) -> dict[str, Any] | None:
    """What an earlier call wrote, if it is whole and has this key."""
    if not path.is_file():
        return None
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = kept["key"] == key
    except (ValueError, KeyError, TypeError):
        return None
    return kept if same else None


def measure(scores: Scores, variants: Mapping[str, Sequence[str]], base: str, seed: int = 0) -> dict[str, Any]:
    """AUROC per variant and score: mean over seeds and categories, its spread, its interval, its step from ``base``.

    ``variants``: name -> its experts' names, one per seed. ``interval``: 95 % over pictures (the same resamples for
    all), of the mean over seeds; ``difference``: from ``base``, paired, with its own interval; ``spread``: standard
    deviation over seeds. Raises ``DataError`` if what could be read has one label only in every category.
    """
    found: dict[str, Any] = {}
    draws: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    for variant, experts in variants.items():
        found[variant] = {}
        for index, score in enumerate(SCORES):
            of_seeds = [_by_category(scores, scores.values[expert][:, index], seed) for expert in experts]
            values = [value for value, _ in of_seeds]
            draws[variant, score] = np.mean([drawn for _, drawn in of_seeds], axis=0)
            found[variant][score] = {
                "auroc": float(np.mean(values)),
                "of_seeds": values,
                "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "interval": _pair(percentile_interval(draws[variant, score])),
            }
    for variant, by_score in found.items():
        for score, figures in by_score.items():
            step = draws[variant, score] - draws[base, score]
            figures["difference"] = figures["auroc"] - found[base][score]["auroc"]
            figures["difference_interval"] = _pair(percentile_interval(step))
    return found


def _by_category(scores: Scores, values: npt.NDArray[np.float64], seed: int) -> tuple[float, npt.NDArray[np.float64]]:
    """Mean AUROC over the categories with both labels, and its bootstrap draws."""
    of_category, drawn = [], []
    names = np.array(scores.categories)
    for index, category in enumerate(dict.fromkeys(scores.categories)):
        own = names == category
        value = auroc(scores.labels[own], values[own])
        draws = bootstrap_draws(scores.labels[own], values[own], "auroc", DRAWS, seed + index)
        if value is not None and draws is not None:
            of_category.append(value)
            drawn.append(draws)
    if not of_category:
        raise DataError(
            "the pictures that could be read have one label only in every category: AUROC is undefined",
            hint="'anomaly-ov data check' names those that cannot",
        )
    return float(np.mean(of_category)), np.mean(drawn, axis=0)


def _pair(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
