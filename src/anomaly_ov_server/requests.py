"""What a request may cost: work ends when its client goes, and JSON of very many values is not parsed.

A list of two bytes a value takes a hundred times that in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from anomaly_ov_server.faults import CLIENT_GONE, Fault

Result = TypeVar("Result")


async def unless_gone(request: Request, awaitable: Awaitable[Result]) -> Result:
    """What ``awaitable`` gives. Cancels it and raises a ``Fault`` that nobody will read when the client disconnects.

    The request's body must have been read before.
    """
    work = asyncio.ensure_future(awaitable)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise Fault(CLIENT_GONE, "client_gone", "the client left before the answer was there")
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


MOST_COMMAS = 200_000
"""More than any request needs: pictures are long strings, and a language model reads some thousand words."""


def require_modest(body: bytes) -> None:
    """Raises ``Fault`` 413 for JSON of very many values: each but the first follows a comma."""
    if body.count(b",") > MOST_COMMAS:
        raise Fault(413, "too_large", f"the JSON holds more than {MOST_COMMAS} commas", hint="send less at a time")
