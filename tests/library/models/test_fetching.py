"""fetching.py against a server on this machine that stops, refuses and lies; pip is never run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import UnsafeCheckpoint, WeightsError
from anomaly_ov.models import fetching
from anomaly_ov.models.fetching import Published, fetch, fetch_wheel

DATA = bytes(range(256)) * 8000
WANTED = Published("file.bin", len(DATA), hashlib.sha256(DATA).hexdigest())


class Server(ThreadingHTTPServer):
    data, stops_after, ranges, status = DATA, None, True, 200
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.server.data) - start))
        self.end_headers()
        end = start + self.server.stops_after if self.server.stops_after else None
        self.wfile.write(self.server.data[start:end])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "PAUSE_S", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as found:
        found.asked = []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/file.bin"


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetch(url(server), WANTED, tmp_path, quiet).read_bytes() == DATA
    assert server.asked == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.stops_after = len(DATA) // 3 + 1
    assert fetch(url(server), WANTED, tmp_path, quiet).read_bytes() == DATA
    assert [asked is None for asked in server.asked] == [True, False, False]


def test_a_later_call_goes_on_from_what_is_kept(server: Server, tmp_path: Path) -> None:
    server.stops_after = len(DATA) // 8
    with pytest.raises(WeightsError, match="bytes are kept") as caught:
        fetch(url(server), WANTED, tmp_path, quiet)
    assert caught.value.hint == "the same command goes on from there"
    server.stops_after, server.asked = None, []
    assert fetch(url(server), WANTED, tmp_path, quiet).read_bytes() == DATA
    assert server.asked == [f"bytes={len(DATA) // 8 * fetching.ATTEMPTS}-"]


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    assert fetch(url(server), WANTED, tmp_path, quiet).read_bytes() == DATA


def test_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.data = DATA[::-1]
    with pytest.raises(UnsafeCheckpoint, match=WANTED.sha256):
        fetch(url(server), WANTED, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_file_ends(server: Server, tmp_path: Path) -> None:
    server.data = DATA * 3
    with pytest.raises(UnsafeCheckpoint):
        fetch(url(server), WANTED, tmp_path, lambda done, total: None)


def test_a_refusal_is_not_repeated(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(WeightsError, match=r"cannot fetch file\.bin from 127\.0\.0\.1.*404"):
        fetch(url(server), WANTED, tmp_path, quiet)
    assert len(server.asked) == 1


def test_only_addresses_of_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no address"):
        fetch("data:text/plain,hi", WANTED, tmp_path, quiet)


def test_pip_says_where_a_wheel_lies(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        report = {"install": [{"download_info": {"url": url(server)}}]}
        return subprocess.CompletedProcess(command, 0, json.dumps(report), "")

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    assert fetch_wheel("package", "1.0", WANTED, tmp_path, quiet).read_bytes() == DATA
    (command,) = seen
    assert command[1:4] == ["-m", "pip", "install"]
    assert {"--dry-run", "--no-deps", "--only-binary=:all:", "package==1.0"} <= set(command)


@pytest.mark.parametrize("why", ["refused", "silent"])
def test_where_the_address_does_not_help_pip_downloads(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    server.status = 401

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "install" in command:
            report = {"install": [{"download_info": {"url": url(server)}}]}
            return subprocess.CompletedProcess(command, 0, json.dumps(report) if why == "refused" else "", "")
        (Path(command[command.index("--dest") + 1]) / "file.bin").write_bytes(DATA)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    assert fetch_wheel("package", "1.0", WANTED, tmp_path, quiet).read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
