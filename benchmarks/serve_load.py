"""The service under load: ``python benchmarks/serve_load.py``.

Starts ``anomaly-ov serve`` as a process, posts pictures from another one, and measures

* throughput: 8 clients that post as fast as they are answered, against ``Inspector.stream`` over the same pictures in
  this process, in turns; nothing else runs meanwhile;
* latency: requests at random moments (Poisson), half as many per second as it can take, against the median time of
  ``Inspector.inspect`` here;
* overload: ten times as many per second as it can take: statuses, the server's memory, and the time until it answers
  as on a quiet day once the load has gone;
* 2,000 malformed requests: no 500, nothing of the inside in any answer, alive afterwards.

Writes ``results/serve-load.json``.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from anomaly_ov.inspector import Inspector, load
from common import make_pictures, report
from malformed import Malformed, malformed

THROUGHPUT, LATENCY, RECOVERY = 0.85, 3.0, 5.0
CLIENTS, OVERLOAD_CLIENTS = 8, 600
ALLOWED = {200, 429, 503}
LEAKS = re.compile(rb"Traceback|File \"|site-packages|\.py\b|/home/|/tmp/|/usr/|/root/", re.ASCII)
STARTUP_SECONDS = 120
Rows = dict[str, tuple[float | str, str]]


class Server:
    """The service in a process of its own, on a free port, with a data folder of its own."""

    def __init__(self, data: Path, model: str, log: Path) -> None:
        command = [str(Path(sys.executable).parent / "anomaly-ov"), "serve", "--host", "127.0.0.1", "--port", "0"]
        command += ["--data", str(data), "--model", model]
        self.log = log
        self._process = subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT)
        self.host, self.port = "127.0.0.1", self._listening()
        self.memory = psutil.Process(self._process.pid)

    def _listening(self) -> int:
        """The port that it says; it may take a while to load the model."""
        end = time.monotonic() + STARTUP_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", self.log.read_text(errors="replace")):
                return int(found[1])
            time.sleep(0.1)
        self._process.kill()
        raise SystemExit(f"the service did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def ask(self, request: Malformed, timeout: float = 60) -> tuple[int, bytes]:
        """Status, head and body of an answer; status 0 for a connection that was closed without one."""
        if request.raw is not None:
            return self._raw(request.raw)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.putrequest(request.method, request.path, skip_host="Host" in request.headers)
            connection.putheader("Content-Length", str(len(request.body)))
            for name, value in request.headers.items():
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders(request.body)
            answer = connection.getresponse()
            return answer.status, str(answer.headers).encode() + answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def _raw(self, data: bytes) -> tuple[int, bytes]:
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=5) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(OSError):
                while part := connection.recv(65536):
                    answer += part
            found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
            return (int(found[1]) if found else 0), answer
        return 0, b""

    def inspect(self, picture: bytes) -> float | None:
        """Seconds until a picture's finding is there; None without one."""
        started = time.perf_counter()
        status, _ = self.ask(Malformed("sound", headers={"Content-Type": "image/jpeg"}, body=picture))
        return time.perf_counter() - started if status == 200 else None

    def end(self) -> int:
        """Asks it to end, as a system would; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=60)
        finally:
            self._process.kill()


def load_from(server: Server, pictures: Path, seconds: float, clients: int, rate: float, **more: Any) -> dict[str, Any]:
    """What ``clients`` in a process of their own met; ``rate``: all together, per second, 0 as fast as they can."""
    plan = {"host": server.host, "port": server.port, "pictures": str(pictures), "seconds": seconds}
    plan |= {"clients": clients, "rate": rate, "seed": 1, "leave": False} | more
    script = Path(__file__).with_name("serve_clients.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=seconds + 180,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def streamed(inspector: Inspector, paths: list[Path], seconds: float, batch_size: int) -> float:
    """Pictures per second of ``Inspector.stream``."""
    started = time.perf_counter()

    def endless() -> Iterator[str]:
        for path in cycle(paths):
            if time.perf_counter() - started >= seconds:
                return
            yield str(path)

    count = sum(1 for _ in inspector.stream(endless(), batch_size))
    return count / (time.perf_counter() - started)


def throughput(
    inspector: Inspector, server: Server, paths: list[Path], seconds: float, rounds: int
) -> tuple[Rows, float]:
    """The service against the stream, in turns; and pictures per second of the service."""
    each, pairs = seconds / rounds, []
    for _ in range(rounds):
        direct = streamed(inspector, paths, each, 8)
        met = load_from(server, paths[0].parent, each, CLIENTS, 0)
        pairs.append((len(met["seconds"]) / max(met["last"], each), direct))
    served, direct = (float(np.mean(rates)) for rates in zip(*pairs, strict=True))
    ratio = median(one / other for one, other in pairs)
    return {
        "throughput, service / stream": (ratio, f"median of {rounds} rounds in turns; target >= {THROUGHPUT}"),
        "service, pictures per second": (served, f"{CLIENTS} clients, {seconds:g} s, 640 x 480 JPEG"),
        "stream, pictures per second": (direct, "the same pictures, batches of 8"),
    }, served


def latency(inspector: Inspector, server: Server, paths: list[Path], seconds: float, capacity: float) -> Rows:
    """At half of what it can take, arriving at random."""
    times = []
    for path in paths[:10]:
        started = time.perf_counter()
        inspector.inspect(path)
        times.append(time.perf_counter() - started)
    direct = median(times)
    met = load_from(server, paths[0].parent, seconds, 4 * CLIENTS, capacity / 2)
    p50, p95 = np.percentile(met["seconds"], (50, 95)) if met["seconds"] else (float("nan"),) * 2
    return {
        "latency, p95 / one direct inspection": (float(p95 / direct), f"target <= {LATENCY:g}"),
        "latency, p50 / one direct inspection": (float(p50 / direct), ""),
        "one direct inspection, ms": (direct * 1000, "median of 10"),
        "latency, p95 ms": (float(p95) * 1000, f"{len(met['seconds'])} requests at random moments"),
        "latency, requests per second": (met["sent"] / seconds, "half of what it can take"),
        "latency, statuses": (_told(met["statuses"]), ""),
    }


@contextmanager
def watched(server: Server) -> Iterator[list[int]]:
    """The server's resident bytes, looked at five times a second."""
    seen, over = [server.memory.memory_info().rss], threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            seen.append(server.memory.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def overload(server: Server, paths: list[Path], seconds: float, capacity: float) -> Rows:
    """Ten times what it can take, from clients that vanish at the end."""
    picture = paths[0].read_bytes()
    quiet = [found for found in (server.inspect(picture) for _ in range(5)) if found]
    usual = median(quiet) if quiet else float("nan")
    with watched(server) as seen:
        met = load_from(server, paths[0].parent, seconds, OVERLOAD_CLIENTS, 10 * capacity, leave=True)
    over = time.perf_counter()
    while not ((found := server.inspect(picture)) and found <= 2 * usual):
        if time.perf_counter() - over > 60:
            break
    recovered = time.perf_counter() - over
    first, second = max(seen[: len(seen) // 2 + 1]), max(seen[len(seen) // 2 :])
    strange = {status for status in map(int, met["statuses"]) if status not in ALLOWED}
    return {
        "overload, offered / capacity": (met["sent"] / seconds / capacity, "answered requests; 10 asked for"),
        "overload, statuses": (_told(met["statuses"]), "target: only 200, 429, 503"),
        "overload, other statuses": (len(strange), "target 0"),
        "overload, served per second / capacity": (len(met["seconds"]) / seconds / capacity, ""),
        "overload, memory before, MB": (seen[0] / 1e6, "resident"),
        "overload, memory peak of the first half, MB": (first / 1e6, ""),
        "overload, memory peak of the second half, MB": (second / 1e6, "bounded: no more than in the first"),
        "overload, recovered within, s": (recovered, f"first answer in twice the usual time; target <= {RECOVERY:g}"),
    }


def bad_input(server: Server, paths: list[Path], count: int, seed: int) -> Rows:
    """Malformed requests, one after the other."""
    kinds: Counter[str] = Counter()
    failures, leaks = [], []
    for request in malformed(count, seed):
        status, answer = server.ask(request)
        kinds[str(status)] += 1
        # The address is the client's own word; what else looks like a path is ours.
        told = answer.replace(request.path.encode("latin-1", "replace"), b"")
        if status >= 500 and status != 503:
            failures.append(request)
        if LEAKS.search(told):
            leaks.append((request, LEAKS.search(told)))
    for failure in [*failures, *leaks][:5]:
        print(f"not as it should be: {str(failure)[:400]}", file=sys.stderr)
    alive = server.inspect(paths[0].read_bytes()) is not None
    return {
        "bad input, requests": (count, "malformed requests and files"),
        "bad input, statuses": (_told(kinds), "0: closed without an answer, where it was no HTTP"),
        "bad input, failures of the service": (len(failures), "target 0"),
        "bad input, leaks": (len(leaks), "traces, paths or source files in an answer; target 0"),
        "bad input, alive": (str(alive), "a sound picture is inspected afterwards"),
    }


def _told(statuses: dict[Any, int]) -> str:
    return ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items(), key=lambda one: str(one[0])))


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    seconds: Annotated[float, typer.Option(help="Of each load.")] = 60.0,
    rounds: Annotated[int, typer.Option(help="Turns of the throughput.")] = 3,
    requests: Annotated[int, typer.Option(help="Malformed requests.")] = 2000,
    count: Annotated[int, typer.Option(help="Different pictures.")] = 32,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    inspector = load(model)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        paths = make_pictures(pictures, count, 640, 480, seed)
        server = Server(Path(folder) / "data", model, Path(folder) / "log")
        try:
            for path in paths[:4]:
                inspector.inspect(path)
                server.inspect(path.read_bytes())
            rows, capacity = throughput(inspector, server, paths, seconds, rounds)
            rows |= latency(inspector, server, paths, seconds, capacity)
            rows |= overload(server, paths, seconds, capacity)
            rows |= bad_input(server, paths, requests, seed)
        finally:
            left = server.end()
        rows["exit status after SIGTERM"] = (left, "target 0")
    rows["model"] = (inspector.info.name, inspector.info.revision)
    report("serve-load", rows, seed, write)


if __name__ == "__main__":
    typer.run(main)
