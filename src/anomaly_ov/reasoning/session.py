"""What a finding keeps so that it can be asked about: the networks' outputs, and the chat once it is opened.

Importing this file loads no torch; opening a chat does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from anomaly_ov.images.geometry import Geometry

if TYPE_CHECKING:
    from anomaly_ov.models.arrays import PictureArrays
    from anomaly_ov.reasoning.chat import Chat
    from anomaly_ov.reasoning.evidence import Evidence
    from anomaly_ov.reasoning.folder import Reasoner


@dataclass(frozen=True)
class Seen:
    """One picture as the networks saw it, and its score (with a context, if there was one)."""

    output: PictureArrays
    score: float
    geometry: Geometry


class Talk:
    """``seen``: the picture, or several views of one thing. ``reasoner``: gives the language side when it is needed."""

    def __init__(self, seen: Sequence[Seen], reasoner: Callable[[], Reasoner]) -> None:
        self.seen, self._reasoner = tuple(seen), reasoner

    def open(self, reading: str | None = None) -> Chat:
        """A new conversation. Raises ``WeightsError`` without a language side, ``MissingExtra`` without torch."""
        reasoner = self._reasoner()  # before the import, which needs torch: it says what is missing
        from anomaly_ov.reasoning.chat import Chat

        return Chat(reasoner, self.evidence, reading)

    @cached_property
    def chat(self) -> Chat:
        """The conversation that ``Finding.ask`` uses, opened once: its picture is read once."""
        return self.open()

    @cached_property
    def evidence(self) -> list[Evidence]:
        """What the language model reads, with the score that it was taught to follow."""
        model = self._reasoner().model
        from anomaly_ov.reasoning.evidence import of_picture

        fused, device = model.config.level_score == "fused", model.device
        return [
            of_picture(one.output, one.score if fused else one.output.score_raw, one.geometry, device)
            for one in self.seen
        ]
