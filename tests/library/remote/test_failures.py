"""What goes wrong between us and a server ends in one clear error that never holds the key."""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from anomaly_ov.errors import EndpointError, EndpointRefused
from anomaly_ov.remote import wire
from anomaly_ov.remote.endpoint import Endpoint, EndpointConfig
from anomaly_ov.remote.failures import MAX_QUOTED, failure_of, shortened
from anomaly_ov.remote.limits import Clock
from remote_fixtures import (
    KEY,
    KEY_ENV,
    FakeTime,
    Scripted,
    Server,
    chunk,
    events,
    failing,
    finding,
    ok,
    serving,
    streamed,
)

PIXELS_HW3 = np.zeros((80, 100, 3), np.uint8)
JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def connected(*script: Scripted, clock: Clock | None = None, **config: Any) -> Iterator[tuple[Endpoint, Server]]:
    settings = {"api_key_env": KEY_ENV, "timeout_s": 5.0, "retries": 2} | config
    with serving(*script) as server:
        settings = {"base_url": server.url, "model": "brain-1"} | settings
        with Endpoint(EndpointConfig(**settings), clock=clock or FakeTime().clock) as endpoint:
            yield endpoint, server


def ask(endpoint: Endpoint, stream: bool = False) -> Any:
    if stream:
        return list(endpoint.ask_stream(finding(), PIXELS_HW3, "Is it broken?"))
    return endpoint.ask(finding(), PIXELS_HW3, "Is it broken?")


def error_of(*script: Scripted, stream: bool = False, requests: int = 1, **config: Any) -> EndpointError:
    """The error that a question ends in; after ``requests`` requests, without the key anywhere."""
    with connected(*script, **config) as (endpoint, server):
        with pytest.raises(EndpointError) as caught:
            ask(endpoint, stream)
        assert len(server.bodies) == requests
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.hint
    assert KEY not in shown
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "kind", "part", "hint"),
    [
        (
            failing(401, f"Incorrect API key: {KEY}"),
            EndpointRefused,
            f"the key in {KEY_ENV}",
            f"set {KEY_ENV}",
        ),
        (failing(403, KEY), EndpointRefused, "does not permit", KEY_ENV),
        (failing(404, "The model `brain-1` does not exist"), EndpointRefused, "knows no model 'brain-1'", "/v1"),
        (failing(400, "nope", "model_not_found"), EndpointRefused, "knows no model", "model"),
        (failing(402, "pay"), EndpointRefused, "quota", "account"),
        (failing(429, "no money", "insufficient_quota"), EndpointRefused, "quota", "account"),
        (failing(400, "policy", "content_filter"), EndpointError, "withheld its answer: policy", "other words"),
        (failing(400, "x", "context_length_exceeded"), EndpointError, "too long for 'brain-1'", "image_side"),
        (failing(400, "exceeds the maximum context length"), EndpointError, "too long", "max_tokens"),
        (failing(413, "big"), EndpointError, "too long", "image_side"),
        (failing(422, "temperature must be 1"), EndpointError, "(status 422)", "temperature to null"),
        (failing(418, f"{KEY} teapot"), EndpointError, "*** teapot", "check"),
        (Scripted(b"<html>\n<b>Bad</b>", 400, {"Content-Type": "text/html"}), EndpointError, "<html> <b>Bad", "check"),
        (Scripted(b"", 400, {}), EndpointError, "no reason given", "check"),
        (Scripted(b'{"detail": [{"loc": "x"}]}', 422, JSON), EndpointError, "loc", "check"),
    ],
)
def test_refusals_are_not_repeated(
    reply: Scripted, kind: type[EndpointError], part: str, hint: str, stream: bool
) -> None:
    error = error_of(reply, stream=stream)
    assert type(error) is kind
    assert part in error.message
    assert hint in error.hint


@pytest.mark.parametrize("status", [500, 502, 503, 529, 408, 409])
def test_servers_own_errors_until_giving_up(status: int) -> None:
    error = error_of(*[failing(status, f"oops {KEY}")] * 3, requests=3)
    assert type(error) is EndpointError
    assert f"status {status} after 3 attempts: oops ***" in error.message


def test_no_retries_when_none_are_wanted() -> None:
    assert "attempts" not in error_of(failing(500), retries=0).message


def test_too_many_requests_for_too_long() -> None:
    error = error_of(*[failing(429, "slow down")] * 3, requests=3)
    assert "limits how often it is asked after 3 attempts: slow down" in error.message
    assert "requests_per_minute" in error.hint


def test_a_pause_that_is_too_long_is_not_waited_for() -> None:
    time = FakeTime()
    error = error_of(failing(429, "see you", Retry_After="3600"), clock=time.clock)
    assert "wants a pause of 3600 s" in error.message
    assert time.slept == []


def test_a_long_pause_after_a_servers_error_is_cut() -> None:
    time = FakeTime()
    with connected(failing(503, Retry_After="3600"), ok(), clock=time.clock) as (endpoint, _):
        ask(endpoint)
    assert time.slept == [120]


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_listens(stream: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        error = error_of(base_url=url, stream=stream, requests=0)
    assert f"cannot reach {url} after 3 attempts" in error.message
    assert "server runs" in error.hint


@pytest.mark.parametrize(
    ("reply", "stream"),
    [
        (Scripted(b"{}", headers=JSON, delay=1.5), False),
        (Scripted(b"{}", headers=JSON, delay=1.5), True),
        (Scripted([b" "] * 30, headers=JSON, pause=0.1), False),  # never silent for long, never done
        (Scripted([b": still here\n\n"] * 30, headers=EVENTS, pause=0.1), True),
        (Scripted([b" ", b"{}"], headers=JSON, pause=1.5), False),
        (Scripted(events(chunk("Yes"), chunk("no")), headers=EVENTS, pause=1.5), True),
    ],
    ids=["silence", "silence-stream", "drip", "comments", "pause", "pause-stream"],
)
def test_time_outs(reply: Scripted, stream: bool) -> None:
    begun = time.monotonic()
    error = error_of(reply, stream=stream, timeout_s=0.4, clock=Clock())
    assert "did not answer within 0.4 s" in error.message
    assert time.monotonic() - begun < 1.4


def test_a_slow_stream_that_keeps_talking_is_no_time_out() -> None:
    pieces = events(*[chunk(word) for word in "abcdef"], chunk(None, "stop"))
    with connected(Scripted(pieces, headers=EVENTS, pause=0.1), timeout_s=0.4, clock=Clock()) as (endpoint, _):
        assert ask(endpoint, stream=True) == [*"abcdef"]


def test_a_slow_reader_is_no_time_out() -> None:
    slow = Scripted(events(chunk("a"), chunk("b"), chunk(None, "stop")), headers=EVENTS, pause=0.1)
    with connected(slow, timeout_s=0.3, clock=Clock()) as (endpoint, _):
        stream = endpoint.ask_stream(finding(), PIXELS_HW3, "Is it broken?")
        next(stream)
        time.sleep(0.5)
        assert list(stream) == ["b"]


def test_a_time_out_is_paid_for() -> None:
    with connected(Scripted(delay=1.0), timeout_s=0.2, price_out=1e6, max_tokens=50) as (endpoint, _):
        with pytest.raises(EndpointError):
            ask(endpoint)
        assert endpoint.spent == 50


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (Scripted(b"{", headers=JSON), "application/json that is no JSON"),
        (Scripted(b"", headers=JSON), "no JSON"),
        (Scripted(b"[" * 100_000, headers=JSON), "no JSON"),
        (Scripted(b"\xff\xfe", headers=JSON), "UTF-8"),
        (
            Scripted(b"<html>Log in", headers={"Content-Type": "text/html; charset=x"}),
            "text/html that is no JSON",
        ),
        (Scripted(b"hello", headers={}), "something that is no JSON"),
        (Scripted(b"{}", headers=JSON), "no choices"),
        (Scripted(b'"text"', headers=JSON), "no JSON object"),
        (Scripted(b'{"choices": []}', headers=JSON), "no choices"),
        (ok(None), "empty"),
        (streamed(b"{"), "text/event-stream that is no JSON"),
        (streamed(b"[1]"), "no JSON object"),
    ],
)
def test_malformed(reply: Scripted, part: str, stream: bool) -> None:
    error = error_of(reply, stream=stream)
    assert "chat-completions format" in error.message
    assert part in error.message
    assert "base_url" in error.hint


def test_json_by_another_name_will_do() -> None:
    body = ok("Fine.").body
    with connected(Scripted(body, headers={"Content-Type": "text/plain"})) as (endpoint, _):
        assert ask(endpoint).text == "Fine."


def test_a_reply_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_REPLY_BYTES", 10_000)
    assert "exceeds 10000 bytes" in error_of(Scripted(b" " * 10_001, headers=JSON)).message
    assert "exceeds" in error_of(Scripted(b"data: " + b"x" * 10_000, headers=EVENTS), stream=True).message


def test_a_cut_reply_is_asked_for_again() -> None:
    cut = Scripted(b'{"choices"', headers=JSON, cut=True)
    assert "broke off after 3 attempts" in error_of(cut, cut, cut, requests=3).message
    with connected(cut, ok("Whole.")) as (endpoint, _):
        assert ask(endpoint).text == "Whole."


def test_a_stream_that_has_spoken_is_not_repeated() -> None:
    spoken = events(chunk("Yes"), done=False)
    assert "broke off" in error_of(Scripted(spoken, headers=EVENTS, cut=True), ok(), stream=True).message
    assert "broke off" in error_of(Scripted(spoken, headers=EVENTS), ok(), stream=True).message


@pytest.mark.parametrize("stream", [False, True])
def test_errors_inside_a_reply(stream: bool) -> None:
    def inside(**error: Any) -> Scripted:
        return Scripted(json.dumps({"error": error}).encode(), headers=JSON)

    assert "overloaded" in error_of(*[inside(message="overloaded", code=503)] * 3, stream=stream, requests=3).message
    assert "rejects the request: odd" in error_of(inside(message="odd"), stream=stream).message
    late = streamed(chunk("Yes"), {"error": {"message": "lost the thread", "code": 500}})
    assert "lost the thread" in error_of(late, stream=True).message


@pytest.mark.parametrize("stream", [False, True])
def test_withheld(stream: bool) -> None:
    assert "content filter" in error_of(ok("Ye", finish="content_filter"), stream=stream).message
    assert "declines: no ***" in error_of(ok(None, refusal=f"no {KEY}"), stream=stream).message


def test_a_bug_of_ours_is_not_called_a_failure_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("anomaly_ov.remote.endpoint.Reply.add", broken)
    with connected(ok()) as (endpoint, _), pytest.raises(ZeroDivisionError):
        ask(endpoint)
    assert failure_of(ZeroDivisionError(), EndpointConfig("http://x/v1", "m"), KEY, 1) is None


def test_words_are_cut_short_and_made_printable() -> None:
    assert len(shortened("long " * 10_000)) == MAX_QUOTED
    assert shortened("a\n b\t\x1b[31m") == ascii("a b \x1b[31m")
    assert shortened(f"x{KEY}y", KEY) == "x***y"
