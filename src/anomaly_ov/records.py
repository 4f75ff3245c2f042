"""What an inspection hands out: plain frozen records, their JSON form, and the ``Detector`` protocol.

The JSON form is published (``schema``: name/version) and never changes meaning under one version:

``schema, id, image{path,width,height,sha256}, model{name,revision,device,dtype}, score_raw, score, score_map,
threshold{value,source}, anomalous, level, map{path,grid},
regions[{box,area,score,score_mean,rle,contrast,elongation}], timing_ms, error, score_expert, score_context,
context{kind,source,references,group,distance,note},
answer{text,p_yes,finish,tokens_in,tokens_out,timing_ms,contradiction}``

* ``score``      all evidence as one number, 0..1: the highest value of the anomaly map. At or above ``threshold`` the
  image is anomalous, and then there is a region. ``level`` follows it.
* ``score_expert``  the same from the image alone, without a context; ``score_context``  with one, else null.
* ``score_raw``  the image score of the expert's head, ``score_map`` the mean of its map's highest values, 0..1.
* ``context``    what else was looked at. ``distance``: how far the picture lies from it, in multiples of what is usual
  there. Kind ``folder`` is transductive: the score depends on the other pictures of the run.
* ``box``        [x0, y0, x1, y1] in image pixels, x1 and y1 exclusive; ``area`` in pixels.
* ``rle``        COCO uncompressed run lengths, {"size": [h, w], "counts": [...]}, column-major, starting with zeros.
* ``contrast``   [red, green, blue] of the region minus those of its surroundings, each -1..1, and ``elongation``, long
  axis over short axis; null where they were not measured.

* ``answer``     what a language model said of it, if it was asked.

A picture that could not be read still gets a record: ``error`` is set, the scores are null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import UsageError

SCHEMA = "anomaly-ov.finding/1"

Level = Literal["slightly", "moderately", "highly"]
IN_MEMORY = ("significance_map", "talk")
"""Fields of a finding that are never written."""

LEVEL_BOUNDS: tuple[float, float] = (0.3, 0.7)


def level_of(score: float, bounds: Sequence[float] = LEVEL_BOUNDS) -> Level:
    """Adverb of a score: slightly below the first bound, moderately below the second, else highly.

    A score that was computed in float32 is compared as it is (golden ``fusion/meta.json``, threshold table): float32's
    0.7 lies a little below 0.7.
    """
    if score < bounds[0]:
        return "slightly"
    return "moderately" if score < bounds[1] else "highly"


def level_beside(score: float, threshold: float) -> Level:
    """Adverb of a score beside its threshold: slightly below it, highly from half-way between it and 1."""
    return level_of(score, (threshold, (1 + threshold) / 2))


@dataclass(frozen=True)
class ImageInfo:
    """Where a picture came from. ``width``/``height`` in pixels after the EXIF turn; null if unreadable."""

    path: str
    width: int | None = None
    height: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Which weights looked at the picture, where and in what precision."""

    name: str
    revision: str
    device: str
    dtype: str


@dataclass(frozen=True)
class Threshold:
    """``score >= value`` means anomalous; ``source`` says how the value was found."""

    value: float
    source: str


@dataclass(frozen=True)
class Region:
    """One connected suspicious area, in image pixels. ``score`` is the peak of the map in it, 0..1.

    ``contrast``: mean red, green and blue inside minus around it, -1..1. ``elongation``: long over short axis, >= 1.
    """

    box: tuple[int, int, int, int]
    area: int
    score: float
    score_mean: float
    rle: dict[str, Any]
    contrast: tuple[float, float, float] | None = None
    elongation: float | None = None


@dataclass(frozen=True)
class MapInfo:
    """Where the map was written, if it was, and its native resolution (rows, columns) before upscaling."""

    path: str | None
    grid: tuple[int, int]


ContextKind = Literal["none", "folder", "references"]
Mode = Literal["alone", "few", "references", "folder"]
"""What says what is normal: the image itself, 1 to 3 good references, 4 or more, the other images of the folder."""

UNLIKE = "it looks like none of the references"
"""``ContextInfo.note`` of a picture that has a context, but none of its kind."""


@dataclass(frozen=True)
class ContextInfo:
    """What said what is normal: nothing, the folder's other pictures, or pictures known to be good.

    ``source``: where these came from. ``references``: how many serve. ``group``: which kind of picture in a mixed
    folder, 0 the most frequent. ``distance``: in multiples of the usual one. ``note``: why there is no context, or no
    distance.
    """

    kind: ContextKind = "none"
    source: str | None = None
    references: int | None = None
    group: int | None = None
    distance: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class ErrorInfo:
    """A failed picture's error: class name, message and next step."""

    type: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Answer:
    """What a language model, built in or remote, answered to one question about one picture.

    ``p_yes``: P(yes) / (P(yes) + P(no)) of the first answer token, 0..1; null where the model does not say.
    ``finish``: "stop" (said all), "length" (cut at the most tokens allowed), "unknown", or the endpoint's own word.
    ``tokens_in``, ``tokens_out``: as counted by the model, null where unknown. ``timing_ms``: milliseconds per part.
    ``contradiction``: the record's verdict, in words, where the text says the opposite.
    """

    text: str
    p_yes: float | None
    finish: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    timing_ms: dict[str, float] = field(default_factory=dict)
    contradiction: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Finding:
    """All that one inspection of one picture found out. ``significance_map`` (H, W) float32 in 0..1 stays in memory."""

    id: str
    image: ImageInfo
    model: ModelInfo
    score_raw: float | None = None
    score: float | None = None
    score_map: float | None = None
    threshold: Threshold | None = None
    anomalous: bool | None = None
    level: Level | None = None
    map: MapInfo | None = None
    regions: tuple[Region, ...] = ()
    timing_ms: dict[str, float] = field(default_factory=dict)
    error: ErrorInfo | None = None
    score_expert: float | None = None
    score_context: float | None = None
    context: ContextInfo = field(default_factory=ContextInfo)
    answer: Answer | None = None
    significance_map: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    talk: Any = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The published record as JSON-ready values (no arrays)."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in IN_MEMORY}
        return {"schema": SCHEMA} | {name: _plain(value) for name, value in values.items()}

    def ask(self, question: str, **options: Any) -> Answer:
        """The answer to one question about the picture, by itself: the built-in language model's (options:
        ``Chat.ask``) or, where the model has no language side, what the record says (from any thread).

        The picture is read once, whatever the number of questions. Raises ``UsageError`` for a finding that no longer
        has its picture (from a file, or from a stream that was not told to keep it), for an empty question, and for
        options where the record answers.
        """
        if callable(self.talk):  # the record answers: ``words.from_record.ask``
            told: Answer = self.talk(self, question, **options)
            return told
        answer: Answer = self.talk_or_raise().chat.ask(question, remember=False, **options)
        return answer

    def talk_or_raise(self) -> Any:
        """What is kept for questions (``anomaly_ov.reasoning.session.Talk``). Raises ``UsageError`` if nothing is."""
        if self.talk is None or callable(self.talk):
            raise UsageError(
                f"the finding on {self.id} has not kept what questions are answered from",
                hint="ask findings of Inspector.inspect with a model that speaks, or use Inspector.chat(picture)",
            )
        return self.talk


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


@runtime_checkable
class Detector(Protocol):
    """Whatever can be measured: ours, a baseline, a remote model."""

    @property
    def info(self) -> ModelInfo:
        """Identity of the weights that answer."""
        ...

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        """One finding per picture, in order; an unreadable picture yields a finding with ``error`` set."""
        ...
