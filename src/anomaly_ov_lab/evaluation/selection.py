"""Which pictures of a labelled set are measured, and which of its normal ones may serve as references.

The draw of references is random, seeded and, for one seed, nested: the pictures of a smaller draw are the first of a
larger one. A picture that serves as a reference is not measured, and neither is a copy of its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.hashing import sha256_file
from anomaly_ov_lab.data.samples import DataSet, Note, Sample


def measured(dataset: DataSet, include_train: bool = False) -> DataSet:
    """The pictures that are scored: labelled or with a probability; of the test split only, unless asked otherwise.

    Raises ``DataError`` if none of them has a label.
    """
    kept = [s for s in dataset if s.label is not None or s.probability is not None]
    tested = [s for s in kept if include_train or s.split != "train"]
    if not any(sample.label is not None for sample in tested):
        raise DataError(f"{dataset.name} has no labelled picture to measure on", hint="give a set with labels")
    train = len([s for s in kept if s.split == "train"])
    if not train:
        return dataset.keep(tested)
    note = Note(f"pictures of the train split, {'counted in' if include_train else 'not measured'}", train)
    return replace(dataset, samples=tuple(tested), noted=(*dataset.noted, note))


def draw_references(
    dataset: DataSet, count: int, seed: int, include_train: bool = False
) -> dict[str, tuple[Sample, ...]]:
    """``count`` distinct normal pictures of each category that is measured, by category.

    They come from the category's train split if it has normal pictures there, else from those that are measured.
    Raises ``DataError`` where there are too few.
    """
    if count < 1:
        raise DataError(f"{count} references cannot be drawn", hint="give a number of at least 1")
    tested = measured(dataset, include_train).labelled()
    return {category: _drawn(dataset, tested, category, count, seed) for category in tested.categories}


def without(dataset: DataSet, references: Mapping[str, Sequence[Sample]]) -> DataSet:
    """``dataset`` without the references of each category and all copies of them, with a note of how many that were.

    Raises ``DataError`` if a category keeps no normal picture.
    """
    digests = {category: {sha256_file(s.image) for s in own} for category, own in references.items()}
    kept = [s for s in dataset if not _is_copy(s, digests.get(s.category, set()))]
    for category in references:
        if not any(s.label == 0 and s.category == category for s in kept):
            raise DataError(
                f"no normal picture of {category} is left to measure once its references are taken out",
                hint="use fewer references",
            )
    note = Note("references and copies of them, not measured", len(dataset) - len(kept))
    return replace(dataset, samples=tuple(kept), noted=(*dataset.noted, note))


def _drawn(dataset: DataSet, tested: DataSet, category: str, count: int, seed: int) -> tuple[Sample, ...]:
    goods = [s for s in dataset if s.label == 0 and s.category == category and s.image.is_file()]
    pool = [s for s in goods if s.split == "train"] or [s for s in tested if s in set(goods)]
    distinct = list({sha256_file(s.image): s for s in reversed(pool)}.values())[::-1]
    if len(distinct) < count:
        raise DataError(
            f"{category} has {len(distinct)} distinct normal pictures to draw {count} references from",
            hint="use fewer references",
        )
    order = np.random.default_rng(seed).permutation(len(distinct))
    return tuple(distinct[i] for i in order[:count])


def _is_copy(sample: Sample, digests: set[str]) -> bool:
    return bool(digests) and sample.image.is_file() and sha256_file(sample.image) in digests
