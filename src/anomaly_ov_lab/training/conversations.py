"""Instruction samples: pictures with conversations about them, from the generator, labelled sets and LLaVA JSON.

Sample ``i`` is a function of (seed, i) alone: it first draws its source by weight, then a picture of it, then how that
is read and what is said. Combinations that ``instruct.seen`` keeps are never drawn. With ``epochs`` nothing is
drawn: sample ``i`` is the i-th of the files' samples in an order shuffled anew for each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from anomaly_ov.errors import ConfigError, UsageError
from anomaly_ov.images.read import read
from anomaly_ov.images.views import Views, ViewsConfig, anyres, anyres_geometry, multi_image, multi_image_geometry
from anomaly_ov.reasoning.processor import IGNORED, Encoded, LabelMask, Message, Processor, with_markers
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.data.synthetic import generate, normal
from anomaly_ov_lab.data.synthetic.generator import MAX_SIZE, MIN_SIZE
from anomaly_ov_lab.instruct.conversation import Conversation, conversation_about
from anomaly_ov_lab.instruct.labels import known_of
from anomaly_ov_lab.instruct.questions import Form
from anomaly_ov_lab.instruct.seen import is_held_out
from anomaly_ov_lab.training.crops import random_view
from anomaly_ov_lab.training.json_talk import Entry, JsonTalk, size_wh

Pixels = npt.NDArray[np.uint8]
Drawn = tuple[list[Pixels], list[Message]]
SEEDS = 2**62
TRIES = 50


@dataclass(frozen=True)
class TalkConfig:
    """What is talked about and how. ``synthetic``, ``labelled``, ``json``: weights of the three sources.

    ``normal``: share of synthetic pictures without a defect; ``sizes``: their sides in pixels, drawn equally often;
    ``on_photos``: share drawn on photographs. ``turns``: most turns of a conversation; ``short``: share of
    conversations whose answers are all of a word or two, so that no loss goes to the choice of a phrase.
    ``readings``: weight of each reading; a picture that would take more than ``max_length`` ids is read in ``focus``.
    ``mask``: what is learnt.
    """

    synthetic: float = 1.0
    labelled: float = 0.0
    json: float = 0.0
    normal: float = 0.4
    sizes: tuple[int, ...] = (256,)
    on_photos: float = 0.0
    turns: int = 8
    short: float = 0.0
    readings: Mapping[str, float] = field(default_factory=lambda: {"full": 1.0})
    max_length: int = 32768
    mask: LabelMask = "answers"

    def __post_init__(self) -> None:
        weights = (self.synthetic, self.labelled, self.json)
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError("synthetic, labelled and json must be >= 0, and one of them > 0")
        if not all(0 <= share <= 1 for share in (self.normal, self.on_photos, self.short)):
            raise ValueError("normal, on_photos and short must lie in 0..1")
        if self.turns < 1 or self.max_length < 2:
            raise ValueError("turns must be >= 1, max_length >= 2")
        if not all(MIN_SIZE <= size <= MAX_SIZE for size in self.sizes):
            raise ValueError(f"sizes must lie in {MIN_SIZE}..{MAX_SIZE}")
        if not self.sizes or not self.readings or min(self.readings.values()) < 0:
            raise ValueError("sizes and readings must name at least one, with weights >= 0")


@dataclass(frozen=True)
class Epochs:
    """``count`` passes over ``samples`` samples, each once per pass, in an order that depends on the seed alone."""

    samples: int
    count: float
    seed: int

    @property
    def total(self) -> int:
        """Samples of all passes; a last, partial pass takes a part of its order."""
        return max(1, round(self.count * self.samples))

    def number(self, index: int) -> int | None:
        """Which sample stands at place ``index``; None behind the end."""
        if index >= self.total:
            return None
        epoch, place = divmod(index, self.samples)
        return int(_order(self.samples, self.seed, epoch)[place])


@lru_cache(maxsize=2)
def _order(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch, 2)).permutation(samples)


class ConversationSource(Protocol):
    """Where pictures and what is said of them come from."""

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Pictures (H, W, 3) and the messages about them, without image markers or with one for each."""
        ...


class Synthetic:
    """Pictures drawn by the generator, and conversations from its facts."""

    def __init__(self, config: TalkConfig, photos: Sequence[Path] = ()) -> None:
        self._config, self._photos = config, photos

    def draw(self, rng: np.random.Generator) -> Drawn:
        config = self._config
        size = int(rng.choice(config.sizes))
        make = normal if rng.random() < config.normal else generate
        photo = None
        if self._photos and rng.random() < config.on_photos:
            photo = random_view(read(self._photos[int(rng.integers(len(self._photos)))]).pixels_HW3, size, rng, 0.5)
        for _ in range(TRIES):
            try:
                made = make(int(rng.integers(SEEDS)), size, photo)
            except UsageError:  # no defect shows on this photo: another seed may
                continue
            if not is_held_out(made.facts):
                told = conversation_about(made.facts, rng, turns_of(config, rng), form=form_of(config, rng))
                return [made.image_HW3], messages_of(told)
        return self.draw(rng)


class Labelled:
    """Real pictures of labelled sets, each set and each label equally often, and what their labels tell."""

    def __init__(self, config: TalkConfig, sets: Sequence[DataSet]) -> None:
        self._config = config
        self._groups: list[list[list[Sample]]] = [
            [group for label in (0, 1) if (group := [s for s in one.samples if s.label == label])] for one in sets
        ]

    def draw(self, rng: np.random.Generator) -> Drawn:
        of_set = self._groups[int(rng.integers(len(self._groups)))]
        group = of_set[int(rng.integers(len(of_set)))]
        sample = group[int(rng.integers(len(group)))]
        turns, form = turns_of(self._config, rng), form_of(self._config, rng)
        told = conversation_about(known_of(sample), rng, turns, form=form)
        return [read(sample.image).pixels_HW3], messages_of(told)


class Conversations(Dataset[Encoded]):
    """Endless, map-style. ``sources``: pairs of a source and its weight; ``batch``: how many share a reading.

    ``epochs``: over the one source, which then is ``JsonTalk``; behind their end come samples that teach nothing, which
    fill the last step.
    """

    def __init__(
        self,
        config: TalkConfig,
        sources: Sequence[tuple[ConversationSource | JsonTalk, float]],
        processor: Processor,
        views: ViewsConfig,
        seed: int,
        batch: int = 1,
        epochs: Epochs | None = None,
    ) -> None:
        self._config, self._processor, self._views, self._seed = config, processor, views, seed
        self._batch, self._epochs = batch, epochs
        used = [(source, weight) for source, weight in sources if weight > 0]
        self._sources = [source for source, _ in used]
        weights = np.asarray([weight for _, weight in used])
        self._shares = weights / weights.sum()

    def __getitem__(self, index: int) -> Encoded:
        return self._sample(index, lambda entry: cut([read(path).pixels_HW3 for path in entry.images], self._views))

    def lengths(self, indices: Sequence[int]) -> list[int]:
        """Ids of each sample, from the headers of its pictures: ``passes.Measured``.

        Where a picture has a header but does not decode, it is that sample's length and not its replacement's. Raises
        ``ConfigError`` when other sources than JSON take part, whose pictures would have to be made.
        """
        if not all(isinstance(source, JsonTalk) for source in self._sources):
            raise ConfigError(
                "the lengths of synthetic and labelled samples are not known before they are made",
                hint="set loop.group_by_length to false, or talk.synthetic and talk.labelled to 0",
            )
        return [len(self._sample(index, lambda entry: outlines(entry.images, self._views)).ids_T) for index in indices]

    def _sample(self, index: int, look: Callable[[Entry], list[Views]]) -> Encoded:
        rng = np.random.default_rng((self._seed, index))
        reading = self._reading(index)
        if self._epochs is not None:
            source, number = self._sources[0], self._epochs.number(index)
            if number is None:
                return self._filler(reading)
        else:
            source, number = self._sources[int(rng.choice(len(self._sources), p=self._shares))], None
        if isinstance(source, JsonTalk):
            chosen = source.choose(rng) if number is None else number
            return source.first_good(chosen, lambda entry: self._fitting(entry.messages, look(entry), reading))
        pictures, messages = source.draw(rng)
        return self._fitting(messages, cut(pictures, self._views), reading)

    def _reading(self, index: int) -> str:
        """One for a whole batch: its tokens differ so much in number that mixing would be mostly padding."""
        of_batch = np.random.default_rng((self._seed, index // self._batch, 1))
        readings = list(self._config.readings)
        weights = np.asarray([self._config.readings[reading] for reading in readings])
        return readings[int(of_batch.choice(len(readings), p=weights / weights.sum()))]

    def _fitting(self, messages: Sequence[Message], views: Sequence[Views], reading: str) -> Encoded:
        whole = self._encode(messages, views, reading)
        if len(whole.ids_T) <= self._config.max_length:
            return whole
        return self._encode(messages, views, "focus", self._config.max_length)

    def _encode(
        self, messages: Sequence[Message], views: Sequence[Views], reading: str, longest: int | None = None
    ) -> Encoded:
        marked = with_markers(messages, len(views))
        return self._processor.encode(marked, views, reading=reading, mask=self._config.mask, max_length=longest)

    def _filler(self, reading: str) -> Encoded:
        sample = self._encode([("user", "."), ("assistant", ".")], [], reading)
        return replace(sample, labels_T=[IGNORED] * len(sample.labels_T))


def outlines(images: Sequence[Path], config: ViewsConfig) -> list[Views]:
    """What ``cut`` would give for the pictures at these paths, without a pixel."""
    sizes = [size_wh(path) for path in images]
    geometry = anyres_geometry if len(sizes) == 1 else multi_image_geometry
    return [Views(np.empty((0, 0, 0, 3), np.uint8), geometry(size, config)) for size in sizes]


def cut(pictures: Sequence[Pixels], config: ViewsConfig) -> list[Views]:
    """Views of one picture alone, with crops, or of several shown together, one view each; none of none."""
    return [anyres(pictures[0], config)] if len(pictures) == 1 else multi_image(pictures, config)


def messages_of(conversation: Conversation) -> list[Message]:
    """A conversation as (role, text) messages."""
    pairs = [(("user", turn.question), ("assistant", turn.answer)) for turn in conversation.turns]
    return [message for pair in pairs for message in pair]


def turns_of(config: TalkConfig, rng: np.random.Generator) -> int:
    """Half of the turns at least."""
    return int(rng.integers((config.turns + 1) // 2, config.turns + 1))


def form_of(config: TalkConfig, rng: np.random.Generator) -> Form | None:
    """ "word" for the share of conversations that are short. Draws nothing if there are none."""
    return "word" if config.short > 0 and rng.random() < config.short else None
