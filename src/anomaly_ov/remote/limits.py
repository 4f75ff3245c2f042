"""How fast, how often and for how much an endpoint is asked: rate limit, waits, spend cap, questions at once.

The client's own retries are switched off, because every attempt has to pass the rate limit and the cap. All of this is
safe to share between threads. Money is in the configuration's currency.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from anomaly_ov.errors import SpendCapReached

WINDOW_S = 60.0
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 30.0
MAX_RETRY_AFTER_S = 120.0  # an endpoint that wants a longer pause is not waited for
JITTER = 0.25
MILLION = 1e6


@dataclass(frozen=True)
class Clock:
    """Seconds that only ever grow, and waiting; tests put their own in."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class RateLimit:
    """At most so many requests and so many (estimated) tokens within any 60 seconds; None = no limit."""

    def __init__(self, requests: int | None, tokens: int | None, clock: Clock) -> None:
        self._requests, self._tokens, self._clock = requests, tokens, clock
        self._sent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Returns when a request of ``tokens`` may be sent, and counts it as sent.

        A request that is larger than the limit of tokens is sent once nothing else was for 60 seconds.
        """
        while True:
            with self._lock:
                now = self._clock.now()
                delay = self._delay(now, tokens)
                if delay <= 0:
                    self._sent.append((now, tokens))
                    return
            self._clock.sleep(delay)

    def _delay(self, now: float, tokens: int) -> float:
        """Seconds until enough of what was sent lies further back than the window."""
        while self._sent and self._sent[0][0] <= now - WINDOW_S:
            self._sent.popleft()
        requests, total, delay = len(self._sent) + 1, sum(sent for _, sent in self._sent) + tokens, 0.0
        for at, sent in self._sent:
            fits = self._requests is None or requests <= self._requests
            if fits and (self._tokens is None or total <= self._tokens):
                break
            requests, total, delay = requests - 1, total - sent, at + WINDOW_S - now
        return delay


def retry_delay(attempt: int, wanted_s: float | None) -> float:
    """Seconds before another attempt after ``attempt`` (from 1) failed: what the endpoint wants, else doubling."""
    if wanted_s is not None:
        return wanted_s
    delay: float = min(FIRST_DELAY_S * 2.0 ** (attempt - 1), MAX_DELAY_S)
    # Several threads that failed together should not come back together.
    return delay * (1 - JITTER * random.random())


def retry_after(milliseconds: str | None, value: str | None) -> float | None:
    """Seconds asked for by the headers Retry-After-Ms and Retry-After (seconds or a date); None where unusable."""
    for text, divisor in ((milliseconds, 1000.0), (value, 1.0)):
        try:
            seconds = float(text or "") / divisor
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        date = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return max((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)


class Budget:
    """Counts what requests cost and refuses the one that could exceed the cap.

    Prices are per million tokens. A request is reserved at its estimated tokens and the longest answer before it is
    sent, and settled at what the endpoint counted. Estimates grow by the largest ratio of counted to estimated tokens
    seen so far, for endpoints count pictures very differently; only the first request can so be underestimated.
    """

    def __init__(self, cap: float | None, price_in: float, price_out: float) -> None:
        self._cap, self._price_in, self._price_out = cap, price_in, price_out
        self._spent = self._reserved = 0.0
        self._scale = 1.0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """What settled requests cost so far."""
        return self._spent

    def reserve(self, tokens_in: int, max_tokens: int) -> Charge:
        """Sets aside what the request could cost. Raises SpendCapReached where that is more than is left."""
        with self._lock:
            cost = self._cost(tokens_in * self._scale, max_tokens)
            if self._cap is not None and self._spent + self._reserved + cost > self._cap:
                raise SpendCapReached(
                    f"the next request could cost {cost:.4g}; {self._spent + self._reserved:.4g} of the cap of "
                    f"{self._cap:g} are spent or reserved",
                    hint="raise spend_cap, or lower max_tokens or image_side",
                )
            self._reserved += cost
            return Charge(self, tokens_in, tokens_in * self._scale, cost)

    def _cost(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self._price_in + tokens_out * self._price_out) / MILLION

    def _settle(self, charge: Charge, tokens_in: float, tokens_out: float, counted: bool) -> None:
        with self._lock:
            self._reserved -= charge.reserved
            self._spent += self._cost(tokens_in, tokens_out)
            if counted and charge.estimate:
                self._scale = max(self._scale, tokens_in / charge.estimate)


@dataclass
class Charge:
    """One request's share of the budget: settled once, later calls change nothing."""

    budget: Budget
    estimate: int
    scaled: float
    reserved: float
    settled: bool = False

    def settle(self, tokens_in: int | None, tokens_out: int) -> None:
        """The request was answered. ``tokens_in``: None where the endpoint did not count them."""
        self._close(self.scaled if tokens_in is None else tokens_in, tokens_out, tokens_in is not None)

    def release(self) -> None:
        """The request cost nothing."""
        self._close(0, 0, False)

    def _close(self, tokens_in: float, tokens_out: float, counted: bool) -> None:
        if not self.settled:
            self.settled = True
            self.budget._settle(self, tokens_in, tokens_out, counted)


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
