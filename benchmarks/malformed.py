"""Requests that no client should send, the same for the same seed: wrong bodies, wrong files, wrong HTTP."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

PATHS = ("/v1/inspect", "/v1/batches", "/v1/chat/completions", "/v1/session")
JUNK = (
    "../../etc/passwd",
    "%00",
    "%2e%2e/%2e%2e",
    "\udcff",
    "'\"<script>",
    "A" * 5000,
    "i_" + "0" * 40,
    "-1",
    "NaN",
    "",
)


@dataclass(frozen=True)
class Malformed:
    """One request, or ``raw`` bytes for the socket."""

    kind: str
    method: str = "POST"
    path: str = "/v1/inspect"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None


def malformed(count: int, seed: int) -> Iterator[Malformed]:
    """``count`` requests, all kinds in turn."""
    generator = random.Random(seed)
    for index in range(count):
        make = KINDS[index % len(KINDS)]
        yield make(generator)


def _picture(generator: random.Random, format: str) -> bytes:
    pixels_HW3 = np.frombuffer(generator.randbytes(24 * 32 * 3), np.uint8).reshape(24, 32, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, format)
    return buffer.getvalue()


def _raw_picture(generator: random.Random, body: bytes) -> Malformed:
    kind = generator.choice(("image/jpeg", "image/png", "image/x-no-such-thing", "application/octet-stream"))
    return Malformed("picture", headers={"Content-Type": kind}, body=body)


def cut_picture(generator: random.Random) -> Malformed:
    """A file that ends too early."""
    whole = _picture(generator, generator.choice(("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")))
    return _raw_picture(generator, whole[: generator.randrange(len(whole) // 2)])


def damaged_picture(generator: random.Random) -> Malformed:
    """A file whose header says nonsense."""
    data = bytearray(_picture(generator, generator.choice(("PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG"))))
    for _ in range(12):
        data[generator.randrange(4, min(64, len(data)))] = generator.randrange(256)
    return _raw_picture(generator, bytes(data))


def bomb(generator: random.Random) -> Malformed:
    """A PNG that claims far more pixels than it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = generator.choice((2**16, 2**20, 2**31 - 1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return _raw_picture(generator, body)


def noise(generator: random.Random) -> Malformed:
    """Bytes of no kind under a name of some kind."""
    kinds = ("image/png", "application/json", "multipart/form-data; boundary=x", "text/plain", "a/b; c=\xff", "")
    body = generator.randbytes(generator.randrange(2000))
    return Malformed(
        "noise", path=generator.choice(PATHS), headers={"Content-Type": generator.choice(kinds)}, body=body
    )


def wrong_json(generator: random.Random) -> Malformed:
    """JSON of another shape, deep, huge or not JSON at all."""
    inline = base64.b64encode(generator.randbytes(50)).decode()
    texts = (
        "{",
        "[" * 5000,
        "null",
        "[]",
        '{"images": 5}',
        '{"images": []}',
        '{"images": [{}]}',
        '{"images": [{"data": 1}]}',
        json.dumps({"images": [{"data": inline[:-3]}]}),
        json.dumps({"images": [{"data": inline, "name": "../../x\x00" + generator.choice(JUNK)}]}),
        json.dumps({"images": [{"url": "http://169.254.169.254/latest"}]}),
        json.dumps({"images": [{"url": "file:///etc/passwd"}]}),
        json.dumps({"images": [{"data": inline}] * 100}),
        '{"images": [{"data": "\\ud800"}]}',
        json.dumps({"model": "tiny", "messages": [{"role": "user", "content": generator.choice(JUNK)}]}),
        json.dumps({"messages": "x", "stream": "maybe", "max_tokens": -1}),
        json.dumps(
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}
        ),
        '{"name": ' + "9" * 5000 + "}",
        '{"token": [1, 2]}',
    )
    body = generator.choice(texts).encode("utf-8", "surrogatepass")
    return Malformed("json", path=generator.choice(PATHS), headers={"Content-Type": "application/json"}, body=body)


def wrong_form(generator: random.Random) -> Malformed:
    """Multipart with parts that are missing, unnamed, endless or too many."""
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    bodies = (
        b"",
        b"--x--\r\n",
        part,
        part + b"abc\r\n--x",
        part + b"abc\r\n--x--\r\n",
        part.replace(b'; filename="a.png"', b"") + b"text\r\n--x--\r\n",
        part.replace(b'name="file"; ', b"") + b"abc\r\n--x--\r\n",
        part.replace(b"a.png", b"../" * 200 + b"\xff\xfe") + b"abc\r\n--x--\r\n",
        (part + b"abc\r\n") * 100 + b"--x--\r\n",
        b"--x\r\n" + b"X-Header: y\r\n" * 500 + b"\r\nabc\r\n--x--\r\n",
    )
    boundary = generator.choice(("; boundary=x", "", "; boundary=" + "y" * 300, "; boundary=x; charset=no-such"))
    headers = {"Content-Type": "multipart/form-data" + boundary}
    return Malformed("form", path=generator.choice(PATHS[:2]), headers=headers, body=generator.choice(bodies))


def wrong_address(generator: random.Random) -> Malformed:
    """Names, numbers and methods that do not exist."""
    junk = generator.choice(JUNK).encode("utf-8", "surrogateescape").decode("latin-1")
    junk = "".join(letter if letter.isascii() and letter.isprintable() and letter != " " else "%ff" for letter in junk)
    pattern = generator.choice(
        (
            "/v1/items/{}",
            "/v1/items/{}/thumbnail",
            "/v1/batches/{}/items?limit={}&offset={}",
            "/v1/batches/{}/results?format={}",
            "/v1/inspect?map={}",
            "/static/{}",
            "/{}",
        )
    )
    method = generator.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "BREW"))
    return Malformed("address", method=method, path=pattern.replace("{}", junk))


def wrong_head(generator: random.Random) -> Malformed:
    """Headers of another host, another site, another size."""
    headers = generator.choice(
        (
            {"Host": "evil.example"},
            {"Host": ""},
            {"Host": "[::1"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Authorization": "Bearer \xff"},
            {"Cookie": "a=" + "\x7f" * 100},
            {"Content-Encoding": "gzip"},
            {"If-None-Match": "*" * 1000},
            {"Range": "bytes=-5"},
        )
    )
    return Malformed("head", headers={"Content-Type": "image/png"} | headers, body=b"abc")


def no_http(generator: random.Random) -> Malformed:
    """Bytes on the socket that are no request."""
    raws = (
        generator.randbytes(300),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999999\r\n\r\nabc",
        b"POST /v1/inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 50\r\n\r\nabc",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"POST /v1/inspect HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 5\r\nHost: x\r\n\r\nabc",
    )
    return Malformed("socket", raw=generator.choice(raws))


KINDS: tuple[Callable[[random.Random], Malformed], ...] = (
    cut_picture,
    damaged_picture,
    bomb,
    noise,
    wrong_json,
    wrong_form,
    wrong_address,
    wrong_head,
    no_http,
    wrong_json,
)
