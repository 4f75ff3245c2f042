"""Measuring an inspector that is told what is normal: one context per category of the set, made here.

The inspector comes from outside and is known only by what it can do (``Inspecting``). Two ways, as in inspecting:

* a folder context, from the very pictures that are measured (labelled ones; labels are not looked at). Its scores are
  transductive: they depend on the other pictures, and must not be compared with figures of single pictures unsaid;
* references, ``count`` normal pictures of the category by a seeded draw, which are then not measured.

``ContextDetector`` says of each category which context it used, so that rows made with another are not used again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar

from anomaly_ov.errors import DataError
from anomaly_ov.images.sources import Source, sources_of
from anomaly_ov.records import Finding, ModelInfo
from anomaly_ov.scoring.conformal import MadeContext
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.evaluation.run_folder import ContextUsed
from anomaly_ov_lab.evaluation.selection import draw_references, measured, without

Made = TypeVar("Made", bound=MadeContext)


class Inspecting(Protocol[Made]):
    """What is asked of an inspector here; see ``anomaly_ov.inspector``."""

    @property
    def info(self) -> ModelInfo:
        """Identity of the weights that answer."""
        ...

    def stream(self, sources: Iterable[Any], batch_size: int = 8, context: Made | None = None) -> Iterator[Finding]:
        """One finding per picture, in order."""
        ...

    def context(self, pictures: Any, batch_size: int = 8) -> Made:
        """A context of pictures known to be good."""
        ...

    def folder_context(self, pictures: Any, batch_size: int = 8) -> Made:
        """A context of a folder's own pictures."""
        ...


@dataclass(frozen=True)
class ContextDetector(Generic[Made]):
    """An inspector with the context of each picture's category; satisfies ``records.Detector``.

    ``contexts``: by category. ``categories``: of each picture, by the id of its source. ``used``: by category, what the
    rows of a run are to say.
    """

    inspector: Inspecting[Made]
    contexts: Mapping[str, Made]
    categories: Mapping[str, str]
    used: Mapping[str, ContextUsed]

    @property
    def info(self) -> ModelInfo:
        """The inspector's own."""
        return self.inspector.info

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        """One finding per picture, in order; neighbours of one category share their batches.

        Raises ``DataError`` for a picture whose category is not known.
        """
        for category, group in groupby(sources_of(sources), self._category):
            yield from self.inspector.stream(group, batch_size, context=self.contexts[category])

    def _category(self, source: Source) -> str:
        category = self.categories.get(source.id)
        if category is None or category not in self.contexts:
            raise DataError(f"no context for {source.id}", hint="measure the set that the contexts were made for")
        return category


def with_folder_context(
    inspector: Inspecting[Made], dataset: DataSet, batch_size: int = 8, include_train: bool = False
) -> ContextDetector[Made]:
    """One context per category, of the pictures that will be measured. Raises as ``folder_context`` does."""
    tested = measured(dataset, include_train).labelled()
    pictures = {
        category: [_source(tested, s) for s in tested if s.category == category] for category in tested.categories
    }
    contexts = {category: inspector.folder_context(own, batch_size) for category, own in pictures.items()}
    used = {
        category: ContextUsed.of(context, f"{len(pictures[category])} measured pictures of {category}", None)
        for category, context in contexts.items()
    }
    return ContextDetector(inspector, contexts, _categories(dataset), used)


def with_references(
    inspector: Inspecting[Made],
    dataset: DataSet,
    count: int,
    draw: int,
    batch_size: int = 8,
    include_train: bool = False,
) -> tuple[ContextDetector[Made], DataSet]:
    """One context of ``count`` normal pictures per category, drawn with seed ``draw``, and the set without them.

    Raises ``DataError`` where a category has too few normal pictures.
    """
    references = draw_references(dataset, count, draw, include_train)
    rest = without(dataset, references)
    contexts = {
        category: inspector.context([_source(dataset, s) for s in own], batch_size)
        for category, own in references.items()
    }
    used = {
        category: ContextUsed.of(context, f"{count} normal pictures of {category}", draw)
        for category, context in contexts.items()
    }
    return ContextDetector(inspector, contexts, _categories(rest), used), rest


def _source(dataset: DataSet, sample: Sample) -> Source:
    return Source(str(sample.image), dataset.id_of(sample))


def _categories(dataset: DataSet) -> dict[str, str]:
    return {dataset.id_of(sample): sample.category for sample in dataset}
