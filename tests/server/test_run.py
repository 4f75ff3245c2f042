"""The service in a process of its own: it says where it listens, and ends as it should."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import UsageError
from anomaly_ov.images.sources import expand
from anomaly_ov_server.run import listen, run, take_first
from anomaly_ov_server.settings import ServeSettings
from anomaly_ov_server.store.store import Store
from serving_core_fixtures import FakeInspector, client_of, png

PROGRAM = """
import sys, threading
from pathlib import Path
from anomaly_ov_server.run import run
from anomaly_ov_server.settings import ServeSettings
from serving_core_fixtures import FakeInspector

fake = FakeInspector()
fake.gate.clear()
threading.Thread(target=lambda: (sys.stdin.readline(), fake.gate.set()), daemon=True).start()
run(fake, ServeSettings(data=Path(sys.argv[1]), port=0), say=lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_it_finishes_what_it_took_when_told_to_end(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None
        answers: list[int] = []

        def post() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
            connection.request("POST", "/v1/inspect", png(), {"Content-Type": "image/png"})
            answers.append(connection.getresponse().status)

        posting = threading.Thread(target=post)
        posting.start()
        wait_for_pass(int(found[1]))
        process.send_signal(signal.SIGTERM)
        refuses_connections(int(found[1]))
        assert process.poll() is None, "it waits for what it took"
        process.stdin.write("\n")
        process.stdin.flush()
        posting.join(20)
        assert answers == [200]
        assert process.wait(20) == 0
    finally:
        process.kill()


def wait_for_pass(port: int) -> None:
    """Until the picture has reached the networks: it was counted in, and waits no more."""
    for _ in range(400):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        if "anomaly_ov_running_pictures 1.0" in text:
            return
    raise AssertionError(text)


def refuses_connections(port: int) -> None:
    for _ in range(2000):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return
    raise AssertionError("it still takes connections")


def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServeSettings(data=tmp_path / "data", port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="cannot listen on"):
            run(FakeInspector(), settings)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()
    with pytest.raises(UsageError, match="port 8765"):
        run(FakeInspector(), ServeSettings(data=tmp_path / "data", host="no.such.name.invalid"))  # type: ignore[arg-type]


def test_pictures_to_begin_with_become_a_batch_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(b"text")
    said: list[str] = []
    with client_of(tmp_path) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        for _ in range(2):
            take_first(
                service,
                expand([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "none.png"]),
                " My  parts",
                said.append,
            )
        (batch,) = client.get("/v1/batches").json()["batches"]
        with pytest.raises(UsageError):
            take_first(service, expand([tmp_path / "b.png"]), "Others", said.append)
        assert client.get("/v1/batches").json()["batches"][1:] == []
    assert (batch["name"], batch["counts"]["total"]) == ("My parts", 1)
    assert len(said) == 5
    assert "b.png" in said[0]
    assert "none.png" in said[1]


def test_small_answers_are_not_held_back(tmp_path: Path) -> None:
    """Without TCP_NODELAY every answer on a kept connection waits 40 ms for the client's acknowledgement."""
    with (
        listen(ServeSettings(data=tmp_path, port=0)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_batch_to_begin_with_is_found_among_many(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with client_of(tmp_path) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        sources = expand([tmp_path / "a.png"])
        first = take_first(service, sources, "Parts", str)
        for _ in range(101):
            service.store.create_batch("later")
        assert take_first(service, sources, "Parts", str) == first
        assert take_first(service, [], "Parts", str) is None


def test_a_start_without_usable_pictures_lets_the_folder_go(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"text")
    settings = ServeSettings(data=tmp_path / "data", port=0)
    for _ in range(2):
        with pytest.raises(UsageError, match="none of the pictures"):
            run(FakeInspector(), settings, expand([tmp_path / "b.png"]), say=str)  # type: ignore[arg-type]
    store = Store(tmp_path / "data")
    assert store.batches() == []
    store.close()


def test_the_address_leads_to_the_pictures_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, str]] = []

    class Server:
        def __init__(self, config: Any, service: Any, address: str, say: Any) -> None:
            self.service, self.address = service, address

        def run(self, sockets: Any) -> None:
            found.extend((batch.id, self.address) for batch in self.service.store.batches())
            self.service.store.close()

    monkeypatch.setattr("anomaly_ov_server.run._Server", Server)
    (tmp_path / "a.png").write_bytes(png())
    settings = ServeSettings(data=tmp_path / "data", port=0)
    run(FakeInspector(), settings, expand([tmp_path / "a.png"]), name="Parts", say=str)  # type: ignore[arg-type]
    ((batch, address),) = found
    assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/#b={batch}", address)


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    """With work under way that would never end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found is not None
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
            connection.request("POST", "/v1/inspect", png(), {"Content-Type": "image/png"})
            wait_for_pass(int(found[1]))
            process.send_signal(signal.SIGINT)
            assert "Ctrl-C again" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 130
        finally:
            process.kill()
