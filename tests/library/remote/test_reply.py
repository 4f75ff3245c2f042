"""Replies, good and bad: text, end, tokens, P(yes)."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ov.errors import EndpointError
from anomaly_ov.records import Answer
from anomaly_ov.remote.failures import ReportedError
from anomaly_ov.remote.reply import Reply, p_yes
from remote_fixtures import chunk, completion, token


def whole(value: Any) -> Answer:
    reply = Reply()
    reply.add(value, streamed=False)
    return reply.answer(False, {})


def log(probability: float) -> float:
    return math.log(probability)


def test_a_whole_reply() -> None:
    answer = whole(completion("Yes.", logprobs=[token("Yes", log(0.6), ("No", log(0.2)))]))
    assert answer.p_yes == pytest.approx(0.75)
    assert (answer.text, answer.finish, answer.tokens_in, answer.tokens_out) == ("Yes.", "stop", 120, 7)
    assert set(answer.to_json()) == {
        *("text", "p_yes", "finish", "tokens_in", "tokens_out", "timing_ms", "contradiction")
    }


def test_a_reply_in_pieces() -> None:
    reply = Reply()
    pieces = [
        chunk("", role="assistant"),
        chunk("\n", logprobs={"content": [token("\n", log(0.9), ("No", log(0.1)))]}),
        chunk("No", logprobs={"content": [token("No", log(0.9), ("Yes", log(0.1)))]}),
        chunk(", fine.", logprobs={"content": [token("Yes", log(1.0))]}),
        chunk(None, "length"),
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}},
    ]
    assert [reply.add(piece, True) for piece in pieces] == ["", "\n", "No", ", fine.", "", ""]
    answer = reply.answer(True, {"total": 1.0})
    assert answer.p_yes == pytest.approx(0.1)
    assert answer == Answer("\nNo, fine.", answer.p_yes, "length", 9, 3, {"total": 1.0})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (token("Yes", log(0.5), (" yes", log(0.1)), ("YES", log(0.1)), ("No", log(0.1)), ("no.", log(0.2))), 0.7),
        (token("\u2581Yes", log(0.3), ("\u0120No", log(0.1))), 0.75),
        (token("**Yes", log(0.3), ("Yesterday", log(0.5)), ("None", log(0.1)), ("No", log(0.3))), 0.5),
        (token("No", log(0.9)), 0.0),
        (token("Yes", log(0.9)), 1.0),
        (token("The", log(0.98), ("Yes", log(0.004)), ("No", log(0.004))), None),
        (token("The", log(0.9), ("Yes", log(0.06)), ("No", log(0.02))), 0.75),
        (token("Maybe", log(0.9)), None),
        ({"token": "Yes", "logprob": log(0.5), "top_logprobs": [{"token": "No", "logprob": log(0.5)}]}, 0.5),
        ({"token": "Yes", "logprob": log(0.5)}, 1.0),
        ({"token": "Yes", "logprob": log(0.5), "top_logprobs": "none"}, 1.0),
        (token("Yes", 1e9, ("No", -9999.0)), 1.0),
        (token("Yes", 10**400, ("No", -(10**400))), 1.0),
        (token("Yes", float("nan"), ("No", float("-inf"))), None),
        ({"token": "Yes", "logprob": None, "top_logprobs": [None, 1, {"token": 3, "logprob": 0}]}, None),
    ],
)
def test_p_yes(entry: dict[str, Any], expected: float | None) -> None:
    assert p_yes(entry) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("logprobs", [None, [], {"content": None}, {"content": [None]}, {"content": [{"token": 1}]}, 5])
def test_without_probabilities_none(logprobs: Any) -> None:
    value = completion("Yes.")
    value["choices"][0]["logprobs"] = logprobs
    assert whole(value).p_yes is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": "many", "completion_tokens": -1},
        {"prompt_tokens": True},
        {"prompt_tokens": 10**400},
    ],
)
def test_usage_that_is_no_usage(usage: Any) -> None:
    answer = whole(completion(usage=None) | {"usage": usage})
    assert (answer.tokens_in, answer.tokens_out) == (None, None)


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("eos_token", "stop"),
        ("max_tokens", "length"),
        (None, "unknown"),
        ("x", "x"),
    ],
)
def test_finish(word: str | None, finish: str) -> None:
    assert whole(completion(finish=word)).finish == finish


def test_an_answer_in_parts() -> None:
    parts = [{"type": "text", "text": "Yes"}, {"type": "other"}, {"type": "text", "text": "."}]
    assert whole(completion(parts)).text == "Yes."  # type: ignore[arg-type]


def test_nothing_said_within_the_limit_is_an_answer() -> None:
    assert whole(completion(None, "length")).text == ""


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": None},
        {"choices": {}},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": "Yes"}]},
        {"choices": [{"finish_reason": "stop"}]},
        completion(""),
        completion(" \n"),
        completion(None),
        completion(5),  # type: ignore[arg-type]
        completion(["Yes"]),  # type: ignore[arg-type]
        completion([{"text": 5}]),  # type: ignore[arg-type]
    ],
)
def test_not_the_format(value: Any) -> None:
    with pytest.raises(EndpointError, match="chat-completions format"):
        whole(value)


def test_withheld() -> None:
    with pytest.raises(EndpointError, match="content filter"):
        whole(completion("Ye", "content_filter"))
    with pytest.raises(EndpointError, match="declines: I cannot look"):
        whole(completion(None, refusal="I cannot\nlook"))


def test_a_stream_that_just_ends_has_broken_off() -> None:
    reply = Reply()
    reply.add(chunk("Yes, the"), True)
    with pytest.raises(EndpointError, match="broke off"):
        reply.answer(True, {})


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [({"message": "busy", "code": 503}, 503, "busy"), ({"message": "no", "code": "x"}, None, "no"), ("no", None, "no")],
)
def test_errors_inside_a_reply(error: Any, status: int | None, words: str) -> None:
    with pytest.raises(ReportedError) as caught:
        whole({"error": error})
    assert (caught.value.status, caught.value.words) == (status, words)


NAMES = [
    *("choices", "message", "delta", "content", "finish_reason", "refusal", "text", "error", "code"),
    *("logprobs", "token", "logprob", "top_logprobs", "usage", "prompt_tokens"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans())
def test_whatever_comes_is_an_answer_or_one_of_our_errors(value: Any, streamed: bool) -> None:
    for piece in (value, {"choices": [value]}, {"choices": [{"message": value, "logprobs": value}]}):
        reply = Reply()
        try:
            reply.add(piece, streamed)
            assert reply.answer(streamed, {}).text == reply.text
        except (EndpointError, ReportedError):
            continue
