"""Runs a detector over a labelled data set and measures it: per category, their mean, and pooled.

* Measured are pictures whose label is known; of a set with a train split only the test split, unless asked otherwise.
  Good pictures that served as references are taken out before (``selection``).
* Pictures whose label is uncertain but have a probability are scored too, and enter one extra figure, ``uncertain``,
  where a probability above 0 counts as anomalous.
* A picture that cannot be read is counted, named and left out of every figure.
* Pixel metrics take a category's normal pictures (nothing to find) and its anomalous ones that have a mask, each at its
  mask's own resolution; a category without any defect pixel has none.
* ``distinct`` counts files with the same bytes once; where copies bear both labels, none of them counts.
* Also kept are the maps of the pictures that look worst as they come (``WorstSoFar``), for the page of the run.

What is scored is kept in the run's folder as it comes; the same call goes on where the last one ended.
"""

from __future__ import annotations

import heapq
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_ov.errors import DataError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.sources import Source
from anomaly_ov.provenance import provenance
from anomaly_ov.records import Detector, Finding, ModelInfo
from anomaly_ov.scoring.conformal import scoring_digest
from anomaly_ov_lab.data.hashing import sha256_file
from anomaly_ov_lab.data.samples import DataSet, Sample, read_mask
from anomaly_ov_lab.evaluation.figures import Figures, figures_of, mean_of
from anomaly_ov_lab.evaluation.pixel_metrics import MAX_EXACT, ExactPixels, HistogramPixels, PixelMetrics
from anomaly_ov_lab.evaluation.row_file import folder_or_temporary
from anomaly_ov_lab.evaluation.run_folder import ContextUsed, MapFile, Row, RunFolder, write_labels
from anomaly_ov_lab.evaluation.run_notes import notes_of, nothing_scored
from anomaly_ov_lab.evaluation.selection import measured
from anomaly_ov_lab.evaluation.with_context import ContextDetector

METRICS_SCHEMA = "anomaly-ov.detection/1"
METRICS_NAME = "metrics.json"


@dataclass(frozen=True)
class ScoredSample:
    """A picture and its row."""

    sample: Sample
    row: Row


@dataclass(frozen=True)
class DetectionResult:
    """Everything measured on one set.

    ``main``: the figure to quote, the mean over categories or, of a set with one category, that category's.
    ``counts``: pictures measured (n, normal, anomalous), unreadable, uncertain, and distinct files.
    ``speed``: pictures scored in this call, seconds, pictures per second (None if all rows were there already).
    ``contexts``: by category, what else said what is normal; empty where each picture stood for itself.
    ``scored``: every picture with its row, in the set's order, unreadable and uncertain ones too; not in ``to_json``.
    """

    dataset: str
    layout: str
    model: ModelInfo
    threshold_source: str | None
    counts: dict[str, int]
    categories: tuple[Figures, ...]
    main: Figures
    pooled: Figures
    distinct: Figures | None
    uncertain: Figures | None
    speed: dict[str, float | int | None]
    notes: tuple[str, ...]
    provenance: dict[str, Any]
    contexts: Mapping[str, ContextUsed] = field(default_factory=dict)
    scored: tuple[ScoredSample, ...] = field(default=(), repr=False, compare=False)

    @property
    def context_label(self) -> str | None:
        """The context in a few words, None without one."""
        return next((used.label for used in self.contexts.values()), None)

    def to_json(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        parts = {name: getattr(self, name) for name in ("main", "pooled", "distinct", "uncertain")}
        return {
            "schema": METRICS_SCHEMA,
            "dataset": self.dataset,
            "layout": self.layout,
            "model": asdict(self.model),
            "threshold_source": self.threshold_source,
            "context": _contexts_json(self.contexts),
            "counts": self.counts,
            **{name: figures.to_json() if figures else None for name, figures in parts.items()},
            "categories": [figures.to_json() for figures in self.categories],
            "speed": self.speed,
            "notes": list(self.notes),
            "provenance": self.provenance,
        }


def evaluate_detection(
    detector: Detector,
    dataset: DataSet,
    out: Path | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    include_train: bool = False,
    draws: int = 2000,
    seed: int = 0,
    max_fpr: float = 0.3,
) -> DetectionResult:
    """Scores ``dataset`` with ``detector`` and measures it. See the module's text for the rules.

    ``out``: the run's folder, kept and gone on with; None keeps nothing. ``progress``: told how many of the pictures
    that had still to be scored are done, and how many there are. ``include_train``: also measure the normals of the
    train split. ``draws``, ``seed``: of the bootstrap. ``max_fpr``: where PRO ends. The detector is given
    ``images.sources.Source`` objects, one per picture; one with a context (``with_context``) has that recorded.
    Raises ``DataError`` if nothing is labelled, or the detector's output is broken.
    """
    chosen = measured(dataset, include_train)
    used = detector.used if isinstance(detector, ContextDetector) else {}
    with folder_or_temporary(out) as folder, RunFolder(folder, detector.info) as run:
        rows, speed = _score(detector, chosen, run, batch_size, progress, used)
        result = _measure(chosen, rows, run, detector.info, speed, _Settings(draws, seed, max_fpr), used)
        if out is not None:
            write_labels(out, chosen)
            text = json.dumps(result.to_json(), indent=1, allow_nan=False)
            write_atomic(out / METRICS_NAME, (text + "\n").encode())
    return result


@dataclass(frozen=True)
class _Settings:
    draws: int
    seed: int
    max_fpr: float


# --- scoring --------------------------------------------------------------------------------------------------------


def _score(
    detector: Detector,
    dataset: DataSet,
    run: RunFolder,
    batch_size: int,
    progress: Callable[[int, int], None],
    used: Mapping[str, ContextUsed],
) -> tuple[dict[str, Row], dict[str, float | int | None]]:
    """A row per picture, by id, and how fast the missing ones were made."""
    samples = {dataset.id_of(sample): sample for sample in dataset}
    masked, settings = _masked_categories(dataset), _settings_of(detector)

    def still_holds(row: Row) -> bool:
        sample = samples.get(row.id)
        if sample is None or (row.map is None and _needs_map(sample, masked)):
            return False
        if row.settings != settings or _digest(row.context) != _digest(used.get(sample.category)):
            return False
        return sample.image.is_file() and row.sha256 == sha256_file(sample.image)

    rows = run.resume(still_holds)
    pending = {id_: sample for id_, sample in samples.items() if id_ not in rows}
    sources = [Source(str(sample.image), id_) for id_, sample in pending.items()]
    worst = WorstSoFar()
    for row in rows.values():
        worst.add(samples[row.id].label, row.score)
    started = time.perf_counter()
    findings = detector.stream(sources, batch_size) if sources else iter(())
    for done, ((id_, sample), finding) in enumerate(_paired(pending, findings), 1):
        wanted = worst.add(sample.label, finding.score) or _needs_map(sample, masked)
        map_file = _map_file(id_, finding, run) if wanted else None
        sha256 = finding.image.sha256 or (sha256_file(sample.image) if sample.image.is_file() else None)
        rows[id_] = Row.of(id_, finding, sha256, map_file, used.get(sample.category), settings)
        run.append(rows[id_])
        progress(done, len(pending))
    seconds = time.perf_counter() - started
    scored = sum(rows[id_].error is None for id_ in pending)
    return rows, {
        "scored": scored,
        "seconds": round(seconds, 3),
        "images_per_second": scored / seconds if scored else None,
    }


def _settings_of(detector: Detector) -> str | None:
    """Digest of what a detector says of how its outputs become scores and what these are compared with, if it does."""
    own = detector.inspector if isinstance(detector, ContextDetector) else detector
    scoring, threshold = getattr(own, "scoring", None), getattr(own, "threshold", None)
    return None if scoring is None else scoring_digest(scoring, threshold)


def _paired(pending: dict[str, Sample], findings: Iterator[Finding]) -> Iterator[tuple[tuple[str, Sample], Finding]]:
    """Each picture with its finding; not by ``zip``, whose ValueError could be mistaken for the detector's own."""
    answered = 0
    for item in pending.items():
        finding = next(findings, None)
        if finding is None:
            break
        answered += 1
        yield item, finding
    if answered < len(pending) or next(findings, None) is not None:
        how_many = f"only {answered}" if answered < len(pending) else "more than that"
        raise DataError(
            f"the detector was asked about {len(pending)} pictures and answered {how_many}",
            hint="this is a fault of the detector",
        )


def _map_file(id_: str, finding: Finding, run: RunFolder) -> MapFile | None:
    return None if finding.significance_map is None else run.write_map(id_, finding.significance_map)


def _digest(used: ContextUsed | None) -> str | None:
    return None if used is None else used.digest


def _contexts_json(contexts: Mapping[str, ContextUsed]) -> dict[str, Any] | None:
    if not contexts:
        return None
    first = next(iter(contexts.values()))
    return {
        "kind": first.kind,
        "transductive": first.transductive,
        "draw": first.draw,
        "categories": {category: asdict(used) for category, used in contexts.items()},
    }


def _masked_categories(dataset: DataSet) -> set[str]:
    return {sample.category for sample in dataset if sample.mask is not None and sample.label == 1}


def _needs_map(sample: Sample, masked: set[str]) -> bool:
    return sample.category in masked and (sample.label == 0 or (sample.label == 1 and sample.mask is not None))


# --- measuring ------------------------------------------------------------------------------------------------------


def _measure(
    dataset: DataSet,
    rows: dict[str, Row],
    run: RunFolder,
    model: ModelInfo,
    speed: dict[str, float | int | None],
    settings: _Settings,
    used: Mapping[str, ContextUsed],
) -> DetectionResult:
    scored = [ScoredSample(sample, rows[dataset.id_of(sample)]) for sample in dataset]
    readable = [item for item in scored if item.row.error is None]
    labelled = [item for item in readable if item.sample.label is not None]
    if not labelled:
        raise nothing_scored([item.row for item in scored])
    masked = _masked_categories(dataset)
    by_category: dict[str, list[ScoredSample]] = defaultdict(list)
    for item in labelled:
        by_category[item.sample.category].append(item)
    categories = tuple(
        _figures(name, items, settings, index, _pixels(items, masked, run, settings.max_fpr))
        for index, (name, items) in enumerate(by_category.items())
    )
    single = len(categories) == 1
    pooled_pixels = categories[0].pixels if single else _pixels(labelled, masked, run, settings.max_fpr)
    pooled = _figures("pooled", labelled, settings, 0, pooled_pixels)
    distinct, conflicting = _distinct(labelled)
    lacking = [item for item in readable if item.row.map is None and _needs_map(item.sample, masked)]
    return DetectionResult(
        dataset=dataset.name,
        layout=dataset.layout,
        model=model,
        threshold_source=next((item.row.threshold_source for item in scored if item.row.threshold_source), None),
        counts={
            "n": len(labelled),
            "normal": pooled.normal,
            "anomalous": pooled.anomalous,
            "unreadable": len(scored) - len(readable),
            "uncertain": len(readable) - len(labelled),
            "distinct": len({item.row.sha256 for item in labelled}),
        },
        categories=categories,
        main=categories[0] if single else mean_of(categories),
        pooled=pooled,
        distinct=_figures("distinct files", distinct, settings, 0) if len(distinct) < len(labelled) else None,
        uncertain=_uncertain(dataset, readable, settings),
        speed=speed,
        notes=(*dataset.notes, *notes_of([item.row for item in scored], categories, conflicting, len(lacking))),
        provenance=provenance(settings.seed),
        contexts=used,
        scored=tuple(scored),
    )


def _figures(
    name: str, items: Sequence[ScoredSample], settings: _Settings, index: int, pixels: PixelMetrics | None = None
) -> Figures:
    labels = [item.sample.label for item in items if item.sample.label is not None]
    # Another seed per category: their draws are averaged as if independent.
    seed = settings.seed + index
    return figures_of(name, [item.row for item in items], labels, draws=settings.draws, seed=seed, pixels=pixels)


def _pixels(items: Sequence[ScoredSample], masked: set[str], run: RunFolder, max_fpr: float) -> PixelMetrics | None:
    """Pixel metrics of the pictures that need a map and have one stored; None if none of them has a mask."""
    usable = [item for item in items if item.row.map is not None and _needs_map(item.sample, masked)]
    if not any(item.sample.mask for item in usable):
        return None
    maps = [item.row.map for item in usable if item.row.map is not None]
    expected = sum((item.row.width or 0) * (item.row.height or 0) for item in usable)
    counter: ExactPixels | HistogramPixels
    if expected <= MAX_EXACT:
        counter = ExactPixels(max_fpr)
    else:
        # Bounds rounded as the stored maps are, to float32.
        low, high = min(np.float32(m.low) for m in maps), max(np.float32(m.high) for m in maps)
        counter = HistogramPixels(float(low), float(high), max_fpr)
    for item, map_file in zip(usable, maps, strict=True):
        if item.sample.mask is None:
            own = (item.row.width, item.row.height)
            map_HW = run.read_map(map_file, (own[0], own[1]) if own[0] and own[1] else None)
            counter.add(np.zeros(map_HW.shape, dtype=bool), map_HW)
        else:
            mask_HW = read_mask(item.sample.mask)
            counter.add(mask_HW, run.read_map(map_file, (mask_HW.shape[1], mask_HW.shape[0])))
    return counter.result()


def _distinct(items: Sequence[ScoredSample]) -> tuple[list[ScoredSample], list[str]]:
    """(the first of each set of identical files, the ids of all copies that bear both labels)."""
    copies: dict[str, list[ScoredSample]] = defaultdict(list)
    for item in items:
        copies[item.row.sha256 or item.row.id].append(item)
    conflicting = [group for group in copies.values() if len({item.sample.label for item in group}) > 1]
    agreeing = [group[0] for group in copies.values() if len({item.sample.label for item in group}) == 1]
    return agreeing, [item.row.id for group in conflicting for item in group]


def _uncertain(dataset: DataSet, readable: Sequence[ScoredSample], settings: _Settings) -> Figures | None:
    """Pooled figures with every probability above 0 as anomalous; None if no label is uncertain."""
    if all(item.sample.label is not None for item in readable):
        return None
    relabelled = {sample.image: sample for sample in dataset.uncertain_as_anomalous()}
    items = [ScoredSample(relabelled[item.sample.image], item.row) for item in readable]
    return _figures("probability > 0 as anomalous", items, settings, 0)


# --- the worst --------------------------------------------------------------------------------------------------------


MOST_SHOWN = 9
"""How many misses, and how many false alarms, a report shows."""


class WorstSoFar:
    """Says of each picture as it comes whether it is among the ``count`` worst of its label so far.

    Worst are the lowest scores of anomalous pictures (misses) and the highest of normal ones (false alarms). So only
    few maps need be kept: of n pictures in no order about count x (1 + ln(n / count)) of each label.
    """

    def __init__(self, count: int = MOST_SHOWN) -> None:
        self._count = count
        self._heaps: dict[int, list[float]] = {0: [], 1: []}

    def add(self, label: int | None, score: float | None) -> bool:
        """Whether this picture is among the worst so far. One without a label or a score never is."""
        if label is None or score is None:
            return False
        heap, wrongness = self._heaps[label], score if label == 0 else -score
        if len(heap) < self._count:
            heapq.heappush(heap, wrongness)
            return True
        return heapq.heappushpop(heap, wrongness) != wrongness
