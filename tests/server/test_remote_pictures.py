"""Addresses that lead into the house are never connected to, whatever name, form or redirect hides them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpcore2
import pytest

from anomaly_ov_server import remote_pictures
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.remote_pictures import CheckedBackend, fetch, is_public

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndata"


def redirect(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


class Net(httpcore2.AsyncNetworkBackend):
    """Remembers where it was told to connect; ``answers``: per address, one after the other."""

    def __init__(self, answers: dict[str, list[bytes]]) -> None:
        self.answers, self.connected, self.written, self.tls = answers, [], b"", []

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        self.connected.append((host, port))
        return Stream(self, self.answers[host].pop(0))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Stream(httpcore2.AsyncNetworkStream):
    def __init__(self, net: Net, answer: bytes) -> None:
        self._net, self._left = net, answer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left == b"never":
            await asyncio.sleep(30)
        part, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._net.written += buffer

    async def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        assert ssl_context.check_hostname
        self._net.tls.append(server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        return None

    async def aclose(self) -> None:
        self._left = b""


class Names:
    """``known``: addresses per name, a new list at each asking."""

    def __init__(self, known: dict[str, list[list[str]]]) -> None:
        self.known, self.asked = known, []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError("no such name")
        answers = self.known[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def get(
    url: str, names: dict[str, list[list[str]]], answers: dict[str, list[bytes]], **more: Any
) -> tuple[bytes | Fault, Net]:
    net = Net(answers)
    backend = CheckedBackend(Names(names), net)
    try:
        return asyncio.run(fetch(url, more.pop("max_bytes", 100), backend=backend, **more)), net
    except Fault as fault:
        return fault, net


def refused(found: bytes | Fault) -> tuple[int, str]:
    assert isinstance(found, Fault), found
    for inner in ("127.", "10.", "169.254"):
        assert inner not in str(found.to_json()), "an address of the house is told"
    return found.status, found.type


def test_a_public_picture_comes_from_the_address_that_was_checked() -> None:
    found, net = get("http://pictures.example/a.png?b=c", {"pictures.example": [[PUBLIC]]}, {PUBLIC: [OK]})
    assert found == b"data"
    assert net.connected == [(PUBLIC, 80)]
    assert net.written.startswith(b"GET /a.png?b=c HTTP/1.1\r\n")
    assert b"Host: pictures.example\r\n" in net.written
    assert b"gzip" not in net.written


def test_tls_proves_the_name_and_not_the_address() -> None:
    found, net = get("https://pictures.example:8443/a", {"pictures.example": [[OTHER]]}, {OTHER: [OK]})
    assert found == b"data"
    assert (net.connected, net.tls) == ([(OTHER, 8443)], ["pictures.example"])
    assert b"Host: pictures.example:8443\r\n" in net.written


INWARD = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12::1",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
]


@pytest.mark.parametrize("address", INWARD)
def test_what_leads_inward_is_refused(address: str) -> None:
    assert not is_public(address)
    found, net = get("http://a.example/", {"a.example": [[address]]}, {})
    assert refused(found) == (422, "address_not_allowed")
    assert net.connected == []


@pytest.mark.parametrize("address", [PUBLIC, OTHER, "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"])
def test_what_is_public_is_not(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://[::1]/", "http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://0/"],
)
def test_addresses_in_any_spelling_are_checked_after_the_system_has_read_them(url: str) -> None:
    """The real resolver reads these as the loopback or does not know them: either way nothing is connected to."""
    net = Net({})
    with pytest.raises(Fault) as fault:
        asyncio.run(fetch(url, 100, backend=CheckedBackend(inner=net)))
    assert fault.value.type in ("address_not_allowed", "remote_failed", "invalid_request")
    assert net.connected == []


def test_one_inward_address_among_public_ones_refuses_them_all() -> None:
    found, net = get("http://a.example/", {"a.example": [[PUBLIC, "10.0.0.1"]]}, {PUBLIC: [OK]})
    assert refused(found) == (422, "address_not_allowed")
    assert net.connected == []


def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """DNS rebinding: the name is resolved once per connection, and that very address is used."""
    names = {"a.example": [[PUBLIC], ["127.0.0.1"]]}
    found, net = get("http://a.example/", names, {PUBLIC: [OK], "127.0.0.1": [OK]})
    assert (found, net.connected) == (b"data", [(PUBLIC, 80)])
    names = {"a.example": [[PUBLIC], ["127.0.0.1"]]}
    found, net = get("http://a.example/", names, {PUBLIC: [redirect("/again")], "127.0.0.1": [OK]})
    assert refused(found) == (422, "address_not_allowed")
    assert net.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize("target", ["http://inner.example/", "//inner.example/", "http://10.0.0.1/"])
def test_redirects_are_checked_like_the_first(target: str) -> None:
    names = {"a.example": [[PUBLIC]], "inner.example": [["10.0.0.1"]], "10.0.0.1": [["10.0.0.1"]]}
    found, net = get("http://a.example/", names, {PUBLIC: [redirect(target)]})
    assert refused(found) == (422, "address_not_allowed")
    assert net.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://a.example/", "http://u:p@a.example/"])
def test_redirects_to_other_schemes_are_refused(target: str) -> None:
    found, _ = get("http://a.example/", {"a.example": [[PUBLIC]]}, {PUBLIC: [redirect(target)]})
    assert refused(found) == (422, "invalid_request")


def test_three_redirects_are_followed_and_no_more() -> None:
    names = {"a.example": [[PUBLIC]], "b.example": [[OTHER]]}
    turns = [redirect("/2"), redirect("https://b.example/3")]
    found, net = get("http://a.example/1", names, {PUBLIC: turns, OTHER: [redirect("/4"), OK]})
    assert (found, len(net.connected)) == (b"data", 4)
    found, _ = get("http://a.example/", names, {PUBLIC: [redirect("/")] * 9})
    assert refused(found) == (502, "remote_failed")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64,
    ],
)
def test_what_is_too_large_is_given_up(answer: bytes) -> None:
    found, _ = get("http://a.example/", {"a.example": [[PUBLIC]]}, {PUBLIC: [answer]})
    assert refused(found) == (413, "image_too_large")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n" * 9,
        b"SSH-2.0-OpenSSH\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
    ],
)
def test_answers_that_are_no_picture(answer: bytes) -> None:
    found, _ = get("http://a.example/", {"a.example": [[PUBLIC]]}, {PUBLIC: [answer] * 5})
    assert refused(found) == (502, "remote_failed")


def test_what_never_comes_is_given_up() -> None:
    found, _ = get("http://a.example/", {"a.example": [[PUBLIC]]}, {PUBLIC: [b"never"]}, seconds=0.05)
    assert refused(found) == (502, "remote_failed")


@pytest.mark.parametrize("url", ["http://", "http:///x", "http://a b/", "http://a.example:99999/", "ftp://a/", "x"])
def test_addresses_that_are_none(url: str) -> None:
    found, _ = get(url, {}, {})
    assert refused(found)[0] in (422, 502)


def test_unknown_names_and_odd_ones() -> None:
    names: Iterable[str] = ("nowhere.example", "x" * 64 + ".example", "ä" * 80)
    for name in names:
        found, _ = get(f"http://{name}/", {}, {})
        assert refused(found)[0] in (422, 502)


def test_only_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_pictures, "AT_ONCE", 0)
    found, _ = get("http://a.example/", {"a.example": [[PUBLIC]]}, {PUBLIC: [OK]})
    assert refused(found) == (429, "overloaded")
