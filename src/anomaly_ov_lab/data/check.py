"""What is wrong with a data set, and with several together: the content of ``anomaly-ov data check``.

Problems are what makes a figure wrong: pictures that do not decode, masks that are missing, broken, empty or of another
shape, lists that name what is not there, the same bytes twice, with two labels, in training and test, or in two sets.
Remarks are for a person to judge: look-alikes above all, which aligned pictures of distinct parts are too (see
``leakage`` for how far the distance was measured).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomaly_ov.images.messages import printable
from anomaly_ov_lab.data.hashing import Fingerprint, fingerprints, nearest
from anomaly_ov_lab.data.layouts.checks import same_shape, size_of
from anomaly_ov_lab.data.layouts.kinds import FAULTS
from anomaly_ov_lab.data.leakage import NEAR_DISTANCE
from anomaly_ov_lab.data.samples import DataSet, Sample

SCHEMA = "anomaly-ov.data-check/1"
_SHOWN = 3

UNREADABLE = "picture does not decode"
NO_ACCESS = "picture may not be opened"
IDENTICAL = "identical to another picture"
CONFLICT = "same bytes, both labels"
LEAKED = "test picture is byte for byte in the training split"
MASK_SIZE = "mask of another size than its picture, same shape"
PLAIN = "too plain to look for look-alikes"
ALIKE = "looks like another picture"
ALIKE_TRAIN = "test picture looks like one of the training split"
ONE_LABEL = "category to be tested on with one label only"
IDENTICAL_ACROSS = "byte for byte in the other set"
ALIKE_ACROSS = "looks like one of the other set"


@dataclass(frozen=True)
class Remark:
    """``count`` cases of ``kind``, the first few in ``examples``; ``problem``: more than a remark."""

    kind: str
    count: int
    examples: tuple[str, ...]
    problem: bool


@dataclass(frozen=True)
class Count:
    """How many pictures of a category's split bear which label, and how many have a mask."""

    category: str
    split: str | None
    normal: int
    anomalous: int
    unknown: int
    masks: int


@dataclass(frozen=True)
class SetReport:
    """What was understood of one set, and what is odd about it."""

    name: str
    layout: str
    root: str
    counts: tuple[Count, ...]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Overlap:
    """What the pictures of ``first`` share with those of ``second``."""

    first: str
    second: str
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Report:
    """All sets, and every two of them that share something."""

    sets: tuple[SetReport, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def problems(self) -> int:
        """How many kinds of problems there are."""
        parts: list[SetReport | Overlap] = [*self.sets, *self.overlaps]
        return sum(remark.problem for part in parts for remark in part.remarks)

    def to_json(self) -> dict[str, Any]:
        """The content as plain values."""
        return {"schema": SCHEMA, "clean": not self.problems, **asdict(self)}


@dataclass(frozen=True)
class _Seen:
    """A set with its pictures' fingerprints, in the samples' order; those that may not be opened have none."""

    data: DataSet
    prints: dict[Path, Fingerprint]

    def name(self, path: Path) -> str:
        return path.relative_to(self.data.root).as_posix()

    def of(self, samples: Iterable[Sample]) -> list[Fingerprint]:
        return [self.prints[sample.image] for sample in samples if sample.image in self.prints]

    @property
    def all(self) -> list[Fingerprint]:
        return list(self.prints.values())


def check(
    sets: Sequence[DataSet],
    against: Sequence[DataSet] = (),
    near: bool = True,
    workers: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Reads every picture once and reports on ``sets``: each for itself, with each other, and with ``against``.

    ``near``: also look for look-alikes (decodes every picture, which ``near=False`` does not: it reports no picture
    that does not decode). ``progress`` is told (done, of how many) pictures.
    """
    total, done = sum(len(one) for one in (*sets, *against)), 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    seen = [_see(one, near, workers, one_more) for one in (*sets, *against)]
    own, others = seen[: len(sets)], seen[len(sets) :]
    pairs = [(first, second) for index, first in enumerate(own) for second in (*own[index + 1 :], *others)]
    overlaps = (Overlap(a.data.name, b.data.name, tuple(_shared(a, b, near))) for a, b in pairs)
    return Report(tuple(_report(one, near) for one in own), tuple(one for one in overlaps if one.remarks))


def _see(data: DataSet, near: bool, workers: int, done: Callable[[], None]) -> _Seen:
    paths = [path for path in dict.fromkeys(sample.image for sample in data) if os.access(path, os.R_OK)]
    return _Seen(data, dict(zip(paths, fingerprints(paths, near, workers, done), strict=True)))


def _report(seen: _Seen, near: bool) -> SetReport:
    data = seen.data
    remarks = [
        *(Remark(n.kind, n.count, n.examples, n.kind in FAULTS) for n in data.noted),
        *_pictures(seen, near),
        *_masks(seen),
        *_copies(seen),
    ]
    remarks += [*_leaks(seen, near), *(_look_alikes(seen) if near else ()), *_one_label(data)]
    remarks.sort(key=lambda remark: not remark.problem)
    return SetReport(data.name, data.layout, str(data.root), tuple(_counts(data)), tuple(remarks))


def _counts(data: DataSet) -> list[Count]:
    groups: dict[tuple[str, str | None], list[Sample]] = defaultdict(list)
    for sample in data:
        groups[sample.category, sample.split].append(sample)
    return [Count(category, split, **data.keep(samples).counts) for (category, split), samples in groups.items()]


def _remarks(kind: str, examples: Sequence[str], problem: bool, count: int | None = None) -> list[Remark]:
    """One remark, or none without examples."""
    number = len(examples) if count is None else count
    return [Remark(kind, number, tuple(map(printable, examples[:_SHOWN])), problem)] if examples else []


def _pictures(seen: _Seen, near: bool) -> list[Remark]:
    closed = [seen.data.id_of(sample) for sample in seen.data if sample.image not in seen.prints]
    broken = [f"{seen.name(p.path)}: {p.error}" for p in seen.all if p.error is not None]
    plain = [seen.name(p.path) for p in seen.all if near and p.error is None and p.perceptual is None]
    found = [*_remarks(NO_ACCESS, closed, True), *_remarks(UNREADABLE, broken, True)]
    return [*found, *_remarks(PLAIN, plain, False)]


def _masks(seen: _Seen) -> list[Remark]:
    """Masks of another size but the same shape; those of another shape are among the set's own notes."""
    resized = []
    for sample in seen.data:
        sizes = None if sample.mask is None else (size_of(sample.image), size_of(sample.mask))
        if (
            sizes
            and None not in sizes
            and sizes[0] != sizes[1]
            and same_shape(sample.image, (sizes[1] or (0, 0))[::-1])
        ):
            resized.append(f"{seen.data.id_of(sample)}: {sizes[1]} for {sizes[0]}")
    return _remarks(MASK_SIZE, resized, False)


def _copies(seen: _Seen) -> list[Remark]:
    labels: dict[str, set[int | None]] = defaultdict(set)
    names: dict[str, list[str]] = defaultdict(list)
    for sample in seen.data:
        if sample.image in seen.prints:
            sha256 = seen.prints[sample.image].sha256
            labels[sha256].add(sample.label)
            names[sha256].append(seen.data.id_of(sample))
    groups = [group for group in names.values() if len(group) > 1]
    conflicts = [_equal(group) for sha256, group in names.items() if labels[sha256] >= {0, 1}]
    copies = _remarks(IDENTICAL, [_equal(group) for group in groups], True, sum(len(group) - 1 for group in groups))
    return [*copies, *_remarks(CONFLICT, conflicts, True)]


def _equal(names: Sequence[str]) -> str:
    return " = ".join(names[:_SHOWN]) + (" = ..." if len(names) > _SHOWN else "")


def _leaks(seen: _Seen, near: bool) -> list[Remark]:
    """What the test split shares with the training split, where the set has both."""
    train = seen.of(sample for sample in seen.data if sample.split == "train")
    test = seen.of(sample for sample in seen.data if sample.split == "test")
    kinds = (LEAKED, ALIKE_TRAIN)
    return _between(test, train, seen.name, seen.name, kinds, near)


def _shared(first: _Seen, second: _Seen, near: bool) -> list[Remark]:
    return _between(first.all, second.all, first.name, second.name, (IDENTICAL_ACROSS, ALIKE_ACROSS), near)


def _between(
    first: Sequence[Fingerprint],
    second: Sequence[Fingerprint],
    name_first: Callable[[Path], str],
    name_second: Callable[[Path], str],
    kinds: tuple[str, str],
    near: bool,
) -> list[Remark]:
    there = {print_.sha256: print_.path for print_ in second}
    equal = [f"{name_first(p.path)} = {name_second(there[p.sha256])}" for p in first if p.sha256 in there]
    found = _remarks(kinds[0], equal, True)
    if near:
        pairs = [pair for pair in nearest(first, second, NEAR_DISTANCE) if first[pair[0]].sha256 not in there]
        pairs.sort(key=lambda pair: pair[2])
        alike = [f"{name_first(first[a].path)} ~ {name_second(second[b].path)}" for a, b, _ in pairs]
        found += _remarks(kinds[1], alike, False)
    return found


def _look_alikes(seen: _Seen) -> list[Remark]:
    prints = seen.all
    pairs = sorted(nearest(prints, prints, NEAR_DISTANCE), key=lambda pair: pair[2])
    # Each two once among the examples; the count is of pictures.
    once = {frozenset((a, b)): f"{seen.name(prints[a].path)} ~ {seen.name(prints[b].path)}" for a, b, _ in pairs}
    return _remarks(ALIKE, list(once.values()), False, len(pairs))


def _one_label(data: DataSet) -> list[Remark]:
    """Categories whose AUROC will be undefined."""
    tested: dict[str, set[int]] = defaultdict(set)
    for sample in data.of_split("test").labelled():
        tested[sample.category].add(sample.label or 0)
    return _remarks(ONE_LABEL, [category for category, labels in tested.items() if len(labels) == 1], False)
