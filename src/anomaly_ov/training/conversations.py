"""Instruction samples: pictures with conversations about them, from the generator, labelled sets and LLaVA JSON.

Sample ``i`` is a function of (seed, i) alone: it first draws its source by weight, then a picture of it, then how that
is read and what is said. Combinations that ``instruct.held_out`` keeps are never drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from anomaly_ov.data.samples import DataSet, Sample
from anomaly_ov.data.synthetic import generate, normal
from anomaly_ov.errors import UsageError
from anomaly_ov.images.read import read
from anomaly_ov.images.views import Views, ViewsConfig, anyres, multi_image
from anomaly_ov.instruct.conversation import Conversation, from_facts, from_label
from anomaly_ov.instruct.held_out import is_held_out
from anomaly_ov.instruct.labels import known_of
from anomaly_ov.models.reasoning.processor import Encoded, LabelMask, Message, Processor, with_markers
from anomaly_ov.training.crops import random_view

Pixels = npt.NDArray[np.uint8]
Drawn = tuple[list[Pixels], list[Message]]
SEEDS = 2**62
TRIES = 50


@dataclass(frozen=True)
class TalkConfig:
    """What is talked about and how. ``synthetic``, ``labelled``, ``json``: weights of the three sources.

    ``normal``: share of synthetic pictures without a defect; ``sizes``: their sides in pixels, drawn equally often;
    ``on_photos``: share drawn on photographs. ``turns``: most turns of a conversation. ``readings``: weight of each
    reading; a picture that would take more than ``max_length`` ids is read in ``focus``. ``mask``: what is learnt.
    """

    synthetic: float = 1.0
    labelled: float = 0.0
    json: float = 0.0
    normal: float = 0.4
    sizes: tuple[int, ...] = (256,)
    on_photos: float = 0.0
    turns: int = 8
    readings: Mapping[str, float] = field(default_factory=lambda: {"full": 1.0})
    max_length: int = 32768
    mask: LabelMask = "answers"

    def __post_init__(self) -> None:
        weights = (self.synthetic, self.labelled, self.json)
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError("synthetic, labelled and json must be >= 0, and one of them > 0")
        if not (0 <= self.normal <= 1 and 0 <= self.on_photos <= 1) or self.turns < 1 or self.max_length < 2:
            raise ValueError("normal and on_photos must lie in 0..1, turns >= 1, max_length >= 2")
        if not self.sizes or not self.readings or min(self.readings.values()) < 0:
            raise ValueError("sizes and readings must name at least one, with weights >= 0")


class Source(Protocol):
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
                return [made.image_HW3], messages_of(from_facts(made.facts, rng, turns_of(config, rng)))
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
        conversation = from_label(known_of(sample), rng, turns_of(self._config, rng))
        return [read(sample.image).pixels_HW3], messages_of(conversation)


class Conversations(Dataset[Encoded]):
    """Endless, map-style. ``sources``: pairs of a source and its weight; ``batch``: how many share a reading."""

    def __init__(
        self,
        config: TalkConfig,
        sources: Sequence[tuple[Source, float]],
        processor: Processor,
        views: ViewsConfig,
        seed: int,
        batch: int = 1,
    ) -> None:
        self._config, self._processor, self._views, self._seed = config, processor, views, seed
        self._batch = batch
        used = [(source, weight) for source, weight in sources if weight > 0]
        self._sources = [source for source, _ in used]
        weights = np.asarray([weight for _, weight in used])
        self._shares = weights / weights.sum()

    def __getitem__(self, index: int) -> Encoded:
        rng = np.random.default_rng((self._seed, index))
        source = self._sources[int(rng.choice(len(self._sources), p=self._shares))]
        pictures, messages = source.draw(rng)
        views = cut(pictures, self._views)
        # One reading for a whole batch: its tokens differ so much in number that mixing would be mostly padding.
        of_batch = np.random.default_rng((self._seed, index // self._batch, 1))
        readings = list(self._config.readings)
        weights = np.asarray([self._config.readings[reading] for reading in readings])
        reading = readings[int(of_batch.choice(len(readings), p=weights / weights.sum()))]
        sample = self._encode(messages, views, reading)
        if len(sample.ids_T) > self._config.max_length and reading != "focus":
            sample = self._encode(messages, views, "focus")
        return sample

    def _encode(self, messages: Sequence[Message], views: Sequence[Views], reading: str) -> Encoded:
        mask, longest = self._config.mask, self._config.max_length
        marked = with_markers(messages, len(views))
        return self._processor.encode(marked, views, reading=reading, mask=mask, max_length=longest)


def cut(pictures: Sequence[Pixels], config: ViewsConfig) -> list[Views]:
    """Views of one picture alone, with crops, or of several shown together, one view each."""
    return [anyres(pictures[0], config)] if len(pictures) == 1 else multi_image(pictures, config)


def messages_of(conversation: Conversation) -> list[Message]:
    """A conversation as (role, text) messages."""
    pairs = [(("user", turn.question), ("assistant", turn.answer)) for turn in conversation.turns]
    return [message for pair in pairs for message in pair]


def turns_of(config: TalkConfig, rng: np.random.Generator) -> int:
    """Half of the turns at least."""
    return int(rng.integers((config.turns + 1) // 2, config.turns + 1))
