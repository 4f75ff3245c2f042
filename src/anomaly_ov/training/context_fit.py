"""Fits how expert and context are fused (``ContextConfig``), leave-one-set-out over the labelled training sets.

Every picture is scored by the expert of the fold that never saw its set, and compared with contexts made of its own
set: the folder itself, and draws of 1, 4 and 16 normal pictures. Chosen on mean AUROC over sets and ways of context:
the shares ``whole_top`` and ``detail_top`` and the expert's weight relative to the context's; then slope, bias and
thresholds follow. The same for the map, by pixel AUROC. Test sets take no part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anomaly_ov.calibration import balanced_weights, f1_max_threshold, fit_logistic
from anomaly_ov.configuration import to_mapping
from anomaly_ov.context.bank import Usual, picture_distance
from anomaly_ov.context.build import FEWEST_FOR_FOLDER, Builder, Encoded
from anomaly_ov.context.context import Compared, Context, with_prior
from anomaly_ov.context.fusion import beyond, context_score
from anomaly_ov.context.tokens import PictureTokens, Scales, picture_tokens
from anomaly_ov.data.samples import DataSet, Sample
from anomaly_ov.errors import DataError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.read import Limits, read
from anomaly_ov.images.sources import Source
from anomaly_ov.images.views import anyres
from anomaly_ov.models.config import ContextConfig
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.runner import Runner
from anomaly_ov.models.score import ExpertAlone, expert_alone, logit, sigmoid
from anomaly_ov.models.weights import require_same, shapes_of
from anomaly_ov.provenance import provenance
from anomaly_ov.training.defect_samples import mask_of
from anomaly_ov.training.leave_one_out import pixel_sample, rank_auroc
from anomaly_ov.training.runs import labelled_sets

Floats = npt.NDArray[np.float64]
HALF = 2.0
"""Any value serves: it cancels once distances are told by their logarithm."""

TOPS = tuple(Scales(whole, detail) for whole in (0.1, 0.2, 0.3, 0.5) for detail in (0.02, 0.05, 0.1, 0.2))
NOISE = 0.005
"""Differences of mean AUROC that mean nothing: about its standard error over some 70 trials."""

WIDER = 2.0
"""Few training sets show only part of how objects differ: the spread between them is taken so many times as wide."""

EXPERT_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
DRAWS = ((1, 0), (1, 1), (4, 0), (4, 1), (16, 0), (16, 1))
"""(good references, seed) of the contexts beside the folder's own; those that leave a normal picture to compare."""


@dataclass(frozen=True)
class ContextPlan:
    """What is fitted on: at most ``pictures`` of each of ``categories`` categories of a set, drawn by ``seed``."""

    pictures: int = 120
    categories: int = 6
    seed: int = 0


@dataclass(frozen=True)
class _Picture:
    sample: Sample
    tokens: PictureTokens
    expert: ExpertAlone


@dataclass(frozen=True)
class _Trial:
    """One context applied to one category: ``way`` is "folder" or the number of references.

    ``distance_NT``: of each picture for every entry of ``TOPS``; ``usual_T`` likewise, the references' own figures
    without a prior at first (``_with_priors``); ``pixels``: logit of the expert's map, logarithm of the distance and
    truth, of sampled pixels.
    """

    dataset: str
    way: str
    labels: npt.NDArray[np.int64]
    score_expert: Floats
    distance_NT: Floats
    usual_T: tuple[Usual, ...]
    pixels: tuple[Floats, Floats, npt.NDArray[np.bool_]]


def fit_context(
    sets: Sequence[Path], model: Path, folds: Path, out: Path, plan: ContextPlan, device: str = "cpu"
) -> ContextConfig:
    """Writes ``out/context.json`` (the figures) and ``out/context_config.json``; returns the latter.

    ``model``: with its projection. ``folds``: what ``train leave-one-out`` wrote; its experts must go with ``model``'s
    encoder. ``sets``: folders of the labelled training sets. Raises ``DataError`` for a set of which no category is of
    use (see ``_categories``), for a fold of another encoder, and when no picture has a mask.
    """
    base = AnomalyModel.from_pretrained(model)
    trials: list[_Trial] = []
    for one in labelled_sets(sets):
        runner = Runner(_fold(base, folds / f"without-{one.name}" / "model"), device, "float32", None)
        for samples in _categories(one, plan):
            pictures = list(_encoded(samples, base, runner, one.name))
            trials += _trials(one.name, pictures, base, runner, plan)
    config, table = _fit(_with_priors(trials))
    table["provenance"] = provenance(plan.seed)
    table["plan"], table["model"] = to_mapping(plan), base.config.revision
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "context.json", (json.dumps(table, indent=2) + "\n").encode())
    write_atomic(out / "context_config.json", (json.dumps(to_mapping(config), indent=2) + "\n").encode())
    return config


def _fold(base: AnomalyModel, folder: Path) -> AnomalyModel:
    """``base`` with the expert of ``folder``.

    Raises ``DataError`` if that was trained on another encoder, ``CheckpointMismatch`` if it is of another shape.
    """
    fold = AnomalyModel.from_pretrained(folder)
    ours, theirs = base.encoder.state_dict(), fold.encoder.state_dict()
    if ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in ours):
        raise DataError(
            f"{folder} has another encoder than the model", hint="run 'train leave-one-out' with the same --start"
        )
    expected = shapes_of(base.expert.state_dict())
    require_same(expected, shapes_of(fold.expert.state_dict()), f"the expert of {folder}")
    model = AnomalyModel(base.config)
    model.load_state_dict(base.state_dict())
    model.expert.load_state_dict(fold.expert.state_dict())
    return model


def _categories(one: DataSet, plan: ContextPlan) -> Iterator[list[Sample]]:
    """A seeded sample of each category that has both labels and enough pictures for a folder's context.

    Raises ``DataError`` if there is none: a set that was named must not be passed over in silence.
    """
    names = sorted({sample.category for sample in one.samples})
    groups = ([s for s in one.samples if s.category == name and s.label is not None] for name in names)
    drawn = ([group[i] for i in _order(len(group), plan.seed)[: plan.pictures]] for group in groups)
    usable = (group for group in drawn if len(group) >= FEWEST_FOR_FOLDER and {s.label for s in group} == {0, 1})
    found = list(islice(usable, plan.categories))
    if not found:
        raise DataError(
            f"{one.root}: no category with normal and anomalous pictures among {plan.pictures} drawn",
            hint="allow more pictures, or leave the set out",
        )
    yield from found


def _order(count: int, seed: int | tuple[int, int]) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).permutation(count)]


def _encoded(samples: Sequence[Sample], base: AnomalyModel, runner: Runner, name: str) -> Iterator[_Picture]:
    from rich.console import Console
    from rich.progress import track

    for sample in track(samples, description=f"encoding {name}", console=Console(stderr=True)):
        picture = read(sample.image)
        views = anyres(picture.pixels_HW3, base.config.views)
        (output,) = runner.forward([views.pixels_NHW3], features=True)
        assert output.features is not None
        levels, grid = output.features.level_arrays(), output.features.grid_hw
        tokens = picture_tokens(levels, grid, views.geometry, runner.token_maps, picture.sha256, runner.patch)
        alone = expert_alone(output.map_Nhw, output.score_raw, views.geometry, base.config.calibration, runner.patch)
        yield _Picture(sample, tokens, alone)


def _trials(
    name: str, pictures: Sequence[_Picture], base: AnomalyModel, runner: Runner, plan: ContextPlan
) -> Iterator[_Trial]:
    """The folder's own context, then good references drawn from the normal pictures."""
    by_id = {str(one.sample.image): one for one in pictures}

    def encode(sources: Sequence[Source]) -> Iterator[Encoded | None]:
        found = (by_id[source.id] for source in sources)
        return (Encoded(one.tokens, float(logit(one.expert.score))) for one in found)

    builder = Builder(encode, base.config.context, base.config.revision, Limits())
    sources = [Source(path, path) for path in by_id]
    yield _trial(name, "folder", builder.folder(sources, name), pictures)
    normal = [source for source in sources if by_id[source.id].sample.label == 0]
    for count, seed in DRAWS:
        chosen = [normal[i] for i in _order(len(normal), (plan.seed, seed))[:count]]
        context = builder.references(chosen, name)
        rest = [one for one in pictures if one.tokens.digest not in context.bank.digests]
        if {one.sample.label for one in rest} != {0, 1}:
            continue  # all normal pictures serve as references: an AUROC is not defined
        yield _trial(name, str(count), context, rest)


def _trial(name: str, way: str, context: Context, pictures: Sequence[_Picture]) -> _Trial:
    bank = context.bank
    labels, experts, distances, pixels = [], [], [], []
    rng = np.random.default_rng(0)
    for one in pictures:
        compared = context.compare(one.tokens)
        if compared is None:
            continue
        labels.append(int(one.sample.label or 0))
        experts.append(one.expert.score)
        distances.append([picture_distance(compared.cells, tops) for tops in TOPS])
        pixels.append(_pixels(one, compared, rng))
    # One kind per category: what is usual is that of the largest.
    among_themselves = bank.among_themselves(0)
    usual = tuple(bank.usual_of(0, among_themselves, tops) for tops in TOPS)
    joined = tuple(np.concatenate(part) for part in zip(*pixels, strict=True))
    return _Trial(
        name, way, np.array(labels), np.array(experts), np.array(distances), usual, (joined[0], joined[1], joined[2])
    )


def _pixels(
    one: _Picture, compared: Compared, rng: np.random.Generator
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """See ``_Trial.pixels``; none where the truth is not known."""
    height, width = one.expert.map_HW.shape
    mask_HW = mask_of(one.sample, (height, width))
    usual = compared.usual.distance
    context_HW = one.tokens.to_map(compared.cells.map(lambda one_P: context_score(one_P, usual, HALF)))
    values, truth = pixel_sample(np.stack([one.expert.map_HW, context_HW], axis=-1), mask_HW, rng)
    log_distance = logit(values[:, 1]) + np.log(HALF * usual)
    return logit(values[:, 0]), log_distance, truth


def _fit(trials: Sequence[_Trial]) -> tuple[ContextConfig, dict[str, Any]]:
    names = list(dict.fromkeys(trial.dataset for trial in trials))
    ways = list(dict.fromkeys(trial.way for trial in trials))

    def mean_over(figure: dict[tuple[str, str], list[float]]) -> float:
        """Sets count alike, and within a set all ways that it has."""
        of_set: dict[str, list[float]] = {}
        for (name, _), values in figure.items():
            of_set.setdefault(name, []).append(float(np.mean(values)))
        return float(np.mean([np.mean(means) for means in of_set.values()]))

    def by_set(figure: Any, among: Sequence[_Trial] = trials) -> dict[tuple[str, str], list[float]]:
        found: dict[tuple[str, str], list[float]] = {}
        for trial in among:
            found.setdefault((trial.dataset, trial.way), []).append(figure(trial))
        return found

    def auroc(trial: _Trial, k: int, weight: float) -> float:
        expert, context = _excess(trial, k)
        return rank_auroc(trial.labels, context + weight * expert)

    grid = {
        (k, weight): mean_over(by_set(lambda trial, k=k, weight=weight: auroc(trial, k, weight)))
        for k in range(len(TOPS))
        for weight in EXPERT_WEIGHTS
    }
    best = max(grid.values())
    # Where it hardly matters on average, the smallest share of details: a small defect should raise the score.
    least = min(TOPS[k].detail for (k, _), value in grid.items() if value >= best - NOISE)
    k, weight = max((key for key in grid if TOPS[key[0]].detail == least), key=lambda key: grid[key])
    masked = [trial for trial in trials if trial.pixels[2].any()]
    if not masked:
        raise DataError(
            f"no picture drawn from {', '.join(names)} has a mask",
            hint="add a set with masks: the map's fusion is fitted on them",
        )
    map_grid = {w: float(np.mean([_pixel_auroc(trial, k, w) for trial in masked])) for w in EXPERT_WEIGHTS}
    map_weight = max(map_grid, key=lambda key: map_grid[key])
    config = _config(trials, k, weight, map_weight)
    rows = {
        "expert": by_set(lambda trial: rank_auroc(trial.labels, trial.score_expert)),
        "context": by_set(lambda trial: auroc(trial, k, 0.0)),
        "fused": by_set(lambda trial: auroc(trial, k, weight)),
    }
    pixel_rows = {
        "expert": by_set(lambda trial: rank_auroc(trial.pixels[2].astype(np.int64), trial.pixels[0]), masked),
        "fused": by_set(lambda trial: _pixel_auroc(trial, k, map_weight), masked),
    }
    table = {
        "auroc": {
            part: {
                way: {name: float(np.mean(figure[name, way])) for name in names if (name, way) in figure}
                for way in ways
            }
            for part, figure in rows.items()
        },
        "pixel_auroc": {
            part: {f"{n}, {w}": float(np.mean(v)) for (n, w), v in figure.items()}
            for part, figure in pixel_rows.items()
        },
        "grid": {
            f"whole {TOPS[i].whole}, detail {TOPS[i].detail}, expert weight {w}": value
            for (i, w), value in grid.items()
        },
        "map_grid": {f"expert weight {w}": value for w, value in map_grid.items()},
    }
    return config, table


def _typical(trials: Sequence[_Trial], k: int) -> ContextConfig:
    """The priors for ``TOPS[k]``: what is usual in the folders' own contexts, medians over sets, and how it varies."""
    by_set: dict[str, list[Usual]] = {}
    for trial in trials:
        if trial.way == "folder":
            by_set.setdefault(trial.dataset, []).append(trial.usual_T[k])

    def median(field: str) -> float:
        return float(np.median([np.mean([getattr(usual, field) for usual in own]) for own in by_set.values()]))

    def between(figures: dict[str, list[float]]) -> float:
        """Standard deviation from category to category, sets counting alike, widened (``WIDER``)."""
        values, weights = (
            np.concatenate(part)
            for part in zip(*((own, np.full(len(own), 1 / len(own))) for own in figures.values()), strict=True)
        )
        return max(WIDER * float(np.sqrt(np.cov(values, aweights=weights, ddof=0))), 0.05)

    return ContextConfig(
        whole_top=TOPS[k].whole,
        detail_top=TOPS[k].detail,
        usual=median("distance"),
        spread=median("distance_spread"),
        usual_spread=between({name: [float(np.log(one.distance)) for one in own] for name, own in by_set.items()}),
        expert_usual=median("expert_logit"),
        expert_spread=median("expert_spread"),
        expert_usual_spread=between({name: [one.expert_logit for one in own] for name, own in by_set.items()}),
    )


def _with_priors(trials: Sequence[_Trial]) -> list[_Trial]:
    """The trials with what is usual drawn towards their common figures, as it will be when inspecting."""
    priors = [_typical(trials, k) for k in range(len(TOPS))]
    return [
        replace(trial, usual_T=tuple(with_prior(own, prior) for own, prior in zip(trial.usual_T, priors, strict=True)))
        for trial in trials
    ]


def _config(trials: Sequence[_Trial], k: int, weight: float, map_weight: float) -> ContextConfig:
    """Priors from the folders' contexts; slope, bias and thresholds from all trials, each counting alike."""
    typical = _typical(trials, k)
    labels = np.concatenate([trial.labels for trial in trials])
    owner = np.repeat(np.arange(len(trials)), [len(trial.labels) for trial in trials])
    weights = balanced_weights(labels, owner)
    parts = [_excess(trial, k) for trial in trials]
    expert, context = (np.concatenate(column) for column in zip(*parts, strict=True))
    times = np.concatenate([trial.distance_NT[:, k] / trial.usual_T[k].distance for trial in trials])
    bias, (slope,) = fit_logistic((context + weight * expert)[:, None], labels, weights)
    score = sigmoid(bias + slope * (context + weight * expert))
    masked = [trial for trial in trials if trial.pixels[2].any()]
    truth = np.concatenate([trial.pixels[2] for trial in masked]).astype(np.int64)
    pairs = [_pixel_excess(trial, k) for trial in masked]
    of_map = np.concatenate([context + map_weight * expert for expert, context in pairs])
    of_trial = np.repeat(np.arange(len(masked)), [len(trial.pixels[2]) for trial in masked])
    # Both labels alike, or the map would show how rare defects are; the threshold below counts them as they are.
    map_bias, (map_slope,) = fit_logistic(of_map[:, None], truth, balanced_weights(truth, of_trial))
    names = ", ".join(dict.fromkeys(trial.dataset for trial in trials))
    return replace(
        typical,
        half=f1_max_threshold(times, labels, weights),
        bias=bias,
        expert_weight=slope * weight,
        context_weight=slope,
        threshold=f1_max_threshold(score, labels, weights),
        threshold_source=f"F1-max on leave-one-set-out scores with contexts of {names} (n = {len(labels)}, balanced)",
        map_bias=map_bias,
        map_expert_weight=map_slope * map_weight,
        map_context_weight=map_slope,
        map_threshold=f1_max_threshold(sigmoid(map_bias + map_slope * of_map), truth),
    )


def _excess(trial: _Trial, k: int) -> list[Floats]:
    """Expert's and context's excess of each picture, as ``fusion.excesses``."""
    return beyond(logit(trial.score_expert), np.log(np.maximum(trial.distance_NT[:, k], 1e-9)), trial.usual_T[k])


def _pixel_excess(trial: _Trial, k: int) -> list[Floats]:
    return beyond(trial.pixels[0], trial.pixels[1], trial.usual_T[k])


def _pixel_auroc(trial: _Trial, k: int, weight: float) -> float:
    expert, context = _pixel_excess(trial, k)
    return rank_auroc(trial.pixels[2].astype(np.int64), context + weight * expert)
