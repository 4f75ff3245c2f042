"""An OpenAI-compatible endpoint asked in plain words: pictures and questions as they are, nothing of a detector.

``remote.endpoint.Endpoint.ask`` tells the model what our detector found. A model that is measured, or that judges, must
not hear that; limits, retries, spend cap and errors are the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from PIL import Image

from anomaly_ov.records import Answer
from anomaly_ov.remote.endpoint import Endpoint
from anomaly_ov.remote.pictures import data_url
from anomaly_ov.remote.prompt import CHARACTERS_PER_TOKEN, Prompt

Item = TypeVar("Item")
Result = TypeVar("Result")
_PICTURE_TOKENS, _PIXELS_PER_TOKEN = 100, 28 * 28


class PlainEndpoint(Endpoint):
    """A remote model that is shown no findings."""

    def say(
        self,
        question: str,
        image: Image.Image | None = None,
        history: Sequence[tuple[str, str]] = (),
        system: str | None = None,
    ) -> Answer:
        """The answer to ``question`` after the (question, answer) turns of ``history``; the picture stands first.

        Raises what ``Endpoint.ask`` raises.
        """
        asked = [*(text for text, _ in history), question]
        first: Any = asked[0]
        if image is not None:
            picture = {"type": "image_url", "image_url": {"url": data_url(image)}}
            first = [picture, {"type": "text", "text": asked[0]}]
        messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": first})
        for (_, answer), text in zip(history, asked[1:], strict=True):
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": text}]
        run = self._run(Prompt(messages, _tokens([*asked, *(a for _, a in history), system or ""], image)), False)
        while True:
            try:
                next(run)
            except StopIteration as end:
                answer_: Answer = end.value
                return answer_


def _tokens(texts: Sequence[str], image: Image.Image | None) -> int:
    """A rough count, for limits and the spend cap."""
    picture = 0 if image is None else _PICTURE_TOKENS + image.width * image.height // _PIXELS_PER_TOKEN
    return math.ceil(sum(len(text.encode()) for text in texts) / CHARACTERS_PER_TOKEN) + picture


def in_order(work: Callable[[Item], Result], items: Iterable[Item], parallel: int) -> Iterator[Result]:
    """``work`` on each item, in order, at most ``parallel`` at once; what is not begun when one fails is not done."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(parallel, thread_name_prefix="anomaly-ov-ask") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) == parallel:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
