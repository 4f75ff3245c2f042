"""Who is asked: one protocol for our own model and for any model behind an OpenAI-compatible endpoint.

An ``Answerer`` is given ``ImageToAsk`` objects, each a picture with its questions, and yields one list of replies per
object, in order. A reply is an ``Answer``, or an ``ErrorInfo`` where the picture could not be read or the endpoint
gave none; the rest of the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from anomaly_ov.errors import AnomalyOVError, DeviceError, EndpointError, EndpointRefused, ImageError, WeightsError
from anomaly_ov.images.read import read
from anomaly_ov.images.sources import Source
from anomaly_ov.reasoning.session import Talk
from anomaly_ov.records import Answer, ErrorInfo, Finding, ModelInfo
from anomaly_ov.remote.endpoint import Endpoint
from anomaly_ov.remote.limits import in_order
from anomaly_ov.remote.pictures import shrunk

Reply = Answer | ErrorInfo


@dataclass(frozen=True)
class ImageToAsk:
    """``questions`` about the picture ``image``, in order. ``remember``: each one after the earlier ones."""

    image: Path
    questions: tuple[str, ...]
    remember: bool = False


class Answerer(Protocol):
    """Whoever answers questions about pictures."""

    @property
    def info(self) -> ModelInfo:
        """Which model answers; where a model has no revision of its own, the address it answers at stands for it."""
        ...

    @property
    def settings(self) -> str:
        """What else changes answers: a run is gone on with only under the same settings."""
        ...

    def stream(self, asked: Sequence[ImageToAsk]) -> Iterator[list[Reply]]:
        """One list of replies per item, in order, as long as its questions."""
        ...


class Speaking(Protocol):
    """What is needed of ``anomaly_ov.inspector.Inspector``."""

    @property
    def info(self) -> ModelInfo:
        """Which model."""
        ...

    @property
    def speaks(self) -> bool:
        """Whether it has a language side."""
        ...

    @property
    def reasoner(self) -> Any:
        """The language side."""
        ...

    def stream_with_previews(
        self, sources: Any, batch_size: int = 8, context: Any = None, *, previews: bool = True, talk: bool = False
    ) -> Iterator[tuple[Finding, Any]]:
        """Findings, which keep what questions are answered from if told to ``talk``."""
        ...


class InspectorAnswerer:
    """Our own model. A picture is looked at once; pictures with one question each are answered in batches.

    ``reading``: full, focus or highlight, None = the model's own. Raises ``WeightsError`` without a language side.
    """

    def __init__(
        self, inspector: Speaking, *, batch_size: int = 8, reading: str | None = None, max_tokens: int = 200
    ) -> None:
        if not inspector.speaks:
            what = f"model '{inspector.info.name}' has no language side"
            raise WeightsError(what, hint="'anomaly-ov models' shows which speak; with --endpoint another one answers")
        self._inspector, self._batch_size = inspector, batch_size
        self._reading, self._max_tokens = reading or inspector.reasoner.model.config.reading, max_tokens

    @property
    def info(self) -> ModelInfo:
        return self._inspector.info

    @property
    def settings(self) -> str:
        return f"reading {self._reading}, at most {self._max_tokens} tokens, greedy"

    def stream(self, asked: Sequence[ImageToAsk]) -> Iterator[list[Reply]]:
        sources = [Source(str(one.image), str(one.image)) for one in asked]
        results = self._inspector.stream_with_previews(sources, self._batch_size, previews=False, talk=True)
        pairs = zip(asked, (finding for finding, _ in results), strict=True)
        while batch := list(islice(pairs, self._batch_size)):
            try:
                yield from self._answered(batch)
            except (RuntimeError, MemoryError) as error:
                raise _of_memory(error, self.info.device) from error

    def _answered(self, batch: Sequence[tuple[ImageToAsk, Finding]]) -> list[list[Reply]]:
        from anomaly_ov.reasoning.chat import answer_each

        open_ = [(one, finding) for one, finding in batch if isinstance(finding.talk, Talk)]
        single = [(one, finding) for one, finding in open_ if len(one.questions) == 1]
        evidence, texts = [f.talk.evidence for _, f in single], [one.questions[0] for one, _ in single]
        together = answer_each(
            self._inspector.reasoner, evidence, texts, reading=self._reading, max_tokens=self._max_tokens
        )
        of = {id(finding): answer for (_, finding), answer in zip(single, together, strict=True)}
        return [[of[id(f)]] if id(f) in of else self._talk(one, f) for one, f in batch]

    def _talk(self, one: ImageToAsk, finding: Finding) -> list[Reply]:
        if not isinstance(finding.talk, Talk):
            return [finding.error or ErrorInfo("UnreadableImage", f"{one.image} was not read")] * len(one.questions)
        chat = finding.talk.open(self._reading)
        return [chat.ask(text, remember=one.remember, max_tokens=self._max_tokens) for text in one.questions]


def _of_memory(error: Exception, device: str) -> Exception:
    from anomaly_ov.models.device import is_out_of_memory

    if not is_out_of_memory(error):
        return error
    return DeviceError(f"out of memory on {device} while answering", hint="lower --batch-size, or use --reading focus")


class EndpointAnswerer:
    """A model behind an endpoint, shown the picture and asked the question, nothing else. ``parallel``: at once."""

    def __init__(self, endpoint: Endpoint, *, parallel: int = 1) -> None:
        self._endpoint, self._parallel = endpoint, parallel

    @property
    def info(self) -> ModelInfo:
        config = self._endpoint.config
        return ModelInfo(config.model, config.base_url, "remote", "unknown")

    @property
    def settings(self) -> str:
        config = self._endpoint.config
        chosen = "the endpoint's temperature" if config.temperature is None else f"temperature {config.temperature:g}"
        return f"pictures of at most {config.image_side} pixels, at most {config.max_tokens} tokens, {chosen}"

    def stream(self, asked: Sequence[ImageToAsk]) -> Iterator[list[Reply]]:
        return in_order(self._talk, asked, self._parallel)

    def _talk(self, one: ImageToAsk) -> list[Reply]:
        try:
            image = shrunk(read(one.image).pixels_HW3, self._endpoint.config.image_side)
        except ImageError as error:
            return [_info(error)] * len(one.questions)
        history: list[tuple[str, str]] = []
        replies: list[Reply] = []
        for text in one.questions:
            try:
                answer = self._endpoint.say(text, image, history)
            except EndpointRefused:
                raise
            except EndpointError as error:
                replies.append(_info(error))
                if one.remember:  # what follows would be asked about a conversation that was not had
                    break
                continue
            replies.append(answer)
            if one.remember:
                history.append((text, answer.text))
        missing = len(one.questions) - len(replies)
        return replies + [ErrorInfo("EndpointError", "an earlier question was not answered")] * missing


def _info(error: AnomalyOVError) -> ErrorInfo:
    return ErrorInfo(type(error).__name__, error.message, error.hint)
