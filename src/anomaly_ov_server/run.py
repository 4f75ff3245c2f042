"""Running the service until it is told to end: what was taken is finished, the rest is told to come back."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from anomaly_ov.errors import UsageError
from anomaly_ov.images.messages import one_line
from anomaly_ov.images.read import Limits, open_regular, read_bounded
from anomaly_ov.images.sources import Source
from anomaly_ov.inspector import Inspector
from anomaly_ov_server.app import create_app
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.service import Service
from anomaly_ov_server.settings import ServeSettings
from anomaly_ov_server.store.names import clean
from anomaly_ov_server.uploads import Upload, clean_name

BACKLOG = 512
KEEP_ALIVE_SECONDS = 30
INTERRUPTED = 130


def run(
    inspector: Inspector,
    settings: ServeSettings,
    first: Sequence[Source] = (),
    *,
    name: str = "From the command line",
    say: Callable[[str], None] = print,
) -> None:
    """Serves until SIGINT or SIGTERM. ``say``: told the address once it listens.

    ``first``: pictures to begin with, copied into the batch ``name``; those that it holds already are not scored again.
    Raises ``UsageError`` when the address is taken or the data folder cannot be used.
    """
    listening = listen(settings)
    with listening:
        app = create_app(inspector, settings)
        address = _address(listening, settings)
        try:
            batch = take_first(app.state.service, first, name, say)
        except BaseException:
            app.state.service.store.close()
            raise
        if batch is not None:
            address += f"/#b={batch}"
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.request_seconds) + 1,
        )
        _Server(config, app.state.service, address, say).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says where it listens, and lets the service refuse new work from the moment of the first signal."""

    def __init__(self, config: uvicorn.Config, service: Service, address: str, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._service, self._address, self._say = service, address, say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._say(f"open {self._address} in a browser; Ctrl-C ends the service")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not the parent's: it raises the signal again in the end, and a service that was told to end has not failed.
        if self.should_exit and sig == signal.SIGINT:
            os._exit(INTERRUPTED)  # at once, as by kill -9, which loses nothing that was answered
        self._service.refuse()
        self.should_exit = True
        self._say("stopping: what was taken is finished first; Ctrl-C again ends at once")


def take_first(service: Service, first: Sequence[Source], name: str, say: Callable[[str], None]) -> str | None:
    """Puts the files of ``first`` into the batch ``name``, made if missing; its id, None if there are no files.

    Raises ``UsageError`` if none fits.
    """
    if not first:
        return None
    store, limits = service.store, service.settings.limits
    named = clean(name, "Pictures")
    known = {batch.name: batch for batch in store.batches(store.limits.max_batches)}
    batch = known.get(named) or store.create_batch(named)
    taken = 0
    for source in {id(one.item) if isinstance(one.item, bytes) else one.item: one for one in first}.values():
        try:
            items, rejected = store.add_pictures(batch.id, [_upload(source, limits)])
        except (OSError, Fault) as error:
            say(f"left out {source.id}: {one_line(error)}")
            continue
        taken += len(items)
        for one in rejected:
            say(f"left out {one.name}: {one.error.message}")
    if not taken:
        if named not in known:
            store.delete_batch(batch.id)
        raise UsageError("none of the pictures can be used", hint="each line above says why")
    return batch.id


def _upload(source: Source, limits: Limits) -> Upload:
    """The bytes of a file, or one byte more than the limit where there are more."""
    if isinstance(source.item, bytes):
        return Upload(clean_name(source.id), source.item)
    path = str(source.item)
    with open_regular(path) as file:
        return Upload(clean_name(path), read_bounded(file, limits))


def listen(settings: ServeSettings) -> socket.socket:
    """A listening socket. Raises ``UsageError`` when the address is taken or cannot be had."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        # Inherited by its connections. An answer is written as head and body; without this the body would wait until
        # the client acknowledges the head, which takes 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        what = f"cannot listen on {settings.host} port {settings.port}: {why}"
        foreign = getattr(error, "errno", None) == errno.EADDRNOTAVAIL
        hint = "give an address of this machine" if foreign else "choose another --port (0 takes any)"
        raise UsageError(what, hint=hint) from None


def _address(listening: socket.socket, settings: ServeSettings) -> str:
    port = listening.getsockname()[1]
    host = "localhost" if settings.any_address else settings.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
