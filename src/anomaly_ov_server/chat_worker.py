"""The one thread that owns the language model, the queue before it, and the conversations it keeps open.

Who asks brings the whole conversation each time, as OpenAI's clients do. What is kept of a picture is what the language
model has read of it (``chat.Chat``), under the digest of its bytes and its context: a second question neither decodes
nor encodes the picture, and only what is new in the conversation is read. Pictures are looked at by the inference
worker; several views of one thing by the inspector, in this thread. When nobody listens any more, the answer ends at
its next token, and the conversation stays as it was. Without a language model, answers are taken from the record
(``record_chat``), in the same way.

Not here: the format of requests and answers (``completions``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from anomaly_ov.errors import AnomalyOVError, DeviceError, ImageError, UsageError
from anomaly_ov.images.sources import Source
from anomaly_ov.records import Answer, Finding
from anomaly_ov.words.agreement import checked
from anomaly_ov_server.faults import Fault, fault_of, fault_of_picture
from anomaly_ov_server.inference_worker import InferenceWorker
from anomaly_ov_server.record_chat import RecordChat
from anomaly_ov_server.region_words import about_number, about_region

if TYPE_CHECKING:
    from anomaly_ov.context.context import Context
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.reasoning.chat import Chat

log = logging.getLogger("anomaly_ov_server")

MAX_WAITING = 16
"""Questions that may wait behind the one that is being answered."""


@dataclass(frozen=True)
class Subject:
    """What is talked about: one picture, or several views of one thing. ``digests``: of each one's bytes and page.

    ``context``: what said what is normal (a single picture's only), ``context_id``: its name, for telling it apart.
    """

    pictures: tuple[Source, ...]
    digests: tuple[str, ...]
    context: Context | None = None
    context_id: str | None = None


@dataclass(frozen=True)
class ChatQuestion:
    """One question. ``history``: what was said before, (role, text), the user first. ``temperature`` 0: the most likely
    answer. ``reading``: full, focus, highlight or None for the model's own. ``region``: of the finding, from 0.
    """

    subject: Subject
    question: str
    history: tuple[tuple[str, str], ...] = ()
    max_tokens: int = 200
    temperature: float = 0.0
    reading: str | None = None
    region: int | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Questions with the same key are about the same thing, read in the same way."""
        return self.subject.digests, self.subject.context_id, self.reading


@dataclass(frozen=True)
class Begun:
    """The question is being answered. ``records``: the published record of each picture, in order."""

    records: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Told:
    """A whole answer."""

    records: tuple[dict[str, Any], ...]
    answer: Answer


@dataclass(frozen=True)
class _Open:
    """A conversation that is kept. Only the worker's thread uses ``chat``."""

    chat: Chat | RecordChat
    findings: tuple[Finding, ...]

    @cached_property
    def records(self) -> tuple[dict[str, Any], ...]:
        """As published."""
        return tuple(finding.to_json() for finding in self.findings)


class ChatWorker:
    """Answers questions one at a time. ``max_open``: conversations kept; ``max_waiting``: questions that may wait.

    ``say`` and ``answer`` belong on one event loop; ``start`` and ``stop`` block.
    """

    def __init__(
        self, inspector: Inspector, engine: InferenceWorker, max_open: int = 16, *, max_waiting: int = MAX_WAITING
    ) -> None:
        self._inspector, self._engine = inspector, engine
        self._max_open, self._max_waiting = max_open, max_waiting
        self._open: OrderedDict[tuple[Any, ...], _Open] = OrderedDict()
        self._lock = threading.Lock()  # of what is kept
        self._thread: ThreadPoolExecutor | None = None
        self._taken = 0
        self._seconds_each = 2.0  # of late; the first guess matters until the first answer is there

    def start(self) -> None:
        """Starts the thread and has it load the language model, so that the first question need not wait for it."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chat-worker")
        if self._inspector.speaks:
            self._thread.submit(self._load)

    def stop(self) -> None:
        """Takes nothing more, finishes what was taken, ends the thread. Blocks; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True)

    @property
    def waiting(self) -> int:
        """Questions that wait, the one being answered not counted."""
        return max(0, self._taken - 1)

    @property
    def open(self) -> int:
        """Conversations that are kept."""
        return len(self._open)

    async def say(self, asked: ChatQuestion) -> AsyncGenerator[Begun | str | Answer, None]:
        """``Begun``, then pieces of text as they come, at last the ``Answer``, whose text they add up to.

        Closing the generator stops the answer. Raises ``Fault``: 400 (a question that cannot be asked, no such
        region), 413 and 422 (a picture that cannot be read), 429 when too many wait, 503 when stopping; and whatever
        else keeps the networks from it.
        """
        thread = self._require_room()
        self._taken += 1
        gone = threading.Event()
        try:
            look = await self._looked_at(asked)
            loop, events = asyncio.get_running_loop(), asyncio.Queue[Begun | str | None]()

            def emit(event: Begun | str | None) -> None:
                loop.call_soon_threadsafe(events.put_nowait, event)

            try:
                telling = thread.submit(self._tell, asked, look, emit, gone.is_set)
            except RuntimeError:  # stopped while the picture was looked at
                raise _stopping() from None
            telling.add_done_callback(partial(_end, emit))
            try:
                while (event := await events.get()) is not None:
                    yield event
                yield telling.result()
            finally:
                telling.cancel()
        finally:
            gone.set()
            self._taken -= 1

    async def answer(self, asked: ChatQuestion) -> Told:
        """The whole answer; raises what ``say`` raises. Cancelling stops it."""
        records: tuple[dict[str, Any], ...] = ()
        async with aclosing(self.say(asked)) as events:
            async for event in events:
                if isinstance(event, Begun):
                    records = event.records
                elif isinstance(event, Answer):
                    return Told(records, event)
        raise RuntimeError("an answer ended without its end")

    def _require_room(self) -> ThreadPoolExecutor:
        if self._thread is None:
            raise _stopping()
        if self._taken > self._max_waiting:
            seconds = min(60, max(1, math.ceil(self._taken * self._seconds_each)))
            what = f"{self.waiting} questions are waiting already"
            raise Fault(429, "overloaded", what, hint=f"try again in {seconds} s", retry_after=seconds)
        return self._thread

    async def _looked_at(self, asked: ChatQuestion) -> Callable[[], _Open]:
        """How the worker's thread comes by the conversation: kept, or opened from what the engine has just found."""
        with self._lock:
            kept = self._open.get(asked.key)
            if kept is not None:
                self._open.move_to_end(asked.key)
                return lambda: kept
        subject = asked.subject
        if len(subject.pictures) == 1:
            speaks = self._inspector.speaks
            inspected = await self._engine.inspect(subject.pictures[0], context=subject.context, talk=speaks)
            return partial(self._opened, asked, [inspected.finding])
        return lambda: self._opened(asked, self._looked_at_views(subject.pictures))

    def _looked_at_views(self, pictures: Sequence[Source]) -> list[Finding]:
        try:
            return self._inspector.inspect_views(pictures)
        except ImageError as error:
            raise _as_message_fault(error) from None

    def _opened(self, asked: ChatQuestion, findings: list[Finding]) -> _Open:
        for finding in findings:
            if finding.error is not None:
                raise fault_of_picture(finding.error, "messages")
        chat: Chat | RecordChat = RecordChat(findings)
        if self._inspector.speaks:
            chat = self._inspector.chat(findings, views=True, reading=asked.reading)
        opened = _Open(chat, tuple(replace(finding, significance_map=None, talk=None) for finding in findings))
        with self._lock:
            self._open[asked.key] = opened
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)
        return opened

    def _tell(
        self,
        asked: ChatQuestion,
        look: Callable[[], _Open],
        emit: Callable[[Begun | str], None],
        stopped: Callable[[], bool],
    ) -> Answer:
        """One question answered, in the worker's thread."""
        started = time.perf_counter()
        try:
            opened = look()
            records = _named(opened.records, asked.subject.pictures)
            question = asked.question
            if asked.region is not None:
                about = about_region if self._inspector.speaks else about_number
                question = about(question, records[0], asked.region)
            opened.chat.history = list(asked.history)
            _require_askable(opened.chat, question, asked.max_tokens)
            emit(Begun(records))
            text = _TrimmedText(emit)
            answer = opened.chat.ask(
                question,
                max_tokens=asked.max_tokens,
                temperature=asked.temperature,
                on_text=text.add,
                stopped=stopped,
            )
            text.end(answer.text)
            if self._inspector.speaks:
                answer = checked(answer, opened.findings, asked.question)
            self._seconds_each += 0.2 * (time.perf_counter() - started - self._seconds_each)
            return answer
        except RuntimeError as error:
            from anomaly_ov.models.device import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            with self._lock:
                self._open.clear()
            raise DeviceError("out of memory while answering", hint="ask again, or ask for fewer tokens") from None

    def _load(self) -> None:
        try:
            self._inspector.reasoner  # noqa: B018 - read once so that it is there
        except AnomalyOVError as error:
            log.error("the language model cannot be loaded: %s", error)


class _TrimmedText:
    """Hands on text without the blanks around it: the pieces add up to the answer's text, which has none."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit, self._sent, self._blank = emit, "", ""

    def add(self, text: str) -> None:
        text = self._blank + text
        if not self._sent:
            text = text.lstrip()
        ready = text.rstrip()
        self._blank = text[len(ready) :]
        if ready:
            self._sent += ready
            self._emit(ready)

    def end(self, whole: str) -> None:
        """What is still missing of the ``whole`` text, if it goes on as it was sent."""
        if whole.startswith(self._sent) and len(whole) > len(self._sent):
            self._emit(whole[len(self._sent) :])


def _end(emit: Callable[[None], None], telling: Future[Answer]) -> None:
    """Wakes who waits for the next event. A loop that is closed has nobody waiting."""
    try:
        emit(None)
    except RuntimeError:
        log.debug("an answer ended after its event loop")


def _named(records: Sequence[dict[str, Any]], pictures: Sequence[Source]) -> tuple[dict[str, Any], ...]:
    """The records under the names that the pictures have in this request: the same bytes may go by others."""
    pairs = zip(records, pictures, strict=True)
    return tuple(one | {"id": shown.id, "image": one["image"] | {"path": shown.id}} for one, shown in pairs)


def _require_askable(chat: Chat | RecordChat, question: str, max_tokens: int) -> None:
    try:
        chat.check(question, max_tokens=max_tokens)
    except UsageError as error:
        raise Fault(400, "bad_request", error.message, hint=error.hint, param="messages") from None


def _as_message_fault(error: ImageError) -> Fault:
    fault = fault_of(error)
    fault.param = "messages"
    return fault


def _stopping() -> Fault:
    return Fault(503, "stopping", "the service is stopping", hint="try again soon", retry_after=5)
