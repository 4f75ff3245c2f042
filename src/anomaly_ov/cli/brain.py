"""Who answers, as ``ask``, ``chat`` and ``inspect --explain`` choose it: the model's own language side, an endpoint,
or, where there is neither, the record.

Holds the options that say so, and the three kinds of answerer behind one small interface.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

import typer

from anomaly_ov.errors import AnomalyOVError, DeviceError, UsageError
from anomaly_ov.records import Answer, Finding
from anomaly_ov.words.agreement import checked
from anomaly_ov.words.from_record import answer_together

if TYPE_CHECKING:
    from anomaly_ov.images.sources import Source
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.remote.endpoint import EndpointConfig

With = TypeVar("With")
OnText = Callable[[str], None]
Tell = Callable[[Finding], Answer]

FROM_RECORD = (
    "answers are taken from the record: the model has no language side; 'anomaly-ov ask' with --endpoint URL asks a "
    "language model"
)
"""Said once, before the first answer."""

Model = Annotated[str, typer.Option(help="Name of a shipped model, or a model folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
ReadingMode = Literal["full", "focus", "highlight"]
Reading = Annotated[
    ReadingMode | None,
    typer.Option(
        help="What the built-in language model reads of a picture: all of it (full), an overview and what the "
        "detector found (focus), or also the most suspicious places (highlight). Default: as it was trained."
    ),
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest answer. Default: 200, with --endpoint 400.")]

_PANEL = "Let another model answer"
Url = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        rich_help_panel=_PANEL,
        help="An OpenAI-compatible server that answers instead, for example http://localhost:11434/v1. It is sent "
        "the picture and what the detector found.",
    ),
]
EndpointModel = Annotated[
    str | None, typer.Option(metavar="NAME", rich_help_panel=_PANEL, help="The model's name there.")
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=_PANEL,
        help="Environment variable that holds the key; '' for none. Default: OPENAI_API_KEY, none on this machine.",
    ),
]
SpendCap = Annotated[
    float | None, typer.Option(rich_help_panel=_PANEL, help="Most to spend, in the currency of the prices.")
]
PriceIn = Annotated[float | None, typer.Option(rich_help_panel=_PANEL, help="Price of a million tokens read.")]
PriceOut = Annotated[float | None, typer.Option(rich_help_panel=_PANEL, help="Price of a million tokens written.")]
Timeout = Annotated[
    float | None, typer.Option(rich_help_panel=_PANEL, metavar="SECONDS", help="Longest wait for an answer [60].")
]
PerMinute = Annotated[
    int | None, typer.Option("--requests-per-minute", rich_help_panel=_PANEL, help="Most requests within a minute.")
]
Crop = Annotated[
    bool, typer.Option("--crop", rich_help_panel=_PANEL, help="Also send a crop of the most suspicious region.")
]
ImageSide = Annotated[
    int | None, typer.Option(rich_help_panel=_PANEL, help="Longest side of the picture sent, in pixels [1024].")
]
NoLogprobs = Annotated[
    bool, typer.Option("--no-logprobs", rich_help_panel=_PANEL, help="For servers without token probabilities.")
]
NoTemperature = Annotated[
    bool, typer.Option("--no-temperature", rich_help_panel=_PANEL, help="For models that take no temperature.")
]

_OPTIONS = {
    "base_url": "--endpoint",
    "api_key_env": "--api-key-env",
    "spend_cap": "--spend-cap",
    "price_in": "--price-in",
    "price_out": "--price-out",
    "timeout_s": "--timeout",
    "requests_per_minute": "--requests-per-minute",
    "crop_top_region": "--crop",
    "image_side": "--image-side",
    "max_tokens": "--max-tokens",
    "model": "--endpoint-model",
    "logprobs": "--no-logprobs",
    "temperature": "--no-temperature",
}
# What is said of fields of the configuration, in words of options.
_PHRASES = {
    "set logprobs to false": "add --no-logprobs",
    "set temperature to null": "add --no-temperature",
    "check model and": "check --endpoint-model and",
    "set requests_per_minute or tokens_per_minute": "set --requests-per-minute",
    "and tokens_per_minute": "",
    "set api_key_env to ''": "give --api-key-env ''",
}
_NAMES = re.compile(rf"\b({'|'.join(name for name in _OPTIONS if '_' in name)})\b")


def endpoint_config(url: str | None, reading: str | None, **given: Any) -> EndpointConfig | None:
    """The endpoint that the options ask for, None for the built-in model.

    ``given``: fields of ``EndpointConfig``; None, False and a flag's absence stand for its default. Raises
    ``UsageError`` for options that do not go together and values out of range.
    """
    fields = {name: value for name, value in given.items() if value is not None and value is not False}
    if url is None:
        alone = [_OPTIONS[name] for name in fields if name != "max_tokens"]
        if alone:
            raise UsageError(f"{alone[0]} is for an endpoint, but there is no --endpoint", hint="add --endpoint URL")
        return None
    if reading is not None:
        raise UsageError("--reading is for the built-in model, an endpoint is sent the picture", hint="leave it out")
    if "model" not in fields:
        raise UsageError("--endpoint needs --endpoint-model", hint="give the model's name as the endpoint knows it")
    from anomaly_ov.remote.endpoint import EndpointConfig

    fields |= {name: value for name, value in (("logprobs", False), ("temperature", None)) if name in fields}
    try:
        own = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
        return EndpointConfig(url, **({"api_key_env": "" if own else "OPENAI_API_KEY"} | fields))
    except ValueError as error:
        raise UsageError(_in_options(str(error)), hint="see 'anomaly-ov ask --help'") from None


@contextmanager
def in_options() -> Iterator[None]:
    """Errors' hints speak of the configuration's fields; here they name the options."""
    try:
        yield
    except AnomalyOVError as error:
        error.hint = _in_options(error.hint)
        raise


def _in_options(text: str) -> str:
    for phrase, option in _PHRASES.items():
        text = text.replace(phrase, option)
    return _NAMES.sub(lambda found: _OPTIONS[found[0]], text)


def speaks(inspector: Inspector, reading: str | None = None) -> bool:
    """Whether there is a language side. It is loaded: what is wrong with it is said before a picture is read.

    Raises ``UsageError`` for a ``reading`` without one.
    """
    if inspector.speaks:
        _ = inspector.reasoner
        return True
    if reading is not None:
        what = f"--reading is for a language side, model '{inspector.info.name}' has none"
        raise UsageError(what, hint="leave it out; 'anomaly-ov models' shows which models speak")
    return False


def question_of(text: str) -> str:
    """``text`` without blanks around it or broken characters. Raises ``UsageError`` if nothing is left."""
    clean = text.strip().encode("utf-8", "replace").decode("utf-8")
    if not clean:
        raise UsageError("the question is empty", hint="ask something, for example 'Is anything wrong here?'")
    return clean


@contextmanager
def _within_memory(inspector: Inspector) -> Iterator[None]:
    from anomaly_ov.models.device import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "lower --batch-size, or use --reading focus"
        raise DeviceError(f"out of memory on {inspector.info.device} while answering", hint=hint) from None


def answered(
    inspector: Inspector,
    results: Iterable[tuple[Finding, With]],
    question: str,
    batch_size: int,
    *,
    reading: str | None = None,
    max_tokens: int | None = None,
    only_anomalous: bool = False,
) -> Iterator[tuple[Finding, With]]:
    """``results``, in order and in batches, each finding with the built-in model's answer; pictures are let go of.

    Findings must have been told to keep their picture (``talk``). A picture that could not be read has no answer, with
    ``only_anomalous`` neither has one that is normal.
    """
    from anomaly_ov.reasoning.chat import MAX_TOKENS, answer_each
    from anomaly_ov.reasoning.session import Talk

    upcoming = iter(results)
    while batch := list(islice(upcoming, batch_size)):
        asked = [f for f, _ in batch if isinstance(f.talk, Talk) and (f.anomalous or not only_anomalous)]
        evidence = [finding.talk.evidence for finding in asked]
        questions = [question] * len(asked)
        with _within_memory(inspector):
            answers = answer_each(
                inspector.reasoner, evidence, questions, reading=reading, max_tokens=max_tokens or MAX_TOKENS
            )
        pairs = zip(asked, answers, strict=True)
        of = {id(finding): checked(answer, finding, question) for finding, answer in pairs}
        for finding, other in batch:
            yield replace(finding, answer=of.get(id(finding)), talk=None), other


def told(
    results: Iterable[tuple[Finding, With]], tell: Tell, *, only_anomalous: bool = False
) -> Iterator[tuple[Finding, With]]:
    """``results``, in order, each finding with what its own record says; without an answer as those of ``answered``."""
    for finding, other in results:
        wanted = finding.error is None and (finding.anomalous or not only_anomalous)
        yield replace(finding, answer=tell(finding) if wanted else None), other


class Speaker(Protocol):
    """One conversation about one picture, or several views of one thing."""

    def ask(self, question: str, on_text: OnText) -> Answer:
        """The answer, its pieces handed to ``on_text`` as they come; all earlier turns are known to the model."""
        ...

    def forget(self) -> None:
        """Begins anew."""
        ...


class BuiltIn:
    """The model's own language side, which reads the picture once."""

    def __init__(
        self, inspector: Inspector, findings: Sequence[Finding], reading: str | None, max_tokens: int | None
    ) -> None:
        from anomaly_ov.reasoning.chat import MAX_TOKENS

        self._inspector, self._findings, self._max_tokens = inspector, findings, max_tokens or MAX_TOKENS
        self._chat = inspector.chat(findings, views=True, reading=reading)

    def ask(self, question: str, on_text: OnText) -> Answer:
        with _within_memory(self._inspector):
            said = self._chat.ask(question, max_tokens=self._max_tokens, on_text=on_text)
        return checked(said, self._findings, question)

    def forget(self) -> None:
        self._chat.history = []


class FromRecord:
    """What the records of the picture, or the views, say."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = findings

    def ask(self, question: str, on_text: OnText) -> Answer:
        answer = answer_together(self._findings, question)
        on_text(answer.text)
        return answer

    def forget(self) -> None:
        """There is nothing to forget: each question is answered by itself."""


class Remote:
    """A model behind an endpoint, which is sent the picture and the conversation with every question."""

    def __init__(self, config: EndpointConfig, finding: Finding, source: Source) -> None:
        from anomaly_ov.remote.endpoint import Endpoint

        with in_options():
            self._endpoint = Endpoint(config)
        self._finding, self._picture = finding, source.read()
        self._history: list[tuple[str, str]] = []

    def ask(self, question: str, on_text: OnText) -> Answer:
        stream = self._endpoint.ask_stream(self._finding, self._picture, question, self._history)
        try:
            with in_options():
                for piece in stream:
                    on_text(piece)
        finally:
            stream.close()
        if stream.answer.text.strip():  # an answer that was cut before it began is no turn
            self._history.append((question, stream.answer.text))
        return checked(stream.answer, self._finding, question)

    def forget(self) -> None:
        self._history = []
