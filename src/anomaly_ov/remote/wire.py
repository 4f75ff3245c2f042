"""One request over the wire: the reply's JSON pieces, as they come, within limits on time and size.

The ``openai`` client sends the request and turns an error status into an exception. The body is read here, because the
client sets no bound to a body's size and none to the time that a server may take byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from anomaly_ov.images.messages import one_line
from anomaly_ov.remote.failures import Interrupted, OutOfTime, malformed, shortened
from anomaly_ov.remote.limits import Clock

if TYPE_CHECKING:
    from openai import OpenAI

MAX_REPLY_BYTES = 16 * 2**20
DONE = "[DONE]"


class _Deadline:
    """So many seconds from the last ``renew``. Looked at when bytes arrive; before that the client's own time-out."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock, self._timeout_s = clock, timeout_s
        self.renew()

    def renew(self) -> None:
        self._end = self._clock.now() + self._timeout_s

    def check(self) -> None:
        if self._clock.now() > self._end:
            raise OutOfTime


def pieces(client: OpenAI, body: dict[str, Any], timeout_s: float, clock: Clock) -> Iterator[tuple[Any, bool]]:
    """The reply to ``body`` as parsed JSON values, each with whether it is part of a stream.

    ``timeout_s``: for the whole reply, for each piece of a stream, and at any time for silence. Raises EndpointError
    for what is no JSON, OutOfTime, Interrupted, and what the client raises.
    """
    from openai import OpenAIError

    deadline = _Deadline(clock, timeout_s)
    with ExitStack() as stack:
        request = client.chat.completions.with_streaming_response.create(**cast(Any, body))
        try:
            response = stack.enter_context(request)
        except OpenAIError:
            raise
        except Exception as error:  # met while it reads the body that an error came with
            raise _of_http(error) from error
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        chunks = _chunks(response.iter_bytes(), deadline)
        if kind != "text/event-stream":
            yield _parsed(b"".join(chunks), kind), False
            return
        for data in events(chunks):
            if data == DONE:
                return
            deadline.renew()
            yield _parsed(data, kind), True
            deadline.renew()  # the time that the reader takes is not the endpoint's


def _chunks(body: Iterator[bytes], deadline: _Deadline) -> Iterator[bytes]:
    from openai import OpenAIError

    size = 0
    while True:
        try:
            chunk = next(body, None)
        except OpenAIError:
            raise
        except Exception as error:
            raise _of_http(error) from error
        if chunk is None:
            return
        deadline.check()
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise malformed(f"its reply exceeds {MAX_REPLY_BYTES} bytes")
        yield chunk


def _of_http(error: Exception) -> OutOfTime | Interrupted:
    """What the client lets through of its HTTP library, of which it has had two; so known by name only."""
    return (OutOfTime if "Timeout" in type(error).__name__ else Interrupted)(one_line(error))


def events(chunks: Iterable[bytes]) -> Iterator[str]:
    """The data of each server-sent event; comments, names and ids are skipped."""
    data: list[str] = []
    for line in _lines(chunks):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
    if data:
        yield "\n".join(data)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines ended by LF or CR LF, decoded; what follows the last of them too."""
    rest: list[bytes] = []
    for chunk in chunks:
        *ended, last = chunk.split(b"\n")
        for line in ended:
            yield _decoded(b"".join([*rest, line]).removesuffix(b"\r"))
            rest = []
        rest.append(last)
    yield _decoded(b"".join(rest).removesuffix(b"\r"))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("its reply is no UTF-8 text") from None


def _parsed(data: str | bytes, kind: str) -> Any:
    text = data if isinstance(data, str) else _decoded(data)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise malformed(f"it sent {shortened(kind or 'something')} that is no JSON") from None
