"""The thread that works through batches: scores what waits, builds contexts, keeps what comes of it.

While the networks look at some pictures, a second thread writes the findings on those before. Nothing is tried for
ever: what fails is kept as failed with its error, and so is what ended the process several times.

Not here: turns between batches and what waits at all (``store``); turns between batches and requests (``engine``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

from anomaly_ov.errors import AnomalyOVError
from anomaly_ov.records import ContextInfo, ErrorInfo, Finding, ImageInfo
from anomaly_ov_server.context_shelf import ContextShelf, Stopped
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.inference_worker import InferenceWorker, Inspected
from anomaly_ov_server.store.contexts import NONE
from anomaly_ov_server.store.rows import ScoredBy, Task, ThresholdUsed, Work
from anomaly_ov_server.store.store import Store

if TYPE_CHECKING:
    from anomaly_ov.context.context import Context
    from anomaly_ov.inspector import Inspector

log = logging.getLogger("anomaly_ov_server")

MOST_ATTEMPTS = 6
RATE_SECONDS = 30.0
PAUSE_SECONDS = 5.0


class _ContextGone(Exception):
    """The context of some work is to be built again first."""


class BatchRunner:
    """Works on ``store`` through ``engine`` until ``stop``. ``chunk``: pictures taken at a time."""

    def __init__(self, engine: InferenceWorker, store: Store, inspector: Inspector, *, chunk: int = 16) -> None:
        self._engine, self._store, self._inspector, self._chunk = engine, store, inspector, chunk
        self._shelf = ContextShelf(store, inspector)
        self._awake, self._stopping = threading.Event(), threading.Event()
        self._kept: dict[str, deque[tuple[float, int]]] = {}
        self._undone: list[str] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts with whatever an earlier process left."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; what it had taken is kept if it was scored, else it waits. Blocks; may be called twice."""
        self._stopping.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._give_back()

    def wake(self) -> None:
        """There may be something to do."""
        self._awake.set()

    def rate(self, batch: str) -> float | None:
        """Pictures of ``batch`` per second of late, None if it has none."""
        with self._lock:
            kept = self._kept.get(batch)
            if not kept or time.monotonic() - kept[-1][0] > RATE_SECONDS:
                return None
            # The first entry is when work began; its pictures came before.
            seconds, pictures = kept[-1][0] - kept[0][0], sum(count for _, count in list(kept)[1:])
        return pictures / seconds if pictures and seconds > 0 else None

    def context_of(self, item: str) -> tuple[str | None, Context | None]:
        """Id and context that the shown finding of ``item`` was made with; None both if without, or if it is gone."""
        id_ = self._store.shown_context(item)
        context = None if id_ is None else self._shelf.load(id_)
        return (None, None) if context is None else (id_, context)

    def _run(self) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="batches-keep") as writer:
            keeping: Future[None] | None = None
            after = 0
            while True:
                self._awake.clear()  # before looking: what comes from now on wakes
                if self._stopping.is_set():
                    return
                work: Work | None = None
                try:
                    work = self._next(after)
                    if work is None:
                        self._awake.wait(PAUSE_SECONDS)
                        continue
                    after = work.number
                    found = self._score(work)
                    if keeping is not None:
                        keeping.result()
                    keeping = writer.submit(self._keep, work, *found)
                except Exception as error:
                    self._hold_up(work, error)

    def _next(self, after: int) -> Work | None:
        """Pictures to be scored, once no context waits to be built."""
        self._give_back()
        while (job := self._store.context_job()) is not None:
            try:
                self._shelf.build(job, self._stopping)
            except Stopped:
                self._store.context_released(job.id)
                if self._stopping.is_set():
                    return None
        return self._store.take(self._chunk, after)

    def _hold_up(self, work: Work | None, error: Exception) -> None:
        """Gives ``work`` back after a pause: the service stops, the disk is full, ... it may pass."""
        if work is not None:
            with self._lock:
                self._undone += [task.item for task in work.tasks]
        if isinstance(error, _ContextGone):
            return
        if not _passes(error):
            log.error("a batch is held up", exc_info=error)
        self._stopping.wait(PAUSE_SECONDS)

    def _give_back(self) -> None:
        """What was taken and not kept waits again."""
        with self._lock:
            undone = list(self._undone)
        if undone:
            self._store.release(undone)
            with self._lock:
                del self._undone[: len(undone)]

    def _score(self, work: Work) -> tuple[list[Inspected], ScoredBy]:
        """Raises ``_ContextGone`` if the context has to be built again, ``Fault`` 503 when the service stops."""
        context = self._shelf.load(work.context)
        if context is None and work.context != NONE:
            self._store.context_lost(work.context)
            raise _ContextGone
        return self._inspected(work, context), self._scored_by(context)

    def _inspected(self, work: Work, context: Context | None) -> list[Inspected]:
        if work.tasks[0].attempts > MOST_ATTEMPTS:
            what = f"the service ended {MOST_ATTEMPTS} times while it looked at this picture"
            return [self._failed(task, ErrorInfo("gave_up", what, "look at it by itself"), work) for task in work.tasks]
        sources = [self._store.task_source(task) for task in work.tasks]
        try:
            return self._engine.inspect_many(sources, context=context)
        except Exception as error:
            if _passes(error):
                raise
        return [self._alone(task, context, work) for task in work.tasks]

    def _alone(self, task: Task, context: Context | None, work: Work) -> Inspected:
        try:
            return self._engine.inspect_many([self._store.task_source(task)], context=context)[0]
        except Exception as error:
            if _passes(error):
                raise
            return self._failed(task, _told(error), work)

    def _failed(self, task: Task, error: ErrorInfo, work: Work) -> Inspected:
        image = ImageInfo(task.name, sha256=task.sha256)
        kind = self._shelf.kind(work.context)
        finding = Finding(task.name, image, self._inspector.info, error=error, context=ContextInfo(kind))
        return Inspected(finding, None)

    def _scored_by(self, context: Context | None) -> ScoredBy:
        threshold = self._inspector.threshold_with(context)
        return ScoredBy(asdict(self._inspector.info), ThresholdUsed(threshold.value, threshold.source))

    def _keep(self, work: Work, inspected: Sequence[Inspected], scored_by: ScoredBy) -> None:
        try:
            self._store.keep_findings(work, inspected, scored_by)
        except Exception as error:
            self._hold_up(work, error)
            return
        with self._lock:
            moment = time.monotonic()
            kept = self._kept.setdefault(work.batch, deque())
            if kept and moment - kept[-1][0] > RATE_SECONDS:
                kept.clear()
            kept.append((moment, len(work.tasks)))
            while moment - kept[0][0] > RATE_SECONDS:
                kept.popleft()
            for batch in [batch for batch, times in self._kept.items() if moment - times[-1][0] > RATE_SECONDS]:
                del self._kept[batch]


def _passes(error: Exception) -> bool:
    """Whether it says nothing about the picture: the service stops."""
    return isinstance(error, Fault) and error.status == 503


def _told(error: Exception) -> ErrorInfo:
    """Why a picture failed, for its record. What nobody foresaw goes to the log alone."""
    if isinstance(error, AnomalyOVError):
        return ErrorInfo(type(error).__name__, error.message, error.hint)
    log.error("a picture failed", exc_info=error)
    return ErrorInfo("internal", "the service failed on this picture", "its log says more")
