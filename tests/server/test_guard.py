"""What every request passes first: hosts, sites, tokens, sizes, numbers, time; and what every answer carries."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from anomaly_ov_server import guard
from anomaly_ov_server.app import create_app
from anomaly_ov_server.requests import unless_gone
from anomaly_ov_server.settings import ServeSettings
from serving_core_fixtures import BASE, FakeInspector, client_of, png

PNG = {"Content-Type": "image/png"}


def refused(answer: Any, status: int, kind: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"type", "code", "message", "hint", "param"}
    assert (error["type"], error["code"]) == (kind, kind)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.fixture
def client(tmp_path: Path) -> Any:
    with client_of(tmp_path, allowed_hosts=("Inspect.Example.",)) as client:
        yield client


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("127.0.0.1:8765", True),
        ("localhost", True),
        ("LOCALHOST.:80", True),
        ("[::1]:8765", True),
        ("inspect.example", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("localhost/../x", False),
        ("[::1", False),
        ("localhost:x", False),
        ("192.168.1.5", False),
        ("", False),
    ],
)
def test_only_its_own_names_reach_it(client: TestClient, host: str, fine: bool) -> None:
    answer = client.get("/healthz", headers={"Host": host})
    if fine:
        assert answer.status_code == 200
    else:
        refused(answer, 403, "wrong_host")


def test_any_address_of_the_machine_is_its_own_when_it_listens_on_all(tmp_path: Path) -> None:
    with client_of(tmp_path, host="0.0.0.0") as client:
        assert client.get("/healthz", headers={"Host": "192.168.1.5:8765"}).status_code == 200
        refused(client.get("/healthz", headers={"Host": "evil.example"}), 403, "wrong_host")


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        ("http://127.0.0.1:8765", True),
        ("HTTP://127.0.0.1:8765", True),
        ("http://127.0.0.1", False),
        ("http://localhost:8765", False),
        ("http://evil.example", False),
        ("null", False),
        ("", False),
        ("ftp://127.0.0.1:8765", False),
    ],
)
def test_other_sites_change_nothing(client: TestClient, origin: str, fine: bool) -> None:
    answer = client.post("/v1/inspect", content=png(), headers=PNG | {"Origin": origin})
    if fine:
        assert answer.status_code == 200
    else:
        refused(answer, 403, "wrong_origin")
    assert client.get("/healthz", headers={"Origin": origin}).status_code == 200


def test_the_token_opens_and_the_cookie_stands_for_it(tmp_path: Path) -> None:
    with client_of(tmp_path, token="a-secret-token") as client:
        for path in ("/healthz", "/readyz"):
            assert client.get(path).status_code == 200
        answer = client.get("/v1/about")
        refused(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("Bearer", "Bearer a-secret-toke", "Basic a-secret-token", "Bearer \xe9"):
            refused(client.get("/v1/about", headers={"Authorization": wrong.encode("latin-1")}), 401, "unauthorized")
        for path in ("/metrics", "/openapi.json", "/v1/inspect", "/static"):
            refused(client.get(path), 401, "unauthorized")
        bearer = {"Authorization": "bearer a-secret-token"}
        assert client.get("/v1/about", headers=bearer).json()["token_required"] is True
        refused(client.post("/v1/session", json={"token": "wrong"}), 401, "unauthorized")
        refused(client.get("/v1/about", headers={"Cookie": "anomaly_ov_8765=\x7f; a"}), 401, "unauthorized")
        signed = client.post("/v1/session", json={"token": "a-secret-token"})
        assert signed.status_code == 204
        cookie = signed.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "a-secret-token" not in cookie
        assert client.get("/v1/about").status_code == 200


def test_every_answer_carries_the_headers(client: TestClient) -> None:
    for path in ("/healthz", "/nothing", "/v1/about"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer"


def test_a_body_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    with client_of(tmp_path, max_request_bytes=1000) as client:
        refused(client.post("/v1/inspect", content=b"x" * 1001, headers=PNG), 413, "too_large")
        refused(client.post("/v1/inspect", content=b"x", headers=PNG | {"Content-Length": "9" * 30}), 413, "too_large")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/session"), ("PUT", "/v1/items/i_1/decision"), ("PATCH", "/v1/batches/b_1")]
)
def test_what_takes_no_pictures_takes_no_large_body(client: TestClient, method: str, path: str) -> None:
    """Such bodies are parsed on the event loop, and signing in needs no token."""
    body = b'{"token": "' + b"x" * guard.SMALL_BODY + b'"}'
    refused(client.request(method, path, content=body, headers={"Content-Type": "application/json"}), 413, "too_large")


@pytest.mark.parametrize("kind", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_a_body_that_turns_out_too_large_is_given_up(tmp_path: Path, kind: str) -> None:
    """Sent in chunks without a length, to every way of reading a body."""

    def chunks() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 100

    with client_of(tmp_path, max_request_bytes=1000) as client:
        answer = client.post("/v1/inspect", content=chunks(), headers={"Content-Type": kind})
        refused(answer, 413, "too_large")
        assert client.post("/v1/inspect", content=png(), headers=PNG).status_code == 200


def test_all_bodies_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HELD_BODIES", 0)
    with client_of(tmp_path) as client:
        answer = client.post("/v1/inspect", content=png(), headers=PNG)
        refused(answer, 429, "overloaded")
        assert int(answer.headers["retry-after"]) > 0


def test_too_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_AT_ONCE", 0)
    with client_of(tmp_path) as client:
        refused(client.post("/v1/inspect", content=png(), headers=PNG), 429, "overloaded")
        refused(client.get("/v1/batches"), 429, "overloaded")
        for path in ("/healthz", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200


def test_an_unforeseen_failure_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(tmp_path, FakeInspector(failing=("picture",))) as client:
        answer = client.post("/v1/inspect", content=png(), headers=PNG)
        refused(answer, 500, "internal")
    assert "secret" not in answer.text
    incident = answer.json()["error"]["message"].partition("incident ")[2].rstrip(")")
    assert incident in caplog.text
    assert "secret of picture" in caplog.text


def test_a_missing_method_names_those_that_exist(client: TestClient) -> None:
    answer = client.delete("/v1/inspect")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    refused(client.get("/none/such"), 404, "not_found")


def test_requests_are_counted_by_pattern(client: TestClient) -> None:
    client.get("/healthz")
    client.get("/made/up/1")
    client.request("BREW", "/healthz")
    text = client.get("/metrics").text
    assert 'anomaly_ov_requests_total{method="GET",route="/healthz",status="200"} 1.0' in text
    assert 'anomaly_ov_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'method="other"' in text
    assert "/made/up" not in text


class Direct:
    """The application without a server between, for what a test client cannot do."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.fake = FakeInspector()
        self.app = create_app(self.fake, ServeSettings(data=folder / "data", **settings))  # type: ignore[arg-type]
        self.service = self.app.state.service

    async def __aenter__(self) -> Direct:
        self._life = self.app.router.lifespan_context(self.app)
        await self._life.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.fake.gate.set()
        await self._life.__aexit__(None, None, None)

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url=BASE)


def test_what_takes_too_long_is_told_so_and_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Direct(tmp_path, request_seconds=0.2) as direct, direct.client() as client:
            direct.fake.gate.clear()
            answers = await asyncio.gather(*(client.post("/v1/inspect", content=png(), headers=PNG) for _ in range(3)))
            for answer in answers:
                refused(answer, 503, "timed_out")
            assert direct.service.engine.waiting == 0
        assert len(direct.fake.passes) == 1

    asyncio.run(scenario())


def test_an_answer_that_has_begun_may_take_its_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Direct(tmp_path, request_seconds=0.1) as direct:

            @direct.app.get("/slow")
            async def slow() -> StreamingResponse:
                async def pieces() -> Any:
                    for _ in range(4):
                        yield b"x"
                        await asyncio.sleep(0.05)

                return StreamingResponse(pieces())

            direct.app.router.routes.insert(0, direct.app.router.routes.pop())
            async with direct.client() as client:
                assert (await client.get("/slow")).text == "xxxx"

    asyncio.run(scenario())


def test_while_stopping_new_work_is_refused_and_old_work_is_finished(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Direct(tmp_path) as direct, direct.client() as client:
            direct.fake.gate.clear()
            running = asyncio.create_task(client.post("/v1/inspect", content=png(), headers=PNG))
            await asyncio.to_thread(direct.fake.entered.acquire, timeout=10)
            direct.service.refuse()
            late = await client.post("/v1/inspect", content=png(), headers=PNG)
            refused(late, 503, "stopping")
            assert late.headers["retry-after"] == "5"
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
            direct.fake.gate.set()
            assert (await running).status_code == 200

    asyncio.run(scenario())


def test_a_full_queue_refuses_before_the_body_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Direct(tmp_path, max_waiting=1) as direct, direct.client() as client:
            direct.fake.gate.clear()
            tasks = []
            for _ in range(2):  # one in its pass, one that waits
                tasks.append(asyncio.create_task(client.post("/v1/inspect", content=png(), headers=PNG)))
                if len(tasks) == 1:
                    assert await asyncio.to_thread(direct.fake.entered.acquire, timeout=10)
            async with asyncio.timeout(10):
                while direct.service.engine.waiting < 1:
                    await asyncio.sleep(0.005)
            answer = await client.post("/v1/inspect", content=b"never looked at", headers={"Content-Type": "a/b"})
            refused(answer, 429, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            direct.fake.gate.set()
            assert [(await task).status_code for task in tasks] == [200, 200]

    asyncio.run(scenario())


def test_when_the_client_leaves_its_work_is_cancelled() -> None:
    async def scenario() -> None:
        left = asyncio.Event()
        cancelled = False

        async def receive() -> Any:
            await left.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            nonlocal cancelled
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled = True
                raise

        request = Request({"type": "http", "headers": []}, receive)
        waiting = asyncio.create_task(unless_gone(request, work()))
        await asyncio.sleep(0.01)
        left.set()
        with pytest.raises(Exception, match="the client left"):
            await waiting
        assert cancelled
        left.clear()
        assert await unless_gone(request, asyncio.sleep(0, "done")) == "done"
        with pytest.raises(ZeroDivisionError):
            await unless_gone(request, failing())

    async def failing() -> None:
        raise ZeroDivisionError

    asyncio.run(scenario())
