"""A picture fetched from the web without letting its address lead into the house.

Names are resolved here, every address they give is checked, and the connection goes to one of those very addresses:
a name that answers differently the next time gains nothing. Each redirect is a new address and is checked like the
first. TLS still proves the name (SNI and certificate are the URL's). No proxy, no cookies, no compression.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urljoin

import httpcore2
import httpx2

from anomaly_ov_server.faults import Fault

MAX_REDIRECTS = 3
SECONDS = 20.0
CONNECT_SECONDS = 5.0
AT_ONCE = 8
"""Fetches at a time, in the whole process."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = [("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "anomaly-ov")]


async def resolved(host: str, port: int) -> list[str]:
    """All addresses of ``host``, as the system gives them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(text: str) -> bool:
    """Whether an address belongs to the public Internet, and so does whatever IPv4 address lies in it."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_global(one) for one in _with_embedded(address))


def _is_global(address: Address) -> bool:
    inward = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    inward |= address.is_link_local or getattr(address, "is_site_local", False)
    return address.is_global and not inward


def _with_embedded(address: Address) -> Iterator[Address]:
    """The address itself, unless it only stands for another one, and those that packets sent there may reach."""
    if not isinstance(address, ipaddress.IPv6Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    if address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses only, each resolved once and used as it was checked."""

    def __init__(self, resolve: Resolve = resolved, inner: httpcore2.AsyncNetworkBackend | None = None) -> None:
        self._resolve, self._inner = resolve, inner or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to ``host``. Raises ``Fault`` unless all its addresses are public."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise _failed("its name leads nowhere") from None
        if not addresses:
            raise _failed("its name leads nowhere")
        if not all(map(is_public, addresses)):
            what = "the picture's address is not on the public Internet"
            raise Fault(422, "address_not_allowed", what, hint="send the picture itself, as a data URL", param="url")
        return await self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """Between attempts."""
        await asyncio.sleep(seconds)


async def fetch(
    url: str, max_bytes: int, *, backend: httpcore2.AsyncNetworkBackend | None = None, seconds: float = SECONDS
) -> bytes:
    """The bytes at ``url``. Raises ``Fault``: 413, 422 for an address that must not be asked, 429, 502."""
    with _slot():
        try:
            async with asyncio.timeout(seconds):
                return await _follow(url, max_bytes, backend or CheckedBackend())
        except TimeoutError:
            raise _failed(f"it did not come within {seconds:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError):
            raise _failed("the connection failed") from None


async def _follow(url: str, max_bytes: int, backend: httpcore2.AsyncNetworkBackend) -> bytes:
    async with httpcore2.AsyncConnectionPool(network_backend=backend, max_keepalive_connections=0) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            target = _checked(url)
            async with _response(pool, target) as response:
                if response.status not in _REDIRECTS:
                    return await _body(response, max_bytes)
                url = urljoin(str(target), _header(response, b"location"))
    raise _failed(f"it leads through more than {MAX_REDIRECTS} redirects")


@asynccontextmanager
async def _response(pool: httpcore2.AsyncConnectionPool, url: httpx2.URL) -> AsyncIterator[httpcore2.Response]:
    target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    timeouts = {"connect": CONNECT_SECONDS, "read": CONNECT_SECONDS, "write": CONNECT_SECONDS, "pool": CONNECT_SECONDS}
    headers = [("Host", url.netloc.decode("ascii")), *_HEADERS]
    async with pool.stream("GET", target, headers=headers, extensions={"timeout": timeouts}) as response:
        yield response


def _checked(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
        sound = parsed.scheme in ("http", "https") and bool(parsed.raw_host) and not parsed.userinfo
    except (httpx2.InvalidURL, ValueError):
        sound = False
    if not sound:
        hint = "http://name/picture.jpg for example, without user and password"
        raise Fault(422, "invalid_request", "the picture's address is no plain http(s) URL", hint=hint, param="url")
    return parsed


async def _body(response: httpcore2.Response, max_bytes: int) -> bytes:
    if response.status != 200:
        raise _failed(f"status {response.status}")
    length = _header(response, b"content-length")
    data = bytearray()
    if not (length.isdecimal() and int(length[:20]) > max_bytes):
        async for chunk in response.aiter_stream():
            data += chunk
            if len(data) > max_bytes:
                break
        else:
            return bytes(data)
    raise Fault(413, "image_too_large", f"a picture may hold {max_bytes} bytes", hint="send a smaller file")


def _header(response: httpcore2.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _failed(why: str) -> Fault:
    return Fault(502, "remote_failed", f"the picture could not be fetched: {why}", param="url")


_fetching = 0


@contextmanager
def _slot() -> Iterator[None]:
    global _fetching
    if _fetching >= AT_ONCE:
        what = f"{AT_ONCE} pictures are being fetched already"
        raise Fault(429, "overloaded", what, hint="try again in 2 s", retry_after=2)
    _fetching += 1
    try:
        yield
    finally:
        _fetching -= 1
