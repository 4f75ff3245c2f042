"""The whole service behind a real connection: uvicorn in a thread, on a socket as ``run`` opens it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from anomaly_ov_server.app import create_app
from anomaly_ov_server.run import listen
from anomaly_ov_server.settings import ServeSettings


@contextmanager
def serving(inspector: Any, data: Path, **settings: Any) -> Iterator[tuple[str, Any]]:
    """The service's address and its parts; ``settings``: fields of ``ServeSettings``."""
    chosen = ServeSettings(**{"data": data, "port": 0, "max_answer_tokens": 30} | settings)
    app = create_app(inspector, chosen)
    with listen(chosen) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.service
        finally:
            server.should_exit = True
            thread.join()


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    """Waits for it; fails if it does not come to pass."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)
