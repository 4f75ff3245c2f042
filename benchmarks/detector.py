"""How well the detector detects: ``python benchmarks/detector.py DATA/elpv DATA/mtd ... --model FOLDER``.

Every labelled image is looked at once (``evidence_store``); then each category of each set is measured

* alone: no other image says what is normal;
* with the folder's own context (transductive);
* with 1, 4 and 16 good references, several seeded draws each: normal images, of the train split where there is one,
  that are then not measured, nor are copies of them. The draws of one seed are nested.

Figures: image AUROC (bootstrap intervals, 95 %), the shares of normal images at or above the model's own threshold
(false alarms) and of anomalous ones below it (misses), pixel AUROC and PRO where there are masks. ``--without`` repeats
the AUROC with one kind of evidence left out and all other settings as they are.

``results/detector.json`` is written after every set. A set that it holds already, of the same model, scoring and
protocol, is not measured again unless ``--again`` is given.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from anomaly_ov.context.context import Context
from anomaly_ov.errors import DataError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.sources import Source
from anomaly_ov.models.engines.opening import open_engine
from anomaly_ov.models.hub import resolve
from anomaly_ov.provenance import provenance
from anomaly_ov.scoring.anomaly_map import to_image_pixels
from anomaly_ov.scoring.conformal import OWN_THRESHOLD, scoring_digest
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.data.samples import DataSet, Sample, read_mask
from anomaly_ov_lab.evaluation.metrics import auroc, bootstrap_interval
from anomaly_ov_lab.evaluation.pixel_metrics import HistogramPixels, PixelMetrics
from anomaly_ov_lab.evaluation.selection import draw_references, measured, without
from common import RESULTS
from evidence_store import ABLATIONS, Store, judged

RESULT = RESULTS / "detector.json"
REFERENCES = (1, 4, 16)
BINS = 2**20
LOGITS = (-81.0, 17.0)
"""Range of the logit of a map's values in float32: ``scoring.score.sigmoid`` ends at exp(-80), rounding at 1 - 6e-8."""

EVERY_S = 30.0
"""Seconds between two lines of progress."""

JSON = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Protocol:
    """How much is measured. ``measured``: with references, at most so many images of a set, the same for all draws."""

    draws: int = 5
    measured: int | None = None
    per_label: int | None = None
    without: tuple[str, ...] = ()
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Unit:
    """One category of one set. ``tested``: what is measured; ``dataset``: that and the train split."""

    name: str
    dataset: DataSet
    tested: DataSet


@dataclass(frozen=True)
class Scores:
    """Of each readable image, in order."""

    labels: np.ndarray
    score: np.ndarray
    pixels: PixelMetrics | None


class Pace:
    """Says from time to time how many of ``total`` steps are done and how long the rest will take."""

    def __init__(self, what: str, total: int, say: Say) -> None:
        self._what, self._total, self._say = what, total, say
        self._started = self._said = time.perf_counter()
        self._done = 0

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.perf_counter()
        if now - self._said >= EVERY_S:
            self._said = now
            left = (now - self._started) / self._done * (self._total - self._done)
            self._say(f"{self._what} {self._done} of {self._total}, about {left / 60:.1f} min left")


def units_of(dataset: DataSet) -> list[Unit]:
    """One per category that has both labels among what is measured."""
    labelled = measured(dataset).labelled()
    several = len(labelled.categories) > 1
    found = []
    for category in labelled.categories:
        tested = labelled.keep(s for s in labelled if s.category == category)
        whole = dataset.keep(s for s in dataset.labelled() if s.category == category)
        if len({s.label for s in tested}) == 2:
            found.append(Unit(f"{dataset.name}/{category}" if several else dataset.name, whole, tested))
    return found


def sources(samples: Iterable[Sample]) -> list[Source]:
    """The samples as the store knows them."""
    return [Source(str(sample.image), str(sample.image)) for sample in samples]


def drawn(unit: Unit, count: int, draw: int, most: int | None = None) -> tuple[list[Sample], list[Sample]] | None:
    """(references, what is measured then); None if the unit has too few normal images."""
    try:
        references = draw_references(unit.dataset, count, draw)
        rest = without(unit.tested, references)
    except DataError:
        return None
    # Ranked by a shuffle of the whole set, so that all draws measure the same images but for the references.
    rank = {s: i for i, s in enumerate(random.Random(0).sample(list(unit.tested), len(unit.tested)))}
    return [s for own in references.values() for s in own], sorted(rest, key=lambda s: rank[s])[:most]


def score(store: Store, samples: Sequence[Sample], context: Context | None, pace: Pace, *, pixels: bool) -> Scores:
    """``samples`` scored with ``context``; ``pixels``: also measure their maps, where any has a mask."""
    counted = HistogramPixels(*LOGITS, bins=BINS) if pixels and any(sample.mask for sample in samples) else None
    labels, scores = [], []
    for sample, source in zip(samples, sources(samples), strict=True):
        one = store.image(source)
        if one is not None:
            found = judged(one, context, store.config)
            labels.append(sample.label)
            scores.append(found.score)
            if counted is not None:
                _count(counted, sample, found.map_HW, one.tokens.cells.geometry.image_wh)
        pace.step()
    return Scores(np.array(labels), np.array(scores), counted.result() if counted is not None else None)


def _count(counted: HistogramPixels, sample: Sample, map_HW: np.ndarray, image_wh: tuple[int, int]) -> None:
    """As ``anomaly-ov eval detect`` does: at the mask's own size; a normal image has nothing to find."""
    if sample.mask is not None:
        mask_HW = read_mask(sample.mask)
        counted.add(mask_HW, _logits(to_image_pixels(map_HW, (mask_HW.shape[1], mask_HW.shape[0]))))
    elif sample.label == 0:
        own_HW = to_image_pixels(map_HW, image_wh)
        counted.add(np.zeros(own_HW.shape, bool), _logits(own_HW))


def _logits(map_HW: np.ndarray) -> np.ndarray:
    """The same order of pixels, spread over the bins: most of a map lies close to 0."""
    inside = np.clip(map_HW.astype(np.float64), 1e-35, 1 - 6e-8)
    return (np.log(inside) - np.log1p(-inside)).astype(np.float32)


def figures(scores: Scores, protocol: Protocol) -> JSON:
    """Image AUROC with its interval, false alarms and misses at the model's own threshold, the pixels' figures."""
    interval = bootstrap_interval(scores.labels, scores.score, draws=protocol.resamples, seed=protocol.seed)
    flagged, pixels = scores.score >= OWN_THRESHOLD, scores.pixels
    return {
        "auroc": auroc(scores.labels, scores.score),
        "interval": None if interval is None else list(interval),
        "false_alarms": float(flagged[scores.labels == 0].mean()),
        "misses": float(1 - flagged[scores.labels == 1].mean()),
        "pixel_auroc": None if pixels is None else pixels.auroc,
        "pro": None if pixels is None else pixels.pro,
    }


def measure_folder(store: Store, unit: Unit, protocol: Protocol, pace: Pace, *, pixels: bool) -> JSON:
    """With the folder's own context."""
    samples = list(unit.tested)
    context = store.builder.folder(sources(samples), unit.name)
    found = figures(score(store, samples, context, pace, pixels=pixels), protocol)
    about = {"transductive": True, "references": len(context.bank), "kinds": context.bank.kinds}
    return found | about | {"notes": list(context.notes)}


def measure_references(
    store: Store, unit: Unit, count: int, protocol: Protocol, pace: Pace, *, pixels: bool
) -> JSON | None:
    """``count`` references, ``draws`` times: mean of every figure, the AUROC's spread; None: too few images."""
    draws = []
    for draw in range(protocol.draws):
        parts = drawn(unit, count, draw, protocol.measured)
        if parts is None:
            return None
        context = store.builder.references(sources(parts[0]), unit.name)
        found = figures(score(store, parts[1], context, pace, pixels=pixels), protocol)
        draws.append(found | {"measured": len(parts[1])})
    values = [one["auroc"] for one in draws if one["auroc"] is not None]
    names = ("auroc", "false_alarms", "misses", "pixel_auroc", "pro")
    means = {name: _mean(one[name] for one in draws) for name in names}
    return means | {"sd": float(np.std(values, ddof=1)) if len(values) > 1 else None, "draws": draws}


def measure_unit(store: Store, unit: Unit, protocol: Protocol, say: Say) -> JSON:
    """All ways on one category; its images have been looked at."""
    labels = [sample.label for sample in unit.tested]
    parts = [drawn(unit, count, d, protocol.measured) for count in REFERENCES for d in range(protocol.draws)]
    judgements = 2 * len(labels) + sum(len(one[1]) for one in parts if one is not None)
    pace = Pace(f"{unit.name}: judging", judgements * (1 + len(protocol.without)), say)

    def ways(own: Store, *, pixels: bool, name: str = unit.name) -> JSON:
        alone = figures(score(own, list(unit.tested), None, pace, pixels=pixels), protocol)
        say(f"{name}: alone {_short(alone)}")
        folder = measure_folder(own, unit, protocol, pace, pixels=pixels)
        say(f"{name}: folder {_short(folder)}")
        references = {}
        for count in REFERENCES:
            found = measure_references(own, unit, count, protocol, pace, pixels=pixels)
            references[str(count)] = found
            if found is not None:
                say(f"{name}: {count} references {_short(found)}")
        return {"alone": alone, "folder": folder, "references": references}

    unreadable = sum(store.image(source) is None for source in sources(unit.tested))
    counts = {"normal": labels.count(0), "anomalous": labels.count(1), "unreadable": unreadable}
    found = {"set": unit.name, **counts, **ways(store, pixels=True)}
    # A threshold belongs to all evidence together, so without one kind only the order of images says something.
    found["without"] = {
        one: _aurocs(ways(store.without(one), pixels=False, name=f"{unit.name} without {one}"))
        for one in protocol.without
    }
    return found


def _short(found: JSON) -> str:
    def shown(name: str) -> str:
        return "-" if found[name] is None else f"{found[name]:.3f}"

    return f"{shown('auroc')}, false alarms {shown('false_alarms')}, misses {shown('misses')}"


def _aurocs(ways: JSON) -> JSON:
    references = {
        count: found and {"auroc": found["auroc"], "sd": found["sd"]} for count, found in ways["references"].items()
    }
    return {name: {"auroc": ways[name]["auroc"]} for name in ("alone", "folder")} | {"references": references}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def fewer(dataset: DataSet, per_label: int, seed: int = 0) -> DataSet:
    """At most ``per_label`` images of each category, split and label, for a small try."""
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in dataset.labelled():
        groups.setdefault((sample.category, sample.split, sample.label), []).append(sample)
    chooser = random.Random(seed)
    kept = {s for own in groups.values() for s in chooser.sample(own, min(per_label, len(own)))}
    return dataset.keep(sample for sample in dataset if sample in kept)


def measure_set(store: Store, dataset: DataSet, protocol: Protocol, say: Say) -> list[JSON]:
    """One entry per category."""
    started = time.perf_counter()
    units = units_of(dataset)
    wanted = [sample for unit in units for sample in unit.tested]
    for unit in units:
        for count in REFERENCES:
            for draw in range(protocol.draws):
                parts = drawn(unit, count, draw)
                wanted += parts[0] if parts else []
    distinct = list(dict.fromkeys(wanted))
    pace = Pace(f"{dataset.name}: looking at", len(distinct), say)
    store.add(sources(distinct), pace.step)
    say(
        f"{dataset.name}: looked at {len(distinct)} images in {time.perf_counter() - started:.0f} s, "
        f"{store.megabytes:.0f} MB kept"
    )
    entries = [measure_unit(store, unit, protocol, say) for unit in units]
    said = provenance(protocol.seed)
    ran = {"seconds": round(time.perf_counter() - started, 1), "commit": said["commit"], "date": said["date"]}
    return [entry | ran for entry in entries]


def main(
    sets: Annotated[list[Path], typer.Argument(help="Folders of labelled sets.")],
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    draws: Annotated[int, typer.Option(min=1, help="Draws of references.")] = 5,
    most: Annotated[
        int | None, typer.Option("--measured", min=20, help="With references, most images of a set; default all.")
    ] = None,
    ablations: Annotated[
        list[str] | None, typer.Option("--without", help=f"Also without: {', '.join(ABLATIONS)}; repeatable.")
    ] = None,
    per_label: Annotated[
        int | None, typer.Option(min=8, help="Only so many images of each label, for a small try.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure also what the result file holds.")] = False,
    engine: Annotated[str, typer.Option(help="auto, onnx or torch.")] = "auto",
    out: Annotated[Path, typer.Option(help="The result file.")] = RESULT,
) -> None:
    """Measures, prints, writes."""
    for one in ablations or ():
        if one not in ABLATIONS:
            raise typer.BadParameter(f"--without {one}: there are {', '.join(ABLATIONS)}")
    protocol = Protocol(draws, most, per_label, tuple(ablations or ()))
    opened = open_engine(resolve(model), engine)
    started, console = time.perf_counter(), Console(stderr=True, width=160)

    def say(text: str) -> None:
        console.print(f"{time.perf_counter() - started:6.0f} s  {text}", highlight=False)

    info, config = Store.of(opened).info, opened.config
    about = {
        "benchmark": "detector",
        "model": asdict(info) | {"engine": opened.name},
        "scoring": scoring_digest(config.views, config.scoring),
        "threshold": OWN_THRESHOLD,
        "protocol": json.loads(json.dumps(asdict(protocol))),
    }
    found: dict[str, list[JSON]] = {} if again else held(out, about)
    for path in sets:
        dataset = discover(path)
        if dataset.name in found:
            say(f"{dataset.name}: held by {out.name} already")
            continue
        if per_label:
            dataset = fewer(dataset, per_label)
        # A store of its own: what one set takes is given back before the next.
        found[dataset.name] = measure_set(Store.of(opened), dataset, protocol, say)
        entries = [entry | {"of": name} for name, own in found.items() for entry in own]
        record = {**about, "sets": entries, "provenance": provenance(protocol.seed)}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        say(f"written to {out}")


def held(path: Path, about: JSON) -> dict[str, list[JSON]]:
    """By set, the entries of a result file of the same model, scoring and protocol; none of another one."""
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    if any(record.get(name) != value for name, value in about.items()):
        return {}
    found: dict[str, list[JSON]] = {}
    for entry in record["sets"]:
        found.setdefault(entry["of"], []).append(entry)
    return found


if __name__ == "__main__":
    typer.run(main)
