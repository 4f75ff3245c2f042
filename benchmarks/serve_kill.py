"""Kills the service with SIGKILL at random moments of a batch: is every accepted picture scored exactly once?

A client uploads pictures a few at a time, about as fast as they are scored, and decides about some; whatever request
fails is sent again after the restart, as a script on a line would. The moments lie at random numbers of scored
pictures, each plus a random wait, so they hit uploads, scoring, writing and starting. At the end the results as
downloaded, the database and the folder are compared with what was accepted, and the scores with a direct run.
"""

from __future__ import annotations

import json
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from anomaly_ov import load
from common import make_pictures, report

READY_SECONDS = 180
END_SECONDS = 900
EACH, AHEAD = 5, 20
LONGEST_WAIT = 0.5
START = "import sys; from anomaly_ov.cli.main import main; sys.argv[0] = 'anomaly-ov'; main()"
GONE = (httpx.TransportError, httpx.HTTPStatusError)


class Service:
    """The process under test, on a port of its own each time."""

    def __init__(self, data: Path, log: Path, model: str) -> None:
        self.data, self._log, self._model = data, log, model
        self.starts: list[float] = []
        self.url = ""

    def start(self) -> None:
        """Returns once it says that it is ready."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        began = time.perf_counter()
        options = ["--host", "127.0.0.1", "--port", str(port), "--data", str(self.data), "--model", self._model]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", START, "serve", *options], stdout=log, stderr=log)
        while time.perf_counter() - began < READY_SECONDS and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    self.starts.append(time.perf_counter() - began)
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise SystemExit(f"the service does not start:\n{self._log.read_text()[-2000:]}")

    def kill_at(self, scored: int, batch: str, wait: float) -> threading.Thread:
        """Kills it ``wait`` seconds after so many pictures were scored."""

        def watch() -> None:
            while _done(httpx.get(f"{self.url}/v1/batches/{batch}", timeout=60)) < scored:
                time.sleep(0.02)
            time.sleep(wait)
            self.process.kill()

        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    def end(self) -> int:
        """Asks it to end; its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)


class Line:
    """The client: what is left to send, and what the service has acknowledged."""

    def __init__(self, pictures: list[Path], batch: str, chance: random.Random) -> None:
        self._left, self._batch, self._chance = list(pictures), batch, chance
        self.accepted: dict[str, str] = {}
        self.verdicts: dict[str, str] = {}
        self.unsure: set[str] = set()
        self.failed_requests = 0

    def work(self, url: str) -> bool:
        """Goes on until all is scored (True) or the service has gone."""
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                while True:
                    done = _done(client.get(f"/v1/batches/{self._batch}"))
                    if self._left and len(self.accepted) - done < AHEAD:
                        self._send(client)
                    elif not self._left and done == len(self.accepted):
                        return True
                    else:
                        time.sleep(0.02)
        except GONE:
            self.failed_requests += 1
            return False

    def _send(self, client: httpx.Client) -> None:
        files = [("file", (path.name, path.read_bytes(), "image/jpeg")) for path in self._left[:EACH]]
        items = client.post(f"/v1/batches/{self._batch}/pictures", files=files).raise_for_status().json()["items"]
        self.accepted |= {item["id"]: item["sha256"] for item in items}
        del self._left[:EACH]
        item, verdict = self._chance.choice(items)["id"], self._chance.choice(["normal", "anomalous"])
        self.unsure.add(item)  # it may be decided although no answer comes
        client.put(f"/v1/items/{item}/decision", json={"verdict": verdict}).raise_for_status()
        self.verdicts[item] = verdict


def _done(reply: httpx.Response) -> int:
    counts = reply.raise_for_status().json()["counts"]
    return int(counts["done"] + counts["failed"])


def run(service: Service, pictures: list[Path], kills: int, seed: int) -> tuple[Line, str, list[int], float]:
    """The client, the batch, how many pictures were scored at each kill, and the seconds that all took."""
    chance = random.Random(seed)
    moments = sorted(chance.randrange(len(pictures)) for _ in range(kills))
    began = time.perf_counter()
    service.start()
    batch = httpx.post(f"{service.url}/v1/batches", json={"name": "killed"}).raise_for_status().json()["id"]
    line = Line(pictures, batch, chance)
    scored = []
    for moment in moments:
        killer = service.kill_at(moment, batch, chance.uniform(0, LONGEST_WAIT))
        while service.process.poll() is None:
            if line.work(service.url):
                time.sleep(0.01)
        killer.join()
        scored.append(_in_store(service.data, "SELECT count(*) FROM finding")[0][0])
        service.start()
    while not line.work(service.url):
        if time.perf_counter() - began > END_SECONDS:
            raise SystemExit("the batch does not end")
    return line, batch, scored, time.perf_counter() - began


def _in_store(data: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(data / "store.sqlite3")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def compare(service: Service, line: Line, batch: str, pictures: list[Path], model: str) -> dict[str, tuple[Any, str]]:
    """What is there against what was accepted, and against a direct run."""
    reply = httpx.get(f"{service.url}/v1/batches/{batch}/results", params={"format": "jsonl"}, timeout=60)
    rows = [json.loads(text) for text in reply.raise_for_status().text.splitlines()]
    shown = Counter(_digest(row) for row in rows)
    items = (
        httpx.get(f"{service.url}/v1/batches/{batch}/items", params={"limit": 500}).raise_for_status().json()["items"]
    )
    status = service.end()
    findings = dict(_in_store(service.data, "SELECT item, count(*) FROM finding GROUP BY item"))
    files = {path.name for path in (service.data / "pictures").rglob("*") if path.is_file()}
    digests = set(line.accepted.values())
    direct = {finding.image.sha256: finding.score for finding in load(model).stream(pictures)}
    verdicts = {item["id"]: item["decision"]["verdict"] for item in items if item["decision"]}
    return {
        "pictures accepted": (len(line.accepted), f"of {len(pictures)} sent"),
        "rows in the results": (len(rows), "JSONL as downloaded"),
        "accepted, not in the results": (len(digests - shown.keys()), "target 0"),
        "in the results more than once": (sum(count > 1 for count in shown.values()), "target 0"),
        "rows without a score": (sum(_score(row) is None for row in rows), "target 0"),
        "findings in the store": (sum(findings.values()), f"{sum(n > 1 for n in findings.values())} twice, target 0"),
        "files without a row, rows without a file": (len(files ^ digests), "target 0"),
        "decisions acknowledged": (len(line.verdicts), ""),
        "decisions lost or changed": (sum(verdicts.get(i) != v for i, v in line.verdicts.items()), "target 0"),
        "decisions never asked for": (len(verdicts.keys() - line.unsure), "target 0"),
        "largest difference to a direct run": (
            max(abs(item["score"] - (direct[item["sha256"]] or 0)) for item in items),
            "of a score",
        ),
        "integrity check": (_in_store(service.data, "PRAGMA integrity_check")[0][0], "SQLite"),
        "exit status when asked to end": (status, ""),
    }


def _digest(row: dict[str, Any]) -> str:
    return str(row["image"]["sha256"] if row.get("image") else row["sha256"])


def _score(row: dict[str, Any]) -> float | None:
    score: float | None = row.get("score")
    return score


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    count: Annotated[int, typer.Option(min=1, max=500, help="Pictures of the batch.")] = 200,
    kills: Annotated[int, typer.Option(help="Random moments.")] = 20,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="Write results/serve-kill.json.")] = True,
) -> None:
    """Measures, prints, writes."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "pictures"
        place.mkdir()
        pictures = make_pictures(place, count, 640, 480, seed)
        service = Service(Path(folder) / "data", Path(folder) / "log", model)
        line, batch, scored, seconds = run(service, pictures, kills, seed)
        rows: dict[str, tuple[float | str, str]] = {
            "kills": (kills, f"SIGKILL; findings there at each: {' '.join(map(str, scored))}"),
            "requests that a kill cut off": (line.failed_requests, "sent again after the restart"),
            **compare(service, line, batch, pictures, model),
            "seconds in all": (seconds, ""),
            "longest start": (max(service.starts), "seconds until ready, after a kill"),
        }
    report("serve-kill", rows, seed, write)


if __name__ == "__main__":
    typer.run(main)
