"""Several questions at once: work that waits for an endpoint, done in threads and handed out in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
