"""Contexts of batches: built from stored pictures, saved as files, and loaded when something is scored with them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Literal

from anomaly_ov.errors import AnomalyOVError, UsageError
from anomaly_ov.images.sources import Source
from anomaly_ov_server.store.contexts import NONE
from anomaly_ov_server.store.rows import ContextJob, Problem
from anomaly_ov_server.store.store import Store

if TYPE_CHECKING:
    from anomaly_ov.context.context import Context
    from anomaly_ov.inspector import Inspector

log = logging.getLogger("anomaly_ov_server")

HELD = 2
MOST_ATTEMPTS = 3


class Stopped(Exception):
    """Building was broken off because the service stops, or because nobody wants the context any more."""


class ContextShelf:
    """Holds the last used contexts in memory. Safe to share between threads."""

    def __init__(self, store: Store, inspector: Inspector) -> None:
        self._store, self._inspector = store, inspector
        self._held: OrderedDict[str, Context] = OrderedDict()
        self._lock = threading.Lock()

    def build(self, job: ContextJob, stopping: Event) -> None:
        """Builds and saves a context, or notes why it cannot be. Raises ``Stopped``."""
        if job.attempts > MOST_ATTEMPTS:
            what = f"the service ended {MOST_ATTEMPTS} times while it built this context"
            self._store.context_failed(job.id, Problem("gave_up", what, "choose fewer or other pictures"))
            return
        try:
            context, reason = self._built(job, stopping)
        except UsageError:  # its message may name the data folder
            needed = 3 if job.kind == "folder" else 1
            what = f"of {len(job.tasks)} pictures fewer than {needed} can be read and differ"
            self._store.context_failed(job.id, Problem("too_few_pictures", what, "choose other pictures"))
        except AnomalyOVError as error:
            self._store.context_failed(job.id, Problem(type(error).__name__, error.message, error.hint))
        except Stopped:
            raise
        except Exception:
            log.exception("context %s cannot be built", job.id)
            problem = Problem("internal", "the service failed on this context", "its log says more")
            self._store.context_failed(job.id, problem)
        else:
            if context is None:
                self._store.context_declined(job.id, reason)
            else:
                self._save(job.id, context, reason or None)

    def load(self, id_: str) -> Context | None:
        """The context ``id_``; None for ``none``, and where its file is gone, damaged or of another model."""
        if id_ == NONE:
            return None
        with self._lock:
            if id_ in self._held:
                self._held.move_to_end(id_)
                return self._held[id_]
        try:
            context = self._inspector.context(self._store.folder.context(id_))
        except AnomalyOVError as error:
            log.warning("context %s is to be built again: %s", id_, error.message)
            return None
        self._hold(id_, context)
        return context

    def kind(self, id_: str) -> Literal["none", "folder", "references"]:
        """Kind of a context that is held; ``none`` for any other."""
        with self._lock:
            return self._held[id_].kind if id_ in self._held else "none"

    def _built(self, job: ContextJob, stopping: Event) -> tuple[Context | None, str]:
        """The context, and the reason where it was a choice."""

        def look_up(done: int, total: int) -> None:
            if stopping.is_set() or not self._store.context_wanted(job.id):
                raise Stopped

        folder = self._store.folder
        sources = [Source(str(folder.picture(task.sha256)), task.name, task.page) for task in job.tasks]
        if job.auto:
            chosen, reason = self._inspector.auto_context(sources, progress=look_up)
            named = None if chosen is None else replace(chosen, source=job.source)
            return named, reason.partition(" (")[0]  # the figures behind it are no part of a sentence for people
        make = self._inspector.folder_context if job.kind == "folder" else self._inspector.context
        return replace(make(sources, progress=look_up), source=job.source), ""

    def _save(self, id_: str, context: Context, reason: str | None) -> None:
        from anomaly_ov.context.context_file import save_context

        try:
            save_context(self._store.folder.context(id_), context)
        except UsageError:  # its message names the data folder
            hint = "make room on the disk, then choose the context again"
            self._store.context_failed(id_, Problem("storage_full", "the context cannot be written", hint))
            return
        self._hold(id_, context)
        self._store.context_ready(id_, len(context.bank), reason)

    def _hold(self, id_: str, context: Context) -> None:
        with self._lock:
            self._held[id_] = context
            self._held.move_to_end(id_)
            while len(self._held) > HELD:
                self._held.popitem(last=False)
