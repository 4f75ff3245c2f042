"""Questions to a server that speaks the format: answers, streams, limits and pay."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import MissingExtra, SpendCapReached, UnreadableImage, UsageError
from anomaly_ov.images.read import read
from anomaly_ov.remote.endpoint import Endpoint, EndpointConfig
from remote_fixtures import (
    KEY,
    KEY_ENV,
    FakeTime,
    Scripted,
    Server,
    chunk,
    completion,
    failing,
    finding,
    ok,
    serving,
    streamed,
    token,
)

PIXELS_HW3 = np.random.default_rng(2).integers(0, 256, (80, 100, 3), np.uint8)
QUESTION = "Is it broken?"
Connect = Callable[..., tuple[Endpoint, Server, FakeTime]]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """``connect(*script, **config)``: an endpoint, the server behind it, and the time both waits and limits go by."""
    monkeypatch.setenv(KEY_ENV, KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    opened: list[Any] = []

    def connected(*script: Scripted, **config: Any) -> tuple[Endpoint, Server, FakeTime]:
        context, time = serving(*script), FakeTime()
        server = context.__enter__()
        settings = {"api_key_env": KEY_ENV, "timeout_s": 5.0} | config
        endpoint = Endpoint(EndpointConfig(server.url, "brain-1", **settings), clock=time.clock)
        opened.extend((endpoint, context))
        return endpoint, server, time

    yield connected
    for item in reversed(opened):
        item.__exit__(None, None, None)


def test_happy_path(connect: Connect) -> None:
    logprobs = [token("Yes", math.log(0.6), ("No", math.log(0.2)))]
    endpoint, server, time = connect(ok("Yes, a scratch.", logprobs=logprobs))
    answer = endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert (answer.text, answer.finish, answer.tokens_in, answer.tokens_out) == ("Yes, a scratch.", "stop", 120, 7)
    assert answer.p_yes == pytest.approx(0.75)
    assert answer.timing_ms.keys() == {"wait", "first_text", "total"}
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert time.slept == []


@pytest.mark.parametrize("stream", [False, True])
def test_an_endpoint_without_probabilities_is_asked_again_without(connect: Connect, stream: bool) -> None:
    replies = [streamed(chunk("Yes."), chunk(None, "stop")) if stream else ok("Yes.") for _ in range(2)]
    endpoint, server, time = connect(failing(400, "'logprobs' is not supported"), *replies)
    for _ in range(2):
        if stream:
            said = endpoint.ask_stream(finding(), PIXELS_HW3, QUESTION)
            assert "".join(said) == "Yes."
            answer = said.answer
        else:
            answer = endpoint.ask(finding(), PIXELS_HW3, QUESTION)
        assert (answer.text, answer.p_yes) == ("Yes.", None)
    assert ["logprobs" in body for body in server.bodies] == [True, False, False]
    assert time.slept == []


def test_what_is_sent(connect: Connect) -> None:
    endpoint, server, _ = connect(ok(), max_tokens=33, temperature=0.5)
    endpoint.ask(finding(), PIXELS_HW3, "And now?", [("First?", "One."), ("Second?", "Two.")])
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["logprobs"]) == ("brain-1", 33, 0.5, True)
    assert "stream" not in body
    contents = [message["content"] for message in body["messages"]]
    assert contents[2:] == ["One.", "Second?", "Two.", "And now?"]
    (url,) = [part["image_url"]["url"] for part in contents[1] if part["type"] == "image_url"]
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), PIXELS_HW3)


def test_a_crop_when_asked(connect: Connect) -> None:
    endpoint, server, _ = connect(ok(), crop_top_region=True)
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert [part["type"] for part in server.bodies[0]["messages"][1]["content"]] == [
        *("text", "image_url", "image_url", "text")
    ]


def test_a_picture_that_was_read_before(connect: Connect) -> None:
    endpoint, server, _ = connect(ok(), ok())
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    endpoint.ask(finding(), read(PIXELS_HW3), QUESTION)
    assert server.bodies[0] == server.bodies[1]


def test_broken_characters_are_replaced(connect: Connect) -> None:
    body = json.dumps(completion("\ud800!")).encode()
    endpoint, server, _ = connect(Scripted(body))
    answer = endpoint.ask(finding(), PIXELS_HW3, "Is \udcff it?", [("\ud800?", "\udfff!")])
    assert answer.text == "?!"
    assert server.bodies[0]["messages"][-1]["content"] == "Is ? it?"


def test_a_question_by_itself(connect: Connect) -> None:
    endpoint, server, _ = connect(ok("Score: 7"))
    answer = endpoint.say(" Which \ud800 grade?\n", system="You grade answers.")
    assert answer.text == "Score: 7"
    assert server.bodies[0]["messages"] == [
        {"role": "system", "content": "You grade answers."},
        {"role": "user", "content": " Which ? grade?\n"},
    ]


def test_a_conversation_about_a_picture_and_no_finding(connect: Connect) -> None:
    endpoint, server, _ = connect(ok())
    endpoint.say("And now?", Image.fromarray(PIXELS_HW3), [("First?", "One."), ("Second?", "")])
    first, *rest = server.bodies[0]["messages"]
    shown, question = first["content"]
    data = shown["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), PIXELS_HW3)
    assert (first["role"], question) == ("user", {"type": "text", "text": "First?"})
    assert [(one["role"], one["content"]) for one in rest] == [
        *(("assistant", "One."), ("user", "Second?"), ("assistant", ""), ("user", "And now?"))
    ]


def test_pictures_of_plain_questions_count_towards_the_spend_cap(connect: Connect) -> None:
    endpoint, server, _ = connect(ok(usage=None), max_tokens=1, spend_cap=0.01, price_in=1000.0, price_out=0.0)
    with pytest.raises(SpendCapReached):
        endpoint.say("Is it broken?", Image.fromarray(PIXELS_HW3))
    assert server.bodies == []
    assert endpoint.say("Is it?").text == "Yes, a scratch."


def test_an_unreadable_picture_sends_nothing(connect: Connect) -> None:
    endpoint, server, _ = connect(ok())
    with pytest.raises(UnreadableImage):
        endpoint.ask(finding(), b"no picture", QUESTION)
    assert server.bodies == []


def test_a_stream(connect: Connect) -> None:
    first = {"content": [token("Yes", math.log(0.9), ("No", math.log(0.1)))]}
    usage = {"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 5}}
    endpoint, server, _ = connect(
        streamed(chunk(""), chunk("Yes", logprobs=first), chunk(", a dent."), chunk(None, "stop"), usage)
    )
    stream = endpoint.ask_stream(finding(), PIXELS_HW3, QUESTION)
    assert server.bodies == []
    assert next(stream) == "Yes"
    with pytest.raises(UsageError, match="not ended"):
        _ = stream.answer
    assert list(stream) == [", a dent."]
    assert stream.answer.text == "Yes, a dent."
    assert stream.answer.p_yes == pytest.approx(0.9)
    assert (stream.answer.finish, stream.answer.tokens_in, stream.answer.tokens_out) == ("stop", 50, 5)
    assert list(stream) == []
    assert stream.answer.text == "Yes, a dent."
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


def test_a_stream_asked_for_and_a_whole_reply_sent(connect: Connect) -> None:
    endpoint, _, _ = connect(ok("Whole."))
    stream = endpoint.ask_stream(finding(), PIXELS_HW3, QUESTION)
    assert list(stream) == ["Whole."]
    assert stream.answer.finish == "stop"


def test_a_whole_reply_asked_for_and_a_stream_sent(connect: Connect) -> None:
    endpoint, _, _ = connect(streamed(chunk("In "), chunk("pieces."), chunk(None, "stop")))
    assert endpoint.ask(finding(), PIXELS_HW3, QUESTION).text == "In pieces."


def test_a_stream_that_is_closed_is_paid_for(connect: Connect) -> None:
    endpoint, _, _ = connect(
        streamed(chunk("six letters" * 3), chunk("never read"), chunk(None, "stop")), price_in=0.0, price_out=1e6
    )
    stream = endpoint.ask_stream(finding(), PIXELS_HW3, QUESTION)
    next(stream)
    stream.close()
    assert endpoint.spent == 11
    assert list(stream) == []
    with pytest.raises(UsageError):
        _ = stream.answer


def test_a_stream_is_tried_again_until_it_speaks(connect: Connect) -> None:
    endpoint, server, time = connect(failing(503), streamed(chunk("Now."), chunk(None, "stop")))
    assert list(endpoint.ask_stream(finding(), PIXELS_HW3, QUESTION)) == ["Now."]
    assert len(server.bodies) == 2
    assert len(time.slept) == 1


def test_too_many_requests_then_success(connect: Connect) -> None:
    endpoint, server, time = connect(failing(429, Retry_After="7"), failing(429), ok("At last."))
    answer = endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert answer.text == "At last."
    assert time.slept[0] == 7
    assert 0.75 <= time.slept[1] <= 1.0
    assert answer.timing_ms["wait"] == pytest.approx(1000 * sum(time.slept), abs=0.01)
    assert server.bodies[0] == server.bodies[2]


def test_requests_per_minute_hold_for_attempts_too(connect: Connect) -> None:
    endpoint, _, time = connect(ok(), failing(500), ok(), requests_per_minute=2)
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert len(time.slept) == 2
    assert time.time == 1060


def test_the_answers_limit_by_its_newer_name(connect: Connect) -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    endpoint, server, time = connect(failing(400, words), ok(), ok(), retries=0)
    for _ in range(2):
        endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert [("max_tokens" in body, "max_completion_tokens" in body) for body in server.bodies] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert time.slept == []


def test_a_stream_without_its_usage_is_paid_by_estimate(connect: Connect) -> None:
    endpoint, server, _ = connect(
        failing(422, "extra field: stream_options"), streamed(chunk("abcdef"), chunk(None, "stop")), price_out=1e6
    )
    assert list(endpoint.ask_stream(finding(), PIXELS_HW3, QUESTION)) == ["abcdef"]
    assert "stream_options" not in server.bodies[1]
    assert endpoint.spent == 2


def test_the_spend_cap_stops_before_the_request(connect: Connect) -> None:
    prices = {"spend_cap": 1.0, "price_in": 100.0, "price_out": 5000.0}
    endpoint, server, _ = connect(ok(usage=(1000, 100)), ok(), max_tokens=150, **prices)
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert endpoint.spent == pytest.approx(0.6)
    with pytest.raises(SpendCapReached):
        endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    with pytest.raises(SpendCapReached):
        next(endpoint.ask_stream(finding(), PIXELS_HW3, QUESTION))
    assert len(server.bodies) == 1
    assert endpoint.spent == pytest.approx(0.6)


def test_requests_that_are_turned_away_cost_nothing(connect: Connect) -> None:
    endpoint, _, _ = connect(failing(500), failing(429), ok(usage=(10, 10)), price_in=1e5, price_out=1e5)
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert endpoint.spent == pytest.approx(2.0)


def test_a_server_without_a_key(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint, server, _ = connect(ok(), api_key_env="")
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert KEY not in str(server.headers)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_key_where_one_is_wanted(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)
    if value is not None:
        monkeypatch.setenv(KEY_ENV, value)
    with pytest.raises(UsageError, match=KEY_ENV) as caught:
        Endpoint(EndpointConfig("http://localhost/v1", "m", api_key_env=KEY_ENV))
    assert "export" in caught.value.hint


@pytest.mark.parametrize("value", ["sk-geheim\u00e4", "sk-geheim two", "sk-geheim\r\nX-Evil: 1"])
def test_a_key_that_fits_no_header(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, value)
    with pytest.raises(UsageError) as caught:
        Endpoint(EndpointConfig("http://localhost/v1", "m", api_key_env=KEY_ENV))
    assert "geheim" not in str(caught.value)


def test_a_line_end_after_the_key_does_no_harm(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_OV_TEST_OTHER", KEY + "\n")
    endpoint, server, _ = connect(ok(), api_key_env="ANOMALY_OV_TEST_OTHER")
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_the_key_is_shown_nowhere(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint, _, _ = connect(ok())
    endpoint.ask(finding(), PIXELS_HW3, QUESTION)
    assert KEY not in caplog.text
    assert KEY not in repr(endpoint) + repr(endpoint.config)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra) as caught:
        Endpoint(EndpointConfig("http://localhost/v1", "m", api_key_env=""))
    assert caught.value.hint == 'pip install "anomaly-ov[remote]"'


def test_importing_the_room_loads_neither_torch_nor_the_client() -> None:
    code = (
        "import sys, anomaly_ov.remote.endpoint\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'openai'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
