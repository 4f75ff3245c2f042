"""The load of ``serve_load.py``, in a process of its own: threads that post ready-made bodies over kept connections.

Reads one JSON object from standard input, prints one JSON object. Standard library only, so that it costs the server
little of the machine.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

threading.stack_size(256 * 1024)


class Client(threading.Thread):
    """Posts one picture after the other until the end; ``rate``: per second at random moments, 0 as fast as it can."""

    def __init__(self, index: int, plan: dict[str, Any], bodies: list[bytes]) -> None:
        super().__init__(daemon=True)
        self._plan, self._bodies, self._random = plan, bodies, random.Random(plan["seed"] * 10_000 + index)
        self._index = index
        self.answers: list[tuple[int, float, float]] = []  # status (0: none came), seconds, when it came
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        due = begin = time.perf_counter()
        end, rate = begin + self._plan["seconds"], self._plan["rate"] / self._plan["clients"]
        while True:
            if rate:
                # A turn that comes while the last is unanswered is left out, not made up for.
                due = max(due, time.perf_counter()) + self._random.expovariate(rate)
                time.sleep(max(0.0, min(due, end) - time.perf_counter()))
            if time.perf_counter() >= end:
                return
            self._post(begin)

    def _post(self, begin: float) -> None:
        body = self._bodies[(self._index + len(self.answers) * self._plan["clients"]) % len(self._bodies)]
        started = time.perf_counter()
        kept = self._connection is not None
        status = self._status(body)
        if status == 0 and kept:  # a server may close a kept connection while it rests; every client then tries anew
            status = self._status(body)
        now = time.perf_counter()
        self.answers.append((status, now - started, now - begin))
        if status != 200 and not self._plan["rate"]:
            time.sleep(0.2)

    def _status(self, body: bytes) -> int:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._plan["host"], self._plan["port"], timeout=60)
            self._connection.request("POST", "/v1/inspect", body, {"Content-Type": "image/jpeg"})
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection = None
            return 0
        return answer.status


def main() -> None:
    """Runs all clients and tells what they met."""
    plan = json.load(sys.stdin)
    bodies = [path.read_bytes() for path in sorted(Path(plan["pictures"]).iterdir())]
    clients = [Client(index, plan, bodies) for index in range(plan["clients"])]
    for client in clients:
        client.start()
    time.sleep(plan["seconds"])
    if plan["leave"]:  # mid-way, as a process that is ended would
        answers = [answer for client in clients for answer in list(client.answers)]
    else:
        for client in clients:
            client.join()
        answers = [answer for client in clients for answer in client.answers]
    statuses: dict[int, int] = {}
    for status, _, _ in answers:
        statuses[status] = statuses.get(status, 0) + 1
    served = [(seconds, at) for status, seconds, at in answers if status == 200]
    print(
        json.dumps(
            {
                "statuses": statuses,
                "sent": len(answers),
                "seconds": [seconds for seconds, _ in served],
                "last": max((at for _, at in served), default=plan["seconds"]),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
