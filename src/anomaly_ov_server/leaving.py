"""Work that ends with its reader: when the client goes, what was done for it alone is cancelled."""

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
