"""``Endpoint(config).ask(finding, picture, question)``: a remote model's answer about a picture that was inspected.

``say(question)`` puts a question by itself, for a model that is measured or that judges.

Any server that speaks the OpenAI chat-completions format will do. The key comes from the environment and goes nowhere
but into the request's header. An ``Endpoint`` may be shared between threads, which then share its limits and its cap.

A request is worded in the chat-completions format, and there are three places where servers disagree about it. Newer
models call the longest answer's field otherwise, older servers do not know the option that makes a stream end with its
usage, and some give no token probabilities. An endpoint that complains about one of these is asked again in its own
words, from then on: the answer is the same, in the last case without P(yes). Complaints about any other field are
passed on, for leaving that out would change the answer.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from anomaly_ov.errors import MissingExtra, UsageError
from anomaly_ov.images.read import Picture, Readable, read
from anomaly_ov.records import Answer, Finding
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.failures import Failure, failure_of
from anomaly_ov.remote.limits import Budget, Charge, Clock, RateLimit, retry_delay
from anomaly_ov.remote.prompt import CHARACTERS_PER_TOKEN, Prompt, Turns, compose, plain
from anomaly_ov.remote.reply import Reply
from anomaly_ov.remote.wire import pieces

if TYPE_CHECKING:
    from openai import OpenAI
    from PIL import Image

__all__ = ["AnswerStream", "Endpoint", "EndpointConfig"]

_NO_KEY = "none"  # the client insists on a key; a server that wants none ignores it
REAL_CLOCK = Clock()


class Endpoint:
    """A remote model. Raises MissingExtra without the ``openai`` package, UsageError without the configured key."""

    def __init__(self, config: EndpointConfig, *, clock: Clock = REAL_CLOCK) -> None:
        self.config = config
        self._key = _key(config.api_key_env)
        self._client = _client(config, self._key)
        self._clock = clock
        self._dialect = Dialect(config)
        self._rate = RateLimit(config.requests_per_minute, config.tokens_per_minute, clock)
        self._budget = Budget(config.spend_cap, config.price_in, config.price_out)

    def __repr__(self) -> str:
        return f"Endpoint({self.config.model!r} at {self.config.base_url!r})"

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    @property
    def spent(self) -> float:
        """What this object's requests cost so far, in the configuration's currency."""
        return self._budget.spent

    def ask(
        self, finding: Finding, picture: Readable | Picture, question: str, history: Sequence[tuple[str, str]] = ()
    ) -> Answer:
        """The answer to ``question`` about ``picture``, which ``finding`` is of.

        ``picture``: anything that ``images.read`` takes, or what it gave (for a page of a TIFF). ``history``: earlier
        (question, answer) turns, oldest first. Raises ImageError, UsageError, EndpointError.
        """
        return self._whole(self._compose(finding, picture, question, history))

    def ask_stream(
        self, finding: Finding, picture: Readable | Picture, question: str, history: Sequence[tuple[str, str]] = ()
    ) -> AnswerStream:
        """As ``ask``, piece by piece. The request is sent when the first piece is asked for."""
        return AnswerStream(self._run(self._compose(finding, picture, question, history), stream=True))

    def say(
        self,
        question: str,
        image: Image.Image | None = None,
        history: Sequence[tuple[str, str]] = (),
        system: str | None = None,
    ) -> Answer:
        """The answer to ``question`` by itself: the model hears nothing of a detector.

        ``image``: sent in its own size (see ``remote.pictures.shrunk``), before the first question. ``history``: as in
        ``ask``. ``system``: the system message, None = no such message. Raises EndpointError.
        """
        return self._whole(plain(question, image, history, system))

    def _compose(self, finding: Finding, picture: Readable | Picture, question: str, history: Turns) -> Prompt:
        shown = picture if isinstance(picture, Picture) else read(picture)
        return compose(finding, shown, question, history, self.config)

    def _whole(self, prompt: Prompt) -> Answer:
        run = self._run(prompt, stream=False)
        while True:
            try:
                next(run)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def _run(self, prompt: Prompt, stream: bool) -> Generator[str, None, Answer]:
        """The answer's pieces; tries again while none was given out."""
        begun, attempt = self._clock.now(), 1
        while True:
            reply, body = Reply(), self._dialect.body(prompt.messages, stream)
            charge = self._budget.reserve(prompt.tokens, self.config.max_tokens)
            failure = None
            try:
                return (yield from self._attempt(prompt, body, reply, begun))
            except Exception as error:
                failure = failure_of(error, self.config, self._key, attempt)
                if failure is None:
                    raise
            finally:
                self._pay(charge, reply, failure)
            if self._dialect.learn(failure.words, body):
                continue
            if reply.text or not failure.retry or attempt > self.config.retries:
                raise failure.error
            self._clock.sleep(retry_delay(attempt, failure.wanted_s))
            attempt += 1

    def _attempt(
        self, prompt: Prompt, body: dict[str, Any], reply: Reply, begun: float
    ) -> Generator[str, None, Answer]:
        """One request, sent when the rate limit lets it."""
        self._rate.wait(prompt.tokens + self.config.max_tokens)
        timing, streamed = _Timing(self._clock, begun), False
        for piece, streamed in pieces(self._client, body, self.config.timeout_s, self._clock):
            if text := reply.add(piece, streamed):
                timing.text()
                yield text
        return reply.answer(streamed, timing.ms())

    def _pay(self, charge: Charge, reply: Reply, failure: Failure | None) -> None:
        """Counts what the endpoint counted; else what was read, and after a failure the most it may have cost."""
        if failure is not None and not failure.billed and not reply.text:
            charge.release()
            return
        read_tokens = -(-len(reply.text.encode()) // CHARACTERS_PER_TOKEN)
        unknown = self.config.max_tokens if failure is not None else read_tokens
        charge.settle(reply.tokens_in, unknown if reply.tokens_out is None else reply.tokens_out)


class AnswerStream(Iterator[str]):
    """Pieces of an answer as they come; ``answer`` once they have ended. Close it to stop listening."""

    def __init__(self, run: Generator[str, None, Answer]) -> None:
        self._run = run
        self._answer: Answer | None = None

    def __next__(self) -> str:
        try:
            return next(self._run)
        except StopIteration as end:
            if isinstance(end.value, Answer):
                self._answer = end.value
            raise StopIteration from None

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises UsageError while pieces are still to come."""
        if self._answer is None:
            raise UsageError("the answer has not ended", hint="read all pieces of the stream first")
        return self._answer

    def close(self) -> None:
        """Ends the request; what the model has said by then is paid for."""
        self._run.close()


class _Timing:
    """Milliseconds: ``wait`` for limits and earlier attempts, from then to the ``first_text``, ``total`` of all."""

    def __init__(self, clock: Clock, begun: float) -> None:
        self._clock, self._begun, self._sent = clock, begun, clock.now()
        self._first: float | None = None

    def text(self) -> None:
        self._first = self._clock.now() if self._first is None else self._first

    def ms(self) -> dict[str, float]:
        now = self._clock.now()
        first = now if self._first is None else self._first
        parts = {"wait": self._sent - self._begun, "first_text": first - self._sent, "total": now - self._begun}
        return {name: round(1000 * seconds, 3) for name, seconds in parts.items()}


def _key(variable: str) -> str:
    """The key, empty where none is wanted. Its value is in no error."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        hint = f"export {variable}=..., or set api_key_env to '' for a server that wants no key"
        raise UsageError(f"the environment variable {variable} holds no key", hint=hint)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"the key in {variable} holds characters that no key has", hint="copy it again")
    return key


def _client(config: EndpointConfig, key: str) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError:
        raise MissingExtra("openai", "remote") from None
    return OpenAI(base_url=config.base_url, api_key=key or _NO_KEY, timeout=config.timeout_s, max_retries=0)


TOP_LOGPROBS = 20  # the most that the format allows: yes and no come in many spellings


class Dialect:
    """Words requests for one endpoint and remembers what it did not understand."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._length_field = "max_tokens"
        self._asks_usage = True
        self._asks_logprobs = config.logprobs

    def body(self, messages: list[dict[str, Any]], stream: bool) -> dict[str, Any]:
        """The request's fields."""
        config = self._config
        body: dict[str, Any] = {"model": config.model, "messages": messages, self._length_field: config.max_tokens}
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if self._asks_logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if stream:
            body |= {"stream": True}
            if self._asks_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    def learn(self, complaint: str, sent: dict[str, Any]) -> bool:
        """Whether, after ``complaint`` about the body ``sent``, requests will be worded differently."""
        if "max_completion_tokens" in complaint and "max_tokens" in sent:
            self._length_field = "max_completion_tokens"
            return True
        if "stream_options" in complaint and "stream_options" in sent:
            self._asks_usage = False
            return True
        if "logprobs" in complaint and "logprobs" in sent:
            self._asks_logprobs = False
            return True
        return False
