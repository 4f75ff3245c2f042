"""What every request passes first and every answer last, as plain ASGI around the whole application.

In: who may ask (``access``), how many at once, how large a body, how long it may take. Out: security headers, counts,
and one error object for whatever was raised below. A body is counted while it comes, chunk by chunk, so that what is
too large is never held.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import MutableMapping
from typing import Any, Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomaly_ov_server.access import SAFE, Access
from anomaly_ov_server.faults import CLIENT_GONE, METHODS, Fault, fault_of
from anomaly_ov_server.metrics import Metrics
from anomaly_ov_server.settings import ServeSettings

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
MAX_AT_ONCE = 512
"""Requests at a time; more are told to come back."""
WATCHED = ("/healthz", "/readyz", "/metrics")
"""Answered even then: from these an operator learns of it."""
SMALL_BODY = 2**20
"""Bytes of a body where no pictures are taken: those are parsed in one go, on the event loop."""
HELD_BODIES = 2
"""Bodies of all requests together may hold as much as this many of the largest."""
DRAINED_BYTES, DRAIN_SECONDS = 2**20, 2.0
"""What is still read of a refused body: closing while it comes would destroy the answer on its way."""


class Gate(Protocol):
    """What the guard needs to know about the service."""

    settings: ServeSettings
    access: Access
    metrics: Metrics

    @property
    def takes_work(self) -> bool:
        """False from the moment that the service is told to stop."""
        ...


class Guard:
    """ASGI middleware; ``gate``: the service."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate
        self._at_once = self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(self, scope, receive, send)
        self._at_once += 1
        try:
            await self._answer(passage)
        finally:
            self._at_once -= 1
            self._held -= passage.received
            self._count(passage)

    async def _answer(self, passage: _Passage) -> None:
        try:
            async with asyncio.timeout(self._gate.settings.request_seconds) as limit:
                passage.limit = limit
                self._admit(passage)
                await self._app(passage.scope, passage.receive, passage.send)
        except TimeoutError:
            seconds = self._gate.settings.request_seconds
            what = f"no answer within {seconds:g} s"
            await passage.refuse(Fault(503, "timed_out", what, hint="send fewer pictures at once", retry_after=5))
        except Exception as error:
            await passage.refuse(fault_of(error))

    def _admit(self, passage: _Passage) -> None:
        headers, method = Headers(scope=passage.scope), passage.scope["method"]
        self._gate.access.check(method, passage.scope["path"], headers)
        if self._at_once > MAX_AT_ONCE and passage.scope["path"] not in WATCHED:
            what = f"more than {MAX_AT_ONCE} requests at a time"
            raise Fault(429, "overloaded", what, hint="send fewer at a time", retry_after=2)
        if method in SAFE:
            return
        if not self._gate.takes_work:
            raise Fault(503, "stopping", "the service is stopping", hint="try again soon", retry_after=5)
        length = headers.get("content-length", "0")
        self._require_size(passage, int(length) if length.isdecimal() and len(length) < 20 else 2**63)

    def take(self, passage: _Passage, size: int) -> None:
        """Counts ``size`` further bytes of a body. Raises ``Fault`` 413, or 429 where others hold too much."""
        self._held += size
        passage.received += size
        self._require_size(passage, passage.received)
        most = HELD_BODIES * self._gate.settings.max_request_bytes
        if self._held > most:
            what = f"the bodies of all requests hold more than {most} bytes"
            raise Fault(429, "overloaded", what, hint="send fewer at a time", retry_after=2)

    def _require_size(self, passage: _Passage, size: int) -> None:
        most = self._gate.settings.max_request_bytes
        if passage.scope["method"] != "POST" or passage.scope["path"] == "/v1/session":
            most = min(most, SMALL_BODY)
        if size > most:
            what = f"such a request may hold {most} bytes"
            raise Fault(413, "too_large", what, hint="send fewer pictures at a time")

    def _count(self, passage: _Passage) -> None:
        method = passage.scope["method"]
        route = getattr(passage.scope.get("route"), "path", "unmatched")
        seconds = time.perf_counter() - passage.started
        known = method if method in METHODS else "other"
        self._gate.metrics.answered(known, route, passage.status or CLIENT_GONE, seconds)


class _Passage:
    """One request on its way in and its answer on its way out."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.status, self.received, self.started = scope, 0, 0, time.perf_counter()
        self.limit: asyncio.Timeout | None = None
        self._guard, self._receive, self._send = guard, receive, send
        self._fault: Fault | None = None
        self._read_all = self._refused = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read_all = not message.get("more_body", False)
            try:
                self._guard.take(self, len(message.get("body", b"")))
            except Fault as fault:
                self._fault = fault  # kept, because whoever reads the body may make something else of it
                raise
        return message

    async def send(self, message: Message) -> None:
        if self._fault is not None:
            await self.refuse(self._fault)
        if self._refused:
            return
        if message["type"] == "http.response.start":
            self._start(message)
        await self._send(message)

    async def refuse(self, fault: Fault) -> None:
        """Answers with the error object, unless an answer has begun."""
        if self.status:
            return
        self.limit = self._fault = None
        await self._drain()
        await fault.response()(self.scope, self._receive, self.send)
        self._refused = True

    def _start(self, message: MutableMapping[str, Any]) -> None:
        self.status = message["status"]
        if self.limit is not None:
            self.limit.reschedule(None)  # the limit is on the time until an answer begins
        headers = MutableHeaders(scope=message)
        for name, value in SECURITY.items():
            headers.setdefault(name, value)
        if self.scope["path"].startswith("/v1/"):
            headers.setdefault("Cache-Control", "no-store")

    async def _drain(self) -> None:
        drained = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._read_all and drained < DRAINED_BYTES:
                    message = await self._receive()
                    drained += len(message.get("body", b""))
                    self._read_all = not message.get("more_body", False)
