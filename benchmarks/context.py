"""What a context is worth: ``python benchmarks/context.py DATA/elpv DATA/brainmri DATA/mtd DATA/tire``.

Every picture is encoded once (``context_store``); then each category of each set is measured

* with no context: the expert alone;
* with the folder's own context (transductive), made from three orders of the folder. Contexts that are equal bit by bit
  score alike, so only those that differ are scored again;
* with 1, 4 and 16 good references, several seeded draws each: normal pictures, of the train split where there is one,
  that are then not measured, nor are copies of them. The draws of one seed are nested.

Further: two sets mixed in one folder, and folders of the same normal pictures with 5, 20 and 40 % of anomalous ones.
There, ``scored_alike`` compares like with like: the same pictures (the normal ones, and the anomalous ones of the
folder of 40 %) scored with each of the three contexts; ``in_folder`` counts only those that are in the folder.

Labelled pictures only. A set whose train split has normal pictures is measured once more with these counted in; that
entry is not part of any mean. Writes ``results/context.json``. AUROC in 0..1, intervals: bootstrap, 95 %.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from anomaly_ov.context.context import Context
from anomaly_ov.data.layouts import discover
from anomaly_ov.data.samples import DataSet, Sample, read_mask
from anomaly_ov.errors import DataError
from anomaly_ov.evaluation.metrics import auroc, bootstrap_interval, paired_bootstrap
from anomaly_ov.evaluation.pixel_metrics import HistogramPixels, PixelMetrics
from anomaly_ov.evaluation.selection import draw_references, measured, without
from anomaly_ov.files import write_atomic
from anomaly_ov.images.maps import to_image_pixels
from anomaly_ov.images.sources import Source
from anomaly_ov.models.hub import resolve
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.provenance import provenance
from common import RESULTS
from context_store import TokenStore

RESULT = RESULTS / "context.json"
REFERENCES = (1, 4, 16)
ORDERS = 3
SHARES = (0.05, 0.2, 0.4)
BINS = 2**20
JSON = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Unit:
    """One category of one set. ``tested``: what is measured; ``dataset``: that and the train split."""

    name: str
    dataset: DataSet
    tested: DataSet

    @property
    def goods(self) -> list[Sample]:
        """Normal pictures of all splits."""
        return [sample for sample in self.dataset if sample.label == 0]


@dataclass(frozen=True)
class Scores:
    """Of each readable picture, in order; ``context`` None where there was no context or nothing to compare with."""

    labels: np.ndarray
    score: np.ndarray
    context: np.ndarray | None
    pixels: PixelMetrics | None


@dataclass(frozen=True)
class Protocol:
    """How much is measured. ``normals``: of a contaminated folder; ``contaminated``: of which sets, none = of all.

    ``measured``: with references, at most so many pictures of a set, the same random ones for all draws.
    """

    draws: int = 5
    contaminations: int = 20
    normals: int = 60
    measured: int = 100_000
    contaminated: tuple[str, ...] = ()
    resamples: int = 2000
    seed: int = 0


def units_of(dataset: DataSet, include_train: bool = False) -> list[Unit]:
    """One per category that has both labels among what is measured."""
    labelled = measured(dataset, include_train).labelled()
    several = len(labelled.categories) > 1
    found = []
    for category in labelled.categories:
        tested = labelled.keep(s for s in labelled if s.category == category)
        whole = dataset.keep(s for s in dataset.labelled() if s.category == category)
        if len({s.label for s in tested}) == 2:
            found.append(Unit(f"{dataset.name}/{category}" if several else dataset.name, whole, tested))
    return found


def source(sample: Sample) -> Source:
    """The sample as the store knows it."""
    return Source(str(sample.image), str(sample.image))


def sources(samples: Iterable[Sample]) -> list[Source]:
    """As ``source``, of many."""
    return [source(sample) for sample in samples]


def score(store: TokenStore, samples: Sequence[Sample], context: Context | None, *, pixels: bool) -> Scores:
    """``samples`` scored with ``context``; ``pixels``: also measure their maps, where any has a mask."""
    counted = HistogramPixels(0.0, 1.0, bins=BINS) if pixels and any(sample.mask for sample in samples) else None
    labels, scores, contexts = [], [], []
    for sample in samples:
        stored = store.picture(source(sample))
        if stored is None:
            continue
        found, score_context, map_HW = stored.score_expert, None, stored.expert_HW
        if context is not None:
            judged = context.judge(context.compare(stored.tokens), stored.tokens, stored.score_expert, stored.expert_HW)
            found, score_context, map_HW = judged.score, judged.score_context, judged.map_HW
        labels.append(sample.label)
        scores.append(found)
        contexts.append(score_context)
        if counted is not None:
            _count(counted, sample, map_HW, stored.tokens.geometry.image_wh)
    parts = None if None in contexts or not contexts else np.array(contexts)
    return Scores(np.array(labels), np.array(scores), parts, counted.result() if counted is not None else None)


def _count(counted: HistogramPixels, sample: Sample, map_HW: np.ndarray, image_wh: tuple[int, int]) -> None:
    """As ``anomaly-ov eval detect`` does: at the mask's own size; a normal picture has nothing to find."""
    if sample.mask is not None:
        mask_HW = read_mask(sample.mask)
        counted.add(mask_HW, to_image_pixels(map_HW, (mask_HW.shape[1], mask_HW.shape[0])).clip(0, 1))
    elif sample.label == 0:
        own_HW = to_image_pixels(map_HW, image_wh).clip(0, 1)
        counted.add(np.zeros(own_HW.shape, bool), own_HW)


def equal(one: Context, other: Context) -> bool:
    """Whether two contexts are the same bit by bit, and so score alike."""
    a, b = one.bank, other.bank
    pairs = [(a.tokens.whole, b.tokens.whole), (a.tokens.detail, b.tokens.detail)]
    pairs += [(getattr(a, name), getattr(b, name)) for name in ("descriptor_RE", "kind_R", "expert_logit_R")]
    same = all(np.array_equal(one, another) for one, another in pairs)
    return same and a.digests == b.digests and a.usual == b.usual


def figures(scores: Scores, protocol: Protocol) -> JSON:
    """Image AUROC with its interval, that of the context's part, and the pixels'."""
    interval = bootstrap_interval(scores.labels, scores.score, draws=protocol.resamples, seed=protocol.seed)
    return {
        "auroc": auroc(scores.labels, scores.score),
        "interval": None if interval is None else list(interval),
        "auroc_context": None if scores.context is None else auroc(scores.labels, scores.context),
        **_pixel_figures(scores.pixels),
    }


def _pixel_figures(pixels: PixelMetrics | None) -> JSON:
    if pixels is None:
        return {"pixel_auroc": None, "pro": None}
    return {"pixel_auroc": pixels.auroc, "pro": pixels.pro, "pixel_error": pixels.error}


def measure_folder(store: TokenStore, unit: Unit, alone: Scores, protocol: Protocol) -> JSON:
    """The folder's own context, from ``ORDERS`` orders of its pictures."""
    samples = list(unit.tested)
    orders = [sources(samples)]
    for seed in range(1, ORDERS):
        orders.append(random.Random(seed).sample(orders[0], len(samples)))
    contexts = [store.builder.folder(order, unit.name) for order in orders]
    first = score(store, samples, contexts[0], pixels=True)
    others = [first if equal(c, contexts[0]) else score(store, samples, c, pixels=False) for c in contexts[1:]]
    gain = paired_bootstrap(first.labels, first.score, alone.score, draws=protocol.resamples, seed=protocol.seed)
    return {
        "transductive": True,
        **figures(first, protocol),
        "orders": [auroc(one.labels, one.score) for one in (first, *others)],
        "largest_difference_between_orders": max(float(np.abs(one.score - first.score).max()) for one in others),
        "over_none": None if gain is None else asdict(gain) | {"interval": list(gain.interval)},
        "references": len(contexts[0].bank),
        "notes": list(contexts[0].notes),
    }


def drawn(unit: Unit, count: int, draw: int) -> tuple[list[Sample], list[Sample]] | None:
    """(references, what is measured then); None if the unit has too few normal pictures."""
    try:
        references = draw_references(unit.dataset, count, draw)
        rest = without(unit.tested, references)
    except DataError:
        return None
    return [sample for own in references.values() for sample in own], list(rest)


def measure_references(store: TokenStore, unit: Unit, count: int, protocol: Protocol) -> JSON | None:
    """``count`` references, ``draws`` times: every draw's AUROC, mean and spread; None if the unit is too small."""
    found = []
    for draw in range(protocol.draws):
        parts = drawn(unit, count, draw)
        if parts is None:
            return None
        context = store.builder.references(sources(parts[0]), unit.name)
        # Ranked by a shuffle of the whole set, so that all draws measure the same pictures but for the references.
        rank = {s: i for i, s in enumerate(random.Random(0).sample(list(unit.tested), len(unit.tested)))}
        rest = sorted(parts[1], key=lambda s: rank[s])[: protocol.measured]
        found.append(figures(score(store, rest, context, pixels=True), protocol))
    values = [one["auroc"] for one in found]
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "measured": min(protocol.measured, len(unit.tested)),
        "pixel_auroc": _mean(one["pixel_auroc"] for one in found),
        "pro": _mean(one["pro"] for one in found),
        "draws": found,
    }


def measure_unit(store: TokenStore, unit: Unit, protocol: Protocol, say: Say, counts: Sequence[int]) -> JSON:
    """None, folder and references on one unit."""
    labels = [sample.label for sample in unit.tested]
    alone = score(store, list(unit.tested), None, pixels=True)
    none = figures(alone, protocol)
    say(f"{unit.name}: none {none['auroc']:.3f}")
    folder = measure_folder(store, unit, alone, protocol)
    say(f"{unit.name}: folder {folder['auroc']:.3f}")
    references: JSON = {}
    for count in counts:
        references[str(count)] = found = measure_references(store, unit, count, protocol)
        if found is not None:
            say(f"{unit.name}: {count} references {found['mean']:.3f}")
    return {
        "set": unit.name,
        "normal": labels.count(0),
        "anomalous": labels.count(1),
        "unreadable": len(labels) - len(alone.labels),
        "none": none,
        "folder": folder,
        "references": references,
    }


def mixture(store: TokenStore, units: Sequence[Unit], protocol: Protocol, alone: dict[str, JSON]) -> JSON:
    """All pictures of ``units`` in one folder: each one's AUROC there, and how far that is from the one alone."""
    context = store.builder.folder(sources(s for unit in units for s in unit.tested), "mixture")
    found = {}
    for unit in units:
        own = figures(score(store, list(unit.tested), context, pixels=True), protocol)
        found[unit.name] = own | {"minus_alone": own["auroc"] - alone[unit.name]["auroc"]}
    return {"sets": found, "transductive": True, "kinds": len(context.bank.usual), "notes": list(context.notes)}


def contamination(store: TokenStore, unit: Unit, protocol: Protocol) -> JSON:
    """AUROC per draw and share of anomalous pictures; see the module's text. Empty for a set that is too small."""
    goods = [sample for sample in unit.goods if store.readable(source(sample))]
    bads = [sample for sample in unit.tested if sample.label == 1 and store.readable(source(sample))]
    most = _anomalous(1, SHARES[-1])
    normals = min(protocol.normals, len(goods), int(len(bads) / most + 1e-6))
    if round(_anomalous(normals, SHARES[0])) < 1:
        return {}
    draws: dict[str, list[JSON]] = {f"{share:g}": [] for share in SHARES}
    for draw in range(protocol.contaminations):
        chooser = random.Random(draw)
        normal = chooser.sample(goods, normals)
        anomalous = chooser.sample(bads, round(_anomalous(normals, SHARES[-1])))
        for share in SHARES:
            inside = normal + anomalous[: round(_anomalous(normals, share))]
            context = store.builder.folder(sources(inside), unit.name)
            scored = score(store, normal + anomalous, context, pixels=False)
            own = slice(0, len(inside))
            draws[f"{share:g}"].append(
                {
                    "scored_alike": auroc(scored.labels, scored.score),
                    "in_folder": auroc(scored.labels[own], scored.score[own]),
                }
            )
    means = {
        share: {name: _mean(one[name] for one in found) for name in ("scored_alike", "in_folder")}
        for share, found in draws.items()
    }
    first, last = means[f"{SHARES[0]:g}"], means[f"{SHARES[-1]:g}"]
    fall = {name: first[name] - last[name] for name in first if first[name] is not None and last[name] is not None}
    return {"set": unit.name, "normals": normals, "transductive": True, "mean": means, "fall": fall, "draws": draws}


def means_of(entries: Sequence[JSON]) -> JSON:
    """Means over the sets that have a figure; ``sd`` of references: over draws, of their mean over sets."""
    found: JSON = {"sets": [entry["set"] for entry in entries]}
    for name in ("none", "folder"):
        found[name] = _mean(entry[name]["auroc"] for entry in entries)
    found["references"] = {}
    for count in entries[0]["references"] if entries else ():
        own = [entry["references"][count] for entry in entries]
        if None in own:
            continue
        per_draw = np.mean([[draw["auroc"] for draw in one["draws"]] for one in own], axis=0)
        spread = float(per_draw.std(ddof=1)) if len(per_draw) > 1 else None
        found["references"][count] = {"mean": float(per_draw.mean()), "sd": spread}
    return found


def _anomalous(normals: int, share: float) -> float:
    """Anomalous pictures that make up ``share`` of a folder of so many normal ones."""
    return normals * share / (1 - share)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def needed(units: Sequence[Unit], protocol: Protocol, *, all_goods: bool) -> list[Source]:
    """What must be encoded: what is measured and, of the train split, the references that will be drawn, or all."""
    samples = [sample for unit in units for sample in unit.tested]
    if all_goods:
        return sources([*samples, *(sample for unit in units for sample in unit.goods)])
    for unit in units:
        for parts in (drawn(unit, count, draw) for count in REFERENCES for draw in range(protocol.draws)):
            samples += parts[0] if parts else []
    return sources(samples)


def fewer(dataset: DataSet, per_label: int, seed: int = 0) -> DataSet:
    """At most ``per_label`` pictures of each category, split and label, for a small try."""
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in dataset.labelled():
        groups.setdefault((sample.category, sample.split, sample.label), []).append(sample)
    chooser = random.Random(seed)
    kept = {s for own in groups.values() for s in chooser.sample(own, min(per_label, len(own)))}
    return dataset.keep(sample for sample in dataset if sample in kept)


def measure(
    store: TokenStore,
    sets: Sequence[DataSet],
    protocol: Protocol,
    mixtures: Sequence[tuple[str, str]],
    say: Say,
    keep: Callable[[JSON], None] = lambda result: None,
) -> JSON:
    """The whole protocol, as written to JSON. ``keep`` is given what there is after each of its parts."""
    units = [unit for one in sets for unit in units_of(one)]
    with_train = [unit for one in sets if any(s.split == "train" for s in one) for unit in units_of(one, True)]
    wanted = needed([*units, *with_train], protocol, all_goods=bool(protocol.contaminations or with_train))
    say(f"encoding {len({str(one.item) for one in wanted})} pictures")
    store.add(wanted)
    entries = [measure_unit(store, unit, protocol, say, REFERENCES) for unit in units]
    also = [
        measure_unit(store, replace(unit, name=f"{unit.name}, train goods too"), protocol, say, ())
        for unit in with_train
    ]
    alone, named = {entry["set"]: entry["folder"] for entry in entries}, {unit.name: unit for unit in units}
    mixed = []
    for pair in mixtures:
        if all(name in named for name in pair):
            say(f"mixture of {' and '.join(pair)}")
            mixed.append(mixture(store, [named[name] for name in pair], protocol, alone))
    result: JSON = {
        "sets": entries,
        "mean": means_of(entries),
        "with_train_goods": also,
        "mixtures": mixed,
        "contamination": [],
    }
    keep(result)
    for unit in units if protocol.contaminations else ():
        if protocol.contaminated and unit.name not in protocol.contaminated:
            continue
        say(f"{unit.name}: contamination")
        result["contamination"] += [one for one in [contamination(store, unit, protocol)] if one]
        keep(result)
    return result


def main(
    sets: Annotated[list[Path], typer.Argument(help="Folders of labelled sets.")],
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    draws: Annotated[int, typer.Option(min=1, help="Draws of references.")] = 5,
    contaminations: Annotated[int, typer.Option(min=0, help="Draws of contaminated folders.")] = 20,
    normals: Annotated[int, typer.Option(min=3, help="Normal pictures of a contaminated folder.")] = 60,
    measured_: Annotated[
        int, typer.Option("--measured", min=20, help="With references, most pictures of a set, the same for all draws.")
    ] = 100_000,
    contaminate: Annotated[list[str] | None, typer.Option(help="Set to contaminate, default all; repeatable.")] = None,
    mix: Annotated[list[str] | None, typer.Option(help="Two sets in one folder, A+B; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="24 pictures per label, 2 draws each: does it run?")] = False,
    device: str = "auto",
    threads: Annotated[int | None, typer.Option(help="Default: all cores.")] = None,
    out: Annotated[Path | None, typer.Option(help="Default: results/context.json; with --quick nowhere.")] = None,
) -> None:
    """Measures, prints, writes."""
    if threads:
        torch.set_num_threads(threads)
    protocol = Protocol(draws, contaminations, normals, measured_, tuple(contaminate or ()))
    found = [discover(path) for path in sets]
    if quick:
        protocol = replace(protocol, draws=2, contaminations=min(contaminations, 2), normals=24, resamples=200)
        found = [fewer(one, 24) for one in found]
    started, console = time.perf_counter(), Console(stderr=True)

    def say(text: str) -> None:
        console.print(f"{time.perf_counter() - started:6.0f} s  {text}", highlight=False)

    mixtures = [tuple(pair.split("+", 1)) for pair in mix or ["elpv+brainmri"]]
    loaded = AnomalyModel.from_pretrained(resolve(model))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="anomaly-ov-context-"))
        stack.enter_context(torch.inference_mode())
        store = TokenStore(loaded, Path(folder), device)
        target = None if out is None and quick else out or RESULT

        def keep(result: JSON) -> None:
            record = {"benchmark": "context", "model": asdict(store.info), "protocol": asdict(protocol), **result}
            record |= {"seconds": round(time.perf_counter() - started, 1), "provenance": provenance(protocol.seed)}
            if target is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(target, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
                say(f"written to {target}")

        result = measure(store, found, protocol, mixtures, say, keep)
    Console().print_json(json.dumps(result["mean"]))


if __name__ == "__main__":
    typer.run(main)
