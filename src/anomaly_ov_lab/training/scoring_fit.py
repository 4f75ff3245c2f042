"""Fits how evidence becomes a score (``ScoringConfig``), leave-one-set-out over the labelled training sets.

Every image is seen by the expert of the fold that never saw its set, and judged alone, beside 1, 4 and 16 good images
of its category (seeded draws) and beside the other images of its category, with the very functions that inspect
(``context.build``, ``scoring.score``). Chosen on the mean AUROC over sets: the weights of each mode. Then follow what
is usual of normal images and the threshold for a stated rate of false alarms. ``held_out`` repeats all of that without
one set at a time and measures it there: the figures to expect of a set never seen. Test sets take no part.

Legend: I images, K kinds of evidence (``PARTS``), C cells of the map's finest layer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.configuration import to_mapping
from anomaly_ov.context.build import FEWEST_FOR_FOLDER, MEASURED, Builder, Encoded
from anomaly_ov.context.context import Context
from anomaly_ov.errors import DataError, ImageError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.prepared import prepare_one
from anomaly_ov.images.read import DEFAULT_LIMITS
from anomaly_ov.images.sources import Source
from anomaly_ov.look import look
from anomaly_ov.models.config import ModeConfig, ScoringConfig
from anomaly_ov.models.engines.interface import Engine
from anomaly_ov.models.folder import read_config
from anomaly_ov.models.hub import CONFIG_FILE
from anomaly_ov.provenance import provenance
from anomaly_ov.records import Mode
from anomaly_ov.scoring.anomaly_map import blended_cells, map_score
from anomaly_ov.scoring.cells import Cells, Floats
from anomaly_ov.scoring.evidence import References, log_distance
from anomaly_ov.scoring.score import Usual, expected, logit, witnessed
from anomaly_ov.streaming import Progress, nobody
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.evaluation.metrics import auroc

Values = npt.NDArray[np.float64]
PARTS = ("references", "own", "counterpart", "expert", "symmetric own", "symmetric counterpart")
DRAWS = ((1, 0), (1, 1), (2, 0), (4, 0), (4, 1), (8, 0), (16, 0))
"""(good references, seed) of the contexts beside the folder's own; those that leave a normal image to judge."""

MODES: tuple[Mode, ...] = ("alone", "few", "references", "folder")
FALSE_ALARMS: Mapping[Mode, float] = {"alone": 0.2, "few": 0.15, "references": 0.1, "folder": 0.12}
"""Rate of false alarms on training sets at which each mode's threshold lies."""

OWN, MATCHED = (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.5, 1.0)
EXPERT = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
LOSS = 3.0
"""A set on which the expert's map costs AUROC counts so many times as much as one on which it gains as much: what helps
most kinds of image and ruins one is no evidence for a kind never seen."""

LEAST = 0.02
"""A standard deviation over a handful of images may be small by chance."""


@dataclass(frozen=True)
class ScoringPlan:
    """Fitted on: at most ``images`` of each label of each of ``categories`` categories of a set, drawn by ``seed``."""

    images: int = 30
    categories: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One mode applied to one category. ``parts_IKC``: evidence of the judged images on the map's finest cells, one
    array each; ``own_parts_IKC``: of the references, each against the others. ``count``: references.
    """

    dataset: str
    category: str
    mode: Mode
    count: int
    labels: npt.NDArray[np.int64]
    parts_IKC: tuple[Floats, ...]
    own_parts_IKC: tuple[Floats, ...]


def trials_of(
    dataset: DataSet, engine: Engine, experts: Engine | None, plan: ScoringPlan, progress: Progress = nobody
) -> Iterator[Trial]:
    """All trials on one set. ``engine`` encodes; ``experts``: whose expert looks, default the same."""
    wanted = dict(_categories(dataset, plan))
    total, done = sum(len(samples) for samples in wanted.values()), 0
    for category, samples in wanted.items():
        found = {}
        for sample in samples:
            found[sample] = _encoded(sample, engine, experts)
            done += 1
            progress(done, total)
        encoded = {str(sample.image): one for sample, one in found.items() if one is not None}
        readable = [sample for sample, one in found.items() if one is not None]
        if {sample.label for sample in readable} == {0, 1}:
            yield from _trials(dataset.name, category, readable, encoded, engine)


@dataclass(frozen=True)
class Candidate:
    """One way to weigh a mode's evidence, and for each trial the suspicions of its images and references, and AUROC."""

    mode: ModeConfig
    found: tuple[Values, ...]
    own: tuple[Values, ...]
    auroc: tuple[float, ...]


class Candidates:
    """Every way to weigh the evidence of every trial, computed once: what is chosen depends on which sets are seen."""

    def __init__(self, trials: Sequence[Trial], base: ScoringConfig, *, experts: bool = True) -> None:
        """``experts``: whether the expert's map may count; only where it never saw the set."""
        self.base = base
        of_mode = {mode: tuple(trial for trial in trials if trial.mode == mode) for mode in MODES}
        self.trials = {mode: own for mode, own in of_mode.items() if own}
        self._ways = {
            mode: [_candidate(way, own, base) for way in _ways(mode, base, experts)]
            for mode, own in self.trials.items()
        }

    def fitted(self, seen: Callable[[str], bool] = lambda name: True) -> ScoringConfig:
        """The best on what is seen, a mode of which nothing is seen as it was. ``DataError`` if nothing is."""
        found: dict[str, ModeConfig] = {}
        for mode, trials in self.trials.items():
            kept = [k for k, trial in enumerate(trials) if seen(trial.dataset)]
            if kept:
                own = [trials[k] for k in kept]
                best = max(self._ways[mode], key=lambda way: self._merit(mode, way, kept, own))
                found[mode] = _with_usual(
                    mode, own, [best.found[k] for k in kept], [best.own[k] for k in kept], best.mode
                )
        if not found:
            raise DataError("no trial to fit the scoring on", hint="name labelled sets with good and bad images")
        return replace(self.base, **found)  # type: ignore[arg-type]

    def by_expert(self) -> dict[str, dict[str, dict[str, float]]]:
        """AUROC by mode, the expert's weight and set, each with the best other weights for the mean."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for mode, trials in self.trials.items():
            names = list(dict.fromkeys(trial.dataset for trial in trials))
            for weight in dict.fromkeys(way.mode.expert for way in self._ways[mode]):
                same = [way for way in self._ways[mode] if way.mode.expert == weight]
                best = max(same, key=lambda way: _by_set(trials, way.auroc))
                values = dict(zip(names, _of_sets(trials, best.auroc), strict=True))
                found.setdefault(mode, {})[str(weight)] = {name: round(value, 4) for name, value in values.items()}
        return found

    def _merit(self, mode: Mode, way: Candidate, kept: Sequence[int], own: Sequence[Trial]) -> float:
        """Mean AUROC over sets, losses against the same weights without the expert counted ``LOSS`` times."""
        plain = next(w for w in self._ways[mode] if w.mode == replace(way.mode, expert=0.0))
        gains = _of_sets(own, [way.auroc[k] - plain.auroc[k] for k in kept])
        base = _by_set(own, [plain.auroc[k] for k in kept])
        return base + float(np.mean([gain if gain > 0 else LOSS * gain for gain in gains]))


def measure(trials: Sequence[Trial], config: ScoringConfig) -> dict[str, Any]:
    """Mean AUROC, false alarms and misses of each mode; "few" and "references" also by their number."""
    of_way: dict[str, list[Trial]] = {}
    for trial in trials:
        name = trial.mode if trial.mode in ("alone", "folder") else f"{trial.count} references"
        of_way.setdefault(name, []).append(trial)
    found: dict[str, Any] = {}
    for name, own in of_way.items():
        rows = []
        for trial in own:
            mode: ModeConfig = getattr(config, trial.mode)
            beyond = _beyond(trial, mode, config) - mode.step
            alarms, misses = (beyond[trial.labels == 0] >= 0).mean(), (beyond[trial.labels == 1] < 0).mean()
            rows.append((auroc(trial.labels, beyond) or 0.0, float(alarms), float(misses)))
        found[name] = dict(zip(("auroc", "false_alarms", "misses"), np.mean(rows, axis=0).tolist(), strict=True))
    return found


def fit_scoring(
    sets: Sequence[DataSet],
    engine: Engine,
    experts: Mapping[str, Engine],
    out: Path,
    plan: ScoringPlan,
    progress: Callable[[str], Progress] = lambda name: nobody,
) -> ScoringConfig:
    """Writes ``out/scoring.json``: the configuration, figures on all sets and on each set held out; returns the first.

    ``experts``: by set, the engine whose expert never saw it; without any the expert's map does not count.
    """
    trials: list[Trial] = []
    for one in sets:
        trials += trials_of(one, engine, experts.get(one.name), plan, progress(one.name))
    candidates = Candidates(trials, engine.config.scoring, experts=bool(experts))
    config = candidates.fitted()
    names = sorted({trial.dataset for trial in trials})
    held_out = {}
    for name in names if len(names) > 1 else ():
        without = candidates.fitted(lambda other, name=name: other != name)  # type: ignore[misc]
        fitted = {trial.mode for trial in trials if trial.dataset != name}
        held_out[name] = measure([t for t in trials if t.dataset == name and t.mode in fitted], without)
    table = {
        "scoring": to_mapping(config),
        "false_alarms_wanted": dict(FALSE_ALARMS),
        "expert_weights": candidates.by_expert(),
        "all": _mean({name: measure([t for t in trials if t.dataset == name], config) for name in names}),
        "held_out_mean": _mean(held_out),
        "held_out": held_out,
        "plan": to_mapping(plan),
        "model": engine.config.revision,
        "provenance": provenance(plan.seed),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "scoring.json", (json.dumps(table, indent=2) + "\n").encode())
    return config


def with_scoring(model: Path, config: ScoringConfig, out: Path) -> Path:
    """A copy of the model folder ``model`` that judges by ``config``; returns ``out``."""
    values = to_mapping(replace(read_config(model), scoring=config))
    if out.resolve() != model.resolve():
        # The configuration comes last: half a copy is no model folder.
        (out / CONFIG_FILE).unlink(missing_ok=True)
        own = {str(model): {CONFIG_FILE}}
        shutil.copytree(model, out, dirs_exist_ok=True, ignore=lambda folder, names: own.get(folder, set()))
    write_atomic(out / CONFIG_FILE, (json.dumps(values, indent=2) + "\n").encode())
    return out


def _categories(dataset: DataSet, plan: ScoringPlan) -> Iterator[tuple[str, list[Sample]]]:
    """Labelled images of the first categories that have both labels, drawn by seed."""
    found = 0
    for category in dataset.categories:
        chosen = []
        for label in (0, 1):
            own = [s for s in dataset.labelled() if s.category == category and s.label == label]
            drawn = np.random.RandomState(plan.seed).permutation(len(own))[: plan.images]
            chosen.append([own[i] for i in sorted(drawn)])
        if all(chosen) and found < plan.categories:
            found += 1
            yield category, chosen[0] + chosen[1]


class _WithExpert:
    """One engine's encoder with another's expert."""

    def __init__(self, engine: Engine, experts: Engine) -> None:
        self._engine, self.expert = engine, experts.expert
        self.encode, self.patch, self.config = engine.encode, engine.patch, engine.config


def _encoded(sample: Sample, engine: Engine, experts: Engine | None) -> Encoded | None:
    """None for an image that cannot be read."""
    try:
        prepared = prepare_one(str(sample.image), engine.config.views, DEFAULT_LIMITS)
    except ImageError:
        return None
    seeing: Any = engine if experts is None else _WithExpert(engine, experts)
    (looked,) = look(seeing, [prepared], engine.config.scoring)
    return Encoded(looked.tokens, looked.output.map_Nhw, looked.output.score_raw)


def _trials(
    name: str, category: str, samples: Sequence[Sample], encoded: Mapping[str, Encoded], engine: Engine
) -> Iterator[Trial]:
    config = engine.config.scoring
    builder = Builder(
        lambda sources: (encoded[str(one.item)] for one in sources), config, engine.config.revision, DEFAULT_LIMITS
    )
    goods = [sample for sample in samples if sample.label == 0]

    def judged(
        which: Sequence[Sample], context: Context | None, mode: Mode, count: int, own: Sequence[Sample]
    ) -> Trial:
        def parts(sample: Sample, *, no_copies: bool = False) -> Floats | None:
            one, found = encoded[str(sample.image)], None
            if context is not None:
                bank = context.bank
                kind = bank.kind_R[bank.digests.index(one.tokens.digest)] if no_copies else bank.kind_of(one.tokens)
                found = None if kind is None else bank.compare(one.tokens, int(kind), no_copies=no_copies)
                if found is None:
                    return None
            return _parts(one, found, config)

        kept = [(sample, values) for sample in which if (values := parts(sample)) is not None]
        measured = [values for sample in own if (values := parts(sample, no_copies=True)) is not None]
        labels = np.array([sample.label for sample, _ in kept], np.int64)
        return Trial(name, category, mode, count, labels, tuple(values for _, values in kept), tuple(measured))

    yield judged(samples, None, "alone", 0, ())
    digests = {str(sample.image): encoded[str(sample.image)].tokens.digest for sample in samples}
    if len(set(digests.values())) >= FEWEST_FOR_FOLDER:
        folder = builder.folder(_sources(samples), name)
        # The builder measures the first ones by digest: good and bad as they come.
        held = {digests[str(s.image)]: s for s in samples if digests[str(s.image)] in folder.bank.digests}
        yield judged(samples, folder, "folder", len(folder.bank), [held[one] for one in sorted(held)][:MEASURED])
    for count, seed in DRAWS:
        if count + 8 > len(goods):
            continue
        drawn = np.random.RandomState(1000 * seed + count).permutation(len(goods))[:count]
        references = [goods[i] for i in drawn]
        known = {digests[str(sample.image)] for sample in references}
        rest = [sample for sample in samples if digests[str(sample.image)] not in known]
        context = builder.references(_sources(references), name)
        mode: Mode = "few" if count < 4 else "references"
        yield judged(rest, context, mode, count, references if count > 1 else ())


def _sources(samples: Sequence[Sample]) -> list[Source]:
    return [Source(str(sample.image), str(sample.image)) for sample in samples]


def _parts(one: Encoded, found: References | None, config: ScoringConfig) -> Floats:
    """(K, C) float32: the evidence of one image, each kind blended to the map's finest cells."""
    cells = one.tokens.cells
    zeros = np.zeros(cells.shown_Nhw.shape, np.float32)
    share = 0.0 if found is None else witnessed(found.count)
    own = cells.joined(one.tokens.own)
    counterpart = zeros if found is None else np.float32(share) * cells.joined(found.counterpart)
    symmetry = np.float32(one.tokens.symmetry * (1 - share))
    layers = (
        zeros if found is None else cells.joined(found.distance.map(log_distance)),
        own,
        counterpart,
        logit(one.expert_Nhw).astype(np.float32),
        symmetry * own,
        symmetry * counterpart,
    )
    return np.stack([_fine(layer, cells, config) for layer in layers])


def _fine(layer_Nhw: Floats, cells: Cells, config: ScoringConfig) -> Floats:
    return blended_cells(layer_Nhw, cells.geometry, base_weight=config.whole_weight, patch=cells.patch).ravel()


def _suspicions(parts_IKC: Sequence[Floats], mode: ModeConfig, config: ScoringConfig) -> Values:
    """(I,): as ``scoring.score.suspicion``, from evidence that is blended already (blending is linear)."""
    more = 1 - mode.own if mode.own else 0.0  # in a symmetric image
    own = (mode.own, -mode.own * mode.matched, mode.expert, more, -more * mode.matched)
    weights = np.array([1.0, *own], np.float32)
    return np.array([mode.local * map_score((weights @ parts_KC)[None], config.top) for parts_KC in parts_IKC])


def _beyond(trial: Trial, mode: ModeConfig, config: ScoringConfig) -> Values:
    """(I,): spreads beyond what is usual in this trial."""
    own, found = (_suspicions(parts, mode, config) for parts in (trial.own_parts_IKC, trial.parts_IKC))
    return _spreads(trial, found, own, mode)


def _spreads(trial: Trial, found: Values, own: Values, mode: ModeConfig) -> Values:
    value, spread = expected(Usual.of(own.tolist(), robust=trial.mode == "folder"), mode)
    return np.asarray((found - value) / spread)


def _ways(mode: Mode, base: ScoringConfig, experts: bool) -> list[ModeConfig]:
    """What is tried: cells alone, as in the trials."""
    start: ModeConfig = replace(getattr(base, mode), local=1.0, head=0.0)
    own = (1.0,) if mode == "alone" else OWN
    matched = MATCHED if mode in ("few", "references") else (0.0,)
    found = product(own, matched, EXPERT if experts else (0.0,))
    return [replace(start, own=o, matched=m, expert=e) for o, m, e in found if o or not m]


def _candidate(way: ModeConfig, trials: Sequence[Trial], base: ScoringConfig) -> Candidate:
    found = tuple(_suspicions(trial.parts_IKC, way, base) for trial in trials)
    own = tuple(_suspicions(trial.own_parts_IKC, way, base) for trial in trials)
    told = tuple(auroc(trial.labels, values) or 0.0 for trial, values in zip(trials, found, strict=True))
    return Candidate(way, found, own, told)


def _with_usual(
    mode: Mode, trials: Sequence[Trial], found: Sequence[Values], own: Sequence[Values], way: ModeConfig
) -> ModeConfig:
    """``way`` with what is usual of normal images, and the threshold for the wanted rate of false alarms."""
    normal = [values[trial.labels == 0] for trial, values in zip(trials, found, strict=True)]
    of_category: dict[str, list[float]] = {}
    for trial, values in zip(trials, normal, strict=True):
        of_category.setdefault(f"{trial.dataset}/{trial.category}", []).append(float(values.mean()))
    chosen = replace(
        way,
        usual=_by_set(trials, [float(values.mean()) for values in normal]),
        spread=max(float(np.median([values.std() for values in normal])), LEAST),
        usual_spread=max(float(np.std([np.mean(values) for values in of_category.values()])), LEAST),
    )
    beyond = [
        _spreads(trial, values, references, chosen)[trial.labels == 0]
        for trial, values, references in zip(trials, found, own, strict=True)
    ]
    sets, images = len({trial.dataset for trial in trials}), sum(len(trial.labels) for trial in trials)
    source = f"{FALSE_ALARMS[mode]:.0%} false alarms on {sets} training sets ({images} judgements)"
    return replace(chosen, step=_quantile(trials, beyond, 1 - FALSE_ALARMS[mode]), source=source)


def _by_set(trials: Sequence[Trial], values: Sequence[float]) -> float:
    """Mean over sets of the mean over their trials."""
    return float(np.mean(_of_sets(trials, values)))


def _of_sets(trials: Sequence[Trial], values: Sequence[float]) -> list[float]:
    """Of each set the mean over its trials."""
    of_set: dict[str, list[float]] = {}
    for trial, value in zip(trials, values, strict=True):
        of_set.setdefault(trial.dataset, []).append(value)
    return [float(np.mean(own)) for own in of_set.values()]


def _quantile(trials: Sequence[Trial], values: Sequence[Values], share: float) -> float:
    """Quantile over all images, every set counting the same."""
    images: dict[str, int] = {}
    for trial, own in zip(trials, values, strict=True):
        images[trial.dataset] = images.get(trial.dataset, 0) + len(own)
    weights = np.concatenate([np.full(len(own), 1 / images[t.dataset]) for t, own in zip(trials, values, strict=True)])
    pooled = np.concatenate(list(values))
    order = np.argsort(pooled)
    reached = np.cumsum(weights[order]) / weights.sum()
    last = min(int(np.searchsorted(reached, share - 1e-9)), len(pooled) - 1)
    # Half-way to the next value: the image that reaches the share is still below.
    return float(pooled[order][last : last + 2].mean())


def _mean(by_set: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    ways = dict.fromkeys(way for rows in by_set.values() for way in rows)
    return {
        way: {
            key: float(np.mean([rows[way][key] for rows in by_set.values() if way in rows]))
            for key in ("auroc", "false_alarms", "misses")
        }
        for way in ways
    }
