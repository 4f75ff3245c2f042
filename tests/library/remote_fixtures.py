"""A server in a thread that speaks the chat-completions format, as scripted, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from anomaly_ov.records import ContextInfo, Finding, ImageInfo, ModelInfo, Region, Threshold
from anomaly_ov.remote.limits import Clock

KEY = "sk-very-secret-0123456789"
KEY_ENV = "ANOMALY_OV_TEST_KEY"


@dataclass
class Scripted:
    """One reply. ``delay``: seconds before it. ``pause``: between the chunks of ``body`` where that is a list."""

    body: bytes | list[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    delay: float = 0.0
    pause: float = 0.0
    cut: bool = False  # promise more bytes than are sent, then hang up


@dataclass
class Server:
    url: str
    script: list[Scripted]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def token(text: str, probability_log: float, *others: tuple[str, float]) -> dict[str, Any]:
    listed = [(text, probability_log), *others]
    top = [{"token": word, "logprob": value, "bytes": None} for word, value in listed]
    return {"token": text, "logprob": probability_log, "bytes": None, "top_logprobs": top}


def completion(
    text: str | None = "Yes, a scratch.",
    finish: str | None = "stop",
    logprobs: list[dict[str, Any]] | None = None,
    usage: tuple[int, int] | None = (120, 7),
    **message: Any,
) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    value = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    if usage is not None:
        value["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return value


def ok(text: str | None = "Yes, a scratch.", **options: Any) -> Scripted:
    return Scripted(json.dumps(completion(text, **options)).encode())


def failing(status: int, message: str = "went wrong", code: str | None = None, **headers: str) -> Scripted:
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scripted(json.dumps(body).encode(), status, {"Content-Type": "application/json", **named})


def chunk(text: str | None = None, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **choice}],
    }


def events(*values: Any, done: bool = True) -> list[bytes]:
    chunks = [
        b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n" for value in values
    ]
    return [*chunks, b"data: [DONE]\n\n"] if done else chunks


def streamed(*values: Any, done: bool = True, **options: Any) -> Scripted:
    return Scripted(events(*values, done=done), headers={"Content-Type": "text/event-stream"}, **options)


@contextmanager
def serving(*script: Scripted) -> Iterator[Server]:
    server: Server

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            server.bodies.append(json.loads(data))
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.paths.append(self.path)
            reply = server.script.pop(0) if server.script else Scripted(b"{}", 418)
            time.sleep(reply.delay)
            try:
                self._send(reply)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _send(self, reply: Scripted) -> None:
            chunks = reply.body if isinstance(reply.body, list) else [reply.body]
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(sum(map(len, chunks)) + (1000 if reply.cut else 0)))
            self.end_headers()
            for part in chunks:
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(reply.pause)
            self.close_connection = reply.cut

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.block_on_close = False
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}/v1", list(script))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)


class FakeTime:
    """A clock that only moves when somebody sleeps; remembers for how long."""

    def __init__(self, on_sleep: Callable[[float], None] = lambda seconds: None) -> None:
        self.time, self.slept, self._on_sleep = 1000.0, [], on_sleep

    def sleep(self, seconds: float) -> None:
        self._on_sleep(seconds)
        self.slept.append(seconds)
        self.time += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, sleep=self.sleep)


def region(box: tuple[int, int, int, int] = (20, 10, 40, 20), score: float = 0.91) -> Region:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return Region(box, area, score, score / 2, {"size": [1, 1], "counts": [1]})


def finding(**changes: Any) -> Finding:
    """Of a picture of 100 x 80 pixels, anomalous, with one region in its upper left."""
    values: dict[str, Any] = {
        "id": "secret-folder/part.png",
        "image": ImageInfo("secret-folder/part.png", 100, 80, "0" * 64),
        "model": ModelInfo("tiny", "1", "cpu", "float32"),
        "score_raw": 0.8,
        "score": 0.77,
        "score_map": 0.5,
        "threshold": Threshold(0.6, "calibrated"),
        "anomalous": True,
        "level": "highly",
        "regions": (region(),),
        "context": ContextInfo(),
    }
    return Finding(**(values | changes))
