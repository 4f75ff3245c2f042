"""OpenAI's format: what a request may hold, what is refused by name, what has no effect, how an answer is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from anomaly_ov.records import Answer
from anomaly_ov_server.completions import ChatResponse, conversation_of, request_of, request_schema
from anomaly_ov_server.faults import Fault

ANSWER = Answer("No.", 0.25, "stop", 40, 3, {})
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def body(*messages: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"messages": list(messages) or [user("Why?")], **fields}).encode()


def refusal(data: bytes) -> Fault:
    with pytest.raises(Fault) as caught:
        conversation_of(request_of(data))
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    fault = refusal(body(**fields))
    assert (fault.type, fault.param) == ("unsupported", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "top_p": 1.0, "user": "me", "seed": 3, "stop": ["\n"], "store": False, "metadata": {"a": "b"}},
        {"tools": [], "logprobs": False, "top_logprobs": None, "response_format": {"type": "text"}},
        {"modalities": ["text"], "stream_options": None, "anomaly": None, "something_new": {"x": [1]}},
    ],
)
def test_harmless_fields_are_accepted(fields: dict[str, Any]) -> None:
    request_of(body(**fields))


def test_what_has_no_effect_is_named() -> None:
    said = conversation_of(
        request_of(
            body(
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": "Be kind."},
                {"role": "assistant", "content": "Hello!"},
                user("Why?"),
                stop=["\n"],
                top_p=0.5,
                seed=None,
                user="me",
            )
        )
    )
    assert said.ignored == ("top_p", "stop", "system message", "greeting")
    assert (said.history, said.question) == ((), "Why?")


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b"[", None),
        (b"\xff\xfe{}", None),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b"[]", "body"),
        (b"{}", "messages"),
        (json.dumps({"messages": []}).encode(), "messages"),
        (body({"role": "tool", "content": "x"}), "messages.0.role"),
        (body(user([{"type": "input_audio", "input_audio": {}}])), "messages.0.content.0"),
        (body(user(5)), "messages.0.content"),
        (body(user([{"type": "image_url", "image_url": {}}])), "messages.0.content.0.image_url.image_url.url"),
        (body(max_tokens=0), "max_tokens"),
        (body(temperature=-1), "temperature"),
        (body(anomaly={"itm": "i_1"}), "anomaly.itm"),
        (body(anomaly={"region": -1}), "anomaly.region"),
        (body(anomaly={"reading": "slowly"}), "anomaly.reading"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, param: str | None) -> None:
    fault = refusal(data)
    assert (fault.type, fault.param) == ("bad_request", param)


@pytest.mark.parametrize(
    ("messages", "part"),
    [
        ([user("Why?"), {"role": "assistant", "content": "So."}], "not the user's"),
        ([{"role": "system", "content": "Be brief."}], "not the user's"),
        ([user(" \n")], "asks nothing"),
        ([user([PICTURE])], "asks nothing"),
        ([user(None)], "asks nothing"),
    ],
)
def test_a_conversation_ends_with_a_question(messages: list[dict[str, Any]], part: str) -> None:
    fault = refusal(body(*messages))
    assert part in fault.message
    assert fault.param == "messages"


def test_turns_alternate_and_pictures_are_gathered() -> None:
    """Neighbours of one role become one turn; a picture sent twice is one; an answer may be empty."""
    other = {"type": "image_url", "image_url": "data:image/png;base64,BBBB"}
    said = conversation_of(
        request_of(
            body(
                user([PICTURE]),
                user([{"type": "text", "text": "One"}, other, {"type": "text", "text": "two"}]),
                {"role": "assistant", "content": ""},
                user([PICTURE, {"type": "text", "text": "Three?"}]),
            )
        )
    )
    assert said.history == (("user", "One\ntwo"), ("assistant", ""))
    assert said.question == "Three?"
    assert said.pictures == ("data:image/png;base64,AAAA", "data:image/png;base64,BBBB")


def test_length_of_an_answer() -> None:
    assert request_of(body()).most_tokens(200, 400) == 200
    assert request_of(body(max_tokens=7)).most_tokens(200, 400) == 7
    assert request_of(body(max_tokens=7, max_completion_tokens=9)).most_tokens(200, 400) == 9
    assert request_of(body(max_tokens=10**9)).most_tokens(200, 400) == 400


def test_a_whole_answer_is_one_of_openais() -> None:
    record = {"score": 0.5}
    found = ChatResponse("tiny", "r1").whole(ANSWER, {"finding": record, "p_yes": 0.25})
    completion = ChatCompletion.model_validate(found)
    assert completion.choices[0].message.content == "No."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (40, 43)
    assert found["anomaly"] == {"finding": record, "p_yes": 0.25}


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_is_one_of_openais(usage: bool) -> None:
    reply = ChatResponse("tiny", "r1", include_usage=usage)
    data = reply.first({"finding": {}, "p_yes": None}) + reply.piece("No") + reply.piece("\n.") + reply.last(ANSWER)
    *events, done, end = data.decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(one.removeprefix("data: ")) for one in events]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    assert {chunk["id"] for chunk in chunks} == {reply.id}
    assert chunks[0]["anomaly"] == {"finding": {}, "p_yes": None}
    said = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert said[0]["delta"]["role"] == "assistant"
    assert "".join(one["delta"].get("content", "") for one in said) == "No\n."
    assert [one["finish_reason"] for one in said] == [None, None, None, "stop"]
    assert [chunk.get("usage") for chunk in chunks if chunk.get("usage")] == (
        [{"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}] if usage else []
    )
    assert next(
        chunk for chunk in chunks if "p_yes" in chunk.get("anomaly", {}) and chunk["choices"][0]["finish_reason"]
    )["anomaly"] == {"p_yes": 0.25}


def test_the_schema_is_in_one_piece() -> None:
    text = json.dumps(request_schema())
    assert "$ref" not in text
    assert "$defs" not in text
    assert {"messages", "anomaly", "max_completion_tokens"} <= request_schema()["properties"].keys()
