"""The one thread that owns the networks, and the queue before it.

Who asks from an event loop (``inspect``) is answered before who works through a batch (``inspect_many``): a pass takes
the oldest interactive picture and all that can share it, and only if none waits the next background pictures. There is
no timer: while a pass runs, the next one collects by itself. What nobody waits for any more is dropped before it costs
anything. What was taken is finished, whatever else happens.

Not here: reading requests (``uploads``), keeping results (``store``).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.images.sources import Source
from anomaly_ov.records import Finding
from anomaly_ov_server.faults import Fault

if TYPE_CHECKING:
    from anomaly_ov.context.context import Context
    from anomaly_ov.inspector import Inspector

LONGEST_WAIT = 4.0
"""Seconds of work that may wait, once it is more than a pass: soon told to come back is better than answered late."""
PASS_SECONDS = 0.5
"""How long a pass should take at most: who comes next waits for all of it."""

Observe = Callable[[int, float], None]


def nobody(pictures: int, seconds: float) -> None:
    """The default observer of passes."""


@dataclass(frozen=True)
class Inspected:
    """A finding and, if asked for, its picture at the map's size, (H, W, 3) uint8; None for an unreadable one."""

    finding: Finding
    preview_HW3: npt.NDArray[np.uint8] | None


@dataclass(eq=False)
class _Job:
    """One picture that somebody waits for through ``future``. Jobs of one ``kind`` can share a pass."""

    source: Source
    context: Context | None
    preview: bool
    talk: bool
    future: Future[Inspected] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[int, bool, bool]:
        return id(self.context), self.preview, self.talk


class InferenceWorker:
    """Inspects pictures for many at a time with one ``Inspector``. Safe to call from any thread.

    ``max_waiting``: interactive pictures that may wait, or fewer where these take ``LONGEST_WAIT``; from then on
    requests are refused. A pass holds at most ``batch_size`` pictures, fewer where these take longer than
    ``pass_seconds``. ``observe``: called after each pass with its pictures and seconds.
    """

    def __init__(
        self,
        inspector: Inspector,
        *,
        batch_size: int = 8,
        max_waiting: int = 64,
        pass_seconds: float = PASS_SECONDS,
        observe: Observe = nobody,
    ) -> None:
        self.inspector = inspector
        self._batch_size, self._max_waiting, self._pass_seconds = batch_size, max_waiting, pass_seconds
        self._observe = observe
        self._interactive: deque[_Job] = deque()
        self._background: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running = self._refusing = False
        self._in_pass = 0
        self._seconds_each = 0.1  # of late; the first guess counts for little after some passes
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        with self._changed:
            self._running, self._refusing = True, False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def refuse(self) -> None:
        """Takes nothing more; what was taken goes on."""
        with self._changed:
            self._refusing = True

    def stop(self) -> None:
        """Takes nothing more, finishes what was taken, ends the thread. Blocks; may be called twice."""
        with self._changed:
            self._running, self._refusing = False, True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def waiting(self) -> int:
        """Interactive pictures that wait; those of a running pass not counted."""
        return len(self._interactive)

    @property
    def waiting_background(self) -> int:
        """Background pictures that wait."""
        return len(self._background)

    @property
    def running(self) -> int:
        """Pictures in the pass that runs."""
        return self._in_pass

    @property
    def takes_work(self) -> bool:
        """Whether it runs and has not been told to stop."""
        return self._running and not self._refusing

    def require_room(self) -> None:
        """Raises what ``inspect`` would raise now, so that a request can be refused before its body is read."""
        with self._changed:
            self._require_room()

    async def inspect(
        self, source: Source, *, context: Context | None = None, preview: bool = False, talk: bool = False
    ) -> Inspected:
        """The finding on one picture. Cancelling drops the picture if its pass has not begun.

        An unreadable picture gives a finding with ``error``. Raises ``Fault`` 429 when too many wait, 503 when
        stopping; and whatever the networks raise.
        """
        (inspected,) = await self.inspect_together([source], context=context, preview=preview, talk=talk)
        return inspected

    async def inspect_together(
        self, sources: Sequence[Source], *, context: Context | None = None, preview: bool = False, talk: bool = False
    ) -> list[Inspected]:
        """As ``inspect`` for several pictures, of which all are taken or none. In order."""
        jobs = [_Job(source, context, preview, talk) for source in sources]
        with self._changed:
            self._require_room()
            self._interactive.extend(jobs)
            self._changed.notify_all()
        try:
            return [await asyncio.wrap_future(job.future) for job in jobs]
        finally:
            self._drop(jobs)

    def inspect_many(self, sources: Sequence[Source], *, context: Context | None = None) -> list[Inspected]:
        """Findings with previews, in order, when nothing interactive waits. Blocks; not for an event loop.

        Raises ``Fault`` 503 when stopping, and whatever the networks raise.
        """
        jobs = [_Job(source, context, True, False) for source in sources]
        with self._changed:
            self._require_running()
            self._background.extend(jobs)
            self._changed.notify_all()
        try:
            return [job.future.result() for job in jobs]
        finally:
            self._drop(jobs)

    def _require_running(self) -> None:
        if not self.takes_work:
            raise Fault(503, "stopping", "the service is stopping", hint="try again soon", retry_after=5)

    def _require_room(self) -> None:
        self._require_running()
        waiting = len(self._interactive)
        ahead = waiting * self._seconds_each
        if waiting >= self._max_waiting or (waiting >= self._batch_size and ahead > LONGEST_WAIT):
            seconds = max(1, math.ceil(ahead))
            what = f"{waiting} pictures are waiting already"
            raise Fault(429, "overloaded", what, hint=f"try again in {seconds} s", retry_after=seconds)

    def _drop(self, jobs: Sequence[_Job]) -> None:
        """Forgets those jobs that have not begun; there are none if all is done."""
        for job in jobs:
            job.future.cancel()
        if not any(job.future.cancelled() for job in jobs):
            return
        with self._changed:
            for queue in (self._interactive, self._background):
                kept = [job for job in queue if not job.future.cancelled()]
                queue.clear()
                queue.extend(kept)

    def _run(self) -> None:
        while (jobs := self._next_jobs()) is not None:
            started, self._in_pass = time.perf_counter(), len(jobs)
            self._pass(jobs)
            self._in_pass = 0
            seconds = time.perf_counter() - started
            self._seconds_each += 0.2 * (seconds / len(jobs) - self._seconds_each)
            self._observe(len(jobs), seconds)

    def _next_jobs(self) -> list[_Job] | None:
        """The jobs of the next pass, marked as begun; None when the thread is to end."""
        with self._changed:
            while True:
                for queue in (self._interactive, self._background):
                    if jobs := self._take(queue):
                        return jobs
                if not self._running:
                    return None
                self._changed.wait()

    def _take(self, queue: deque[_Job]) -> list[_Job]:
        """The oldest job that somebody still waits for, and those that can share its pass, oldest first."""
        together: list[_Job] = []
        kept: list[_Job] = []
        most = max(1, int(min(self._batch_size, self._pass_seconds / self._seconds_each)))
        while queue and len(together) < most:
            job = queue.popleft()
            if together and job.kind != together[0].kind:
                kept.append(job)
            elif job.future.set_running_or_notify_cancel():
                together.append(job)
        queue.extendleft(reversed(kept))
        return together

    def _pass(self, jobs: list[_Job]) -> None:
        """Every job gets its result or its error. What fails together is tried alone: it may be one picture."""
        try:
            self._forward(jobs)
        except Exception as error:
            unserved = [job for job in jobs if not job.future.done()]
            for job in unserved:
                if len(jobs) == 1:
                    job.future.set_exception(error)
                else:
                    self._pass([job])

    def _forward(self, jobs: list[_Job]) -> None:
        first = jobs[0]
        results: Any = self.inspector.stream_with_previews(
            [job.source for job in jobs], self._batch_size, first.context, previews=first.preview, talk=first.talk
        )
        for job, (finding, preview_HW3) in zip(jobs, results, strict=True):
            job.future.set_result(Inspected(finding, preview_HW3))
