"""Leave-one-set-out: for every training set an expert that never saw it scores it; from these scores the calibration.

This is the only place where choices are made on data: the share of the map that ``score_map`` averages, the fusion
of head and map, and both thresholds. Test sets take no part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from anomaly_ov.calibration import SetScores, f1_max_threshold, fit_calibration
from anomaly_ov.configuration import parse, read_yaml, to_mapping
from anomaly_ov.data.samples import DataSet
from anomaly_ov.files import write_atomic
from anomaly_ov.images.maps import map_score, significance_map
from anomaly_ov.images.read import read
from anomaly_ov.images.views import anyres
from anomaly_ov.models.config import CalibrationConfig
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.score import fused_scores
from anomaly_ov.provenance import provenance
from anomaly_ov.training.defect_samples import mask_of
from anomaly_ov.training.feature_cache import FeatureCache, feature_key
from anomaly_ov.training.recipe import ExpertRecipe
from anomaly_ov.training.runs import labelled_sets, train_expert
from anomaly_ov.training.stage1 import move

MAP_TOPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
PIXELS_PER_PICTURE = 2000


@dataclass(frozen=True)
class Scored:
    """One set's pictures as scored by the expert that never saw it; ``pixels_*``: a sample of its masked maps."""

    labels: npt.NDArray[np.int64]
    score_raw: npt.NDArray[np.float64]
    score_maps: npt.NDArray[np.float64]
    pixel_values: npt.NDArray[np.float32]
    pixel_labels: npt.NDArray[np.bool_]


def leave_one_set_out(
    recipe: ExpertRecipe, data: Path, start: Path, out: Path, cache: Path, device: str = "cpu"
) -> CalibrationConfig:
    """Trains one expert per left-out set, scores the set, fits and writes ``out/calibration.json``; resumable.

    ``out/leave_one_out.json`` holds the AUROC of every set and score; with ``warm_start`` also those of the start
    model's own expert, the figures that training has to beat.
    """
    scored: dict[str, Scored] = {}
    before: dict[str, Scored] = {}
    for one in labelled_sets([data / folder for folder in recipe.sets]):
        if recipe.warm_start:
            first = AnomalyModel.from_pretrained(start)
            first.config = replace(first.config, views=recipe.views)
            before[one.name] = _score(first, one, cache, device)
        # A finished run returns at once; one of another recipe or start is refused rather than used.
        run = out / f"without-{one.name}"
        folder = train_expert(recipe, data, start, run, leave_out=[one.name], cache=cache, device=device)
        scored[one.name] = _score(AnomalyModel.from_pretrained(folder), one, cache, device)
    calibration, table = _fit(scored)
    if before:
        table["before"] = _fit(before)[1]
    write_atomic(out / "calibration.json", _json(to_mapping(calibration)))
    table["provenance"] = provenance(recipe.loop.seed)
    write_atomic(out / "leave_one_out.json", _json(table))
    return calibration


def read_calibration(path: Path) -> CalibrationConfig:
    """The calibration that ``leave_one_set_out`` wrote. ``ConfigError`` if it is none."""
    return parse(CalibrationConfig, read_yaml(path), str(path))  # JSON is YAML


def _score(model: AnomalyModel, one: DataSet, cache: Path, device: str) -> Scored:
    from rich.console import Console
    from rich.progress import track

    store = FeatureCache(cache, feature_key(model.encoder, model.config.views))
    todo, console = _rows(model, one, store, device), Console(stderr=True)
    rows = list(track(todo, total=len(one.samples), description=f"scoring {one.name}", console=console))
    labels, raw, tops, values, truths = zip(*rows, strict=True)
    return Scored(np.array(labels), np.array(raw), np.array(tops), np.concatenate(values), np.concatenate(truths))


def _rows(model: AnomalyModel, one: DataSet, store: FeatureCache, device: str) -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    target = torch.device(device)
    model.to(target)
    # As in inspecting: where patches are the cells, the map's cells are one patch wide.
    patch = model.encoder.patch if model.encoder.config.grid_hw is None else None
    for sample in one.samples:
        picture = read(sample.image)
        views = anyres(picture.pixels_HW3, model.config.views)
        features = move(store.get_or_encode(picture.sha256, model.encoder, views.pixels_NHW3), target)
        with torch.inference_mode():
            output = model.expert(features, [len(features.final_NPD)])
        map_HW = significance_map(output.map_Nhw.float().cpu().numpy(), views.geometry, patch=patch)
        tops = [map_score(map_HW, top) for top in MAP_TOPS]
        values, truth = pixel_sample(map_HW, mask_of(sample, (picture.height, picture.width)), rng)
        yield int(sample.label or 0), float(output.score_B[0]), tops, values, truth


def pixel_sample(
    map_HW: npt.NDArray[np.float32], mask_HW: npt.NDArray[np.bool_] | None, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A random sample of the map's pixels (of one or more values each) with their truth; none without a mask.

    ``map_HW``: (H, W) or (H, W, values).
    """
    height, width, *values = map_HW.shape
    if mask_HW is None:
        return np.empty((0, *values), np.float32), np.empty(0, np.bool_)
    resized = Image.fromarray(mask_HW).resize((width, height), Image.Resampling.NEAREST)
    pick = rng.integers(height * width, size=PIXELS_PER_PICTURE)
    return map_HW.reshape(height * width, *values)[pick], np.asarray(resized).ravel()[pick]


def _fit(scored: dict[str, Scored]) -> tuple[CalibrationConfig, dict[str, Any]]:
    by_top = {
        top: {name: rank_auroc(one.labels, one.score_maps[:, k]) for name, one in scored.items()}
        for k, top in enumerate(MAP_TOPS)
    }
    best = max(MAP_TOPS, key=lambda top: float(np.mean(list(by_top[top].values()))))
    k = MAP_TOPS.index(best)
    values = np.concatenate([one.pixel_values for one in scored.values()])
    truths = np.concatenate([one.pixel_labels for one in scored.values()])
    sets = {name: SetScores(one.labels, one.score_raw, one.score_maps[:, k]) for name, one in scored.items()}
    map_threshold = f1_max_threshold(values, truths.astype(int)) if truths.any() else CalibrationConfig().map_threshold
    calibration = fit_calibration(sets, best, map_threshold)
    table = {
        name: {
            "pictures": len(one.labels),
            "anomalous": int(one.labels.sum()),
            "auroc_score_raw": rank_auroc(one.labels, one.score_raw),
            "auroc_score_map": by_top[best][name],
            "auroc_score": rank_auroc(one.labels, fused_scores(one.score_raw, one.score_maps[:, k], calibration)),
        }
        for name, one in scored.items()
    }
    return calibration, {"sets": table, "map_tops": {str(top): row for top, row in by_top.items()}}


def rank_auroc(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.floating]) -> float:
    """Probability that an anomalous picture scores higher than a normal one, ties counting half."""
    from scipy.stats import rankdata

    ranks, positive = rankdata(scores), labels == 1
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count)))


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
