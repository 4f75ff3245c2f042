"""``/v1/chat/completions`` and ``/v1/models`` as OpenAI's own client meets them, over a real connection."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from anomaly_ov.inspector import Inspector, load
from anomaly_ov.reasoning.chat import Chat
from anomaly_ov.records import SCHEMA, Answer
from anomaly_ov.words.agreement import checked
from anomaly_ov.words.from_record import REFUSAL, answer
from model_fixtures import save_small_model
from serving_live_fixtures import serving, until
from talk_fixtures import small_talker

FIRST, SECOND = "Is there a defect?", "Where is it?"


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    """With a threshold that every picture has a region at."""
    return load(str(small_talker(tmp_path_factory.mktemp("talker") / "model")), device="cpu", threshold=0.0)


@pytest.fixture(scope="module")
def service(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with serving(inspector, tmp_path_factory.mktemp("data")) as found:
        yield found


def client_of(address: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def client(service: tuple[str, Any]) -> Iterator[openai.OpenAI]:
    with client_of(service[0]) as client:
        yield client


def picture(seed: int = 0, height: int = 50, width: int = 70) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def shown(data: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def user(question: str, *pictures: bytes) -> dict[str, Any]:
    return {"role": "user", "content": [*map(shown, pictures), {"type": "text", "text": question}]}


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == ("small", "anomaly-ov")
    assert client.models.retrieve("small") == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt/9")
    assert caught.value.code == "model_not_found"


def test_a_conversation_of_several_turns(
    client: openai.OpenAI, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client resends everything; the answers are those of a conversation with the model itself."""
    talk, messages = inspector.chat(picture()), [user(FIRST, picture())]
    calls: list[int] = []
    encode = inspector.engine.encode
    for number, question in enumerate((FIRST, SECOND, FIRST)):
        expected = talk.ask(question, max_tokens=8)
        with monkeypatch.context() as patched:
            patched.setattr(inspector.engine, "encode", lambda views: calls.append(1) or encode(views))
            completion = client.chat.completions.create(model="small", messages=messages, max_tokens=8)
        answer = completion.choices[0]
        assert answer.message.content == expected.text
        assert answer.finish_reason == expected.finish
        assert completion.usage.prompt_tokens == expected.tokens_in
        assert completion.usage.completion_tokens == expected.tokens_out
        finding = completion.anomaly["finding"]
        assert finding["schema"] == SCHEMA
        assert finding["score"] == pytest.approx(inspector.inspect(picture()).score)
        wanted = checked(expected, inspector.inspect(picture()), question)
        assert completion.anomaly["p_yes"] == (None if wanted.p_yes is None else pytest.approx(wanted.p_yes))
        assert completion.anomaly["contradiction"] == wanted.contradiction
        assert len(calls) == 1, f"question {number} encoded the picture again"
        messages += [answer.message.model_dump(), user(SECOND if number == 0 else FIRST)]


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_says_the_same(client: openai.OpenAI, usage: bool) -> None:
    request: dict[str, Any] = {"model": "small", "messages": [user(FIRST, picture())]}
    whole = client.chat.completions.create(**request)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(client.chat.completions.create(**request, **options, stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == (
        whole.choices[0].message.content
    )
    assert chunks[0].anomaly["finding"]["score"] == whole.anomaly["finding"]["score"]
    last = [one for one in chunks if one.choices][-1]
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.anomaly == {"p_yes": whole.anomaly["p_yes"]}
    assert [one.usage for one in chunks if one.usage] == ([whole.usage] if usage else [])


def test_the_client_without_threads(service: tuple[str, Any]) -> None:
    async def main() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{service[0]}/v1", api_key="none", max_retries=0) as client:
            messages: Any = [user(FIRST, picture(1))]
            whole = await client.chat.completions.create(model="small", messages=messages)
            stream = await client.chat.completions.create(model="small", messages=messages, stream=True)
            text = "".join([one.choices[0].delta.content or "" async for one in stream])
            return whole.choices[0].message.content or "", text

    whole, text = asyncio.run(main())
    assert whole == text != ""


def test_several_pictures_are_views(client: openai.OpenAI, inspector: Inspector) -> None:
    """The finding is that of the most anomalous view; the same picture twice is one."""
    pictures = picture(0), picture(1), picture(0)
    completion = client.chat.completions.create(model="small", messages=[user(FIRST, *pictures)])
    findings = inspector.inspect_views(pictures[:2])
    assert completion.choices[0].message.content == inspector.chat(findings, views=True).ask(FIRST, max_tokens=30).text
    assert [one["score"] for one in completion.anomaly["findings"]] == [pytest.approx(one.score) for one in findings]
    assert completion.anomaly["finding"]["score"] == pytest.approx(max(one.score for one in findings))


def test_what_has_no_effect_is_told(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be brief."}, user(FIRST, picture())]
    completion = client.chat.completions.create(model="small", messages=messages, stop=["x"], seed=1, n=1, user="me")
    assert completion.anomaly["ignored"] == ["seed", "stop", "system message"]
    assert completion.choices[0].message.content


def test_an_answer_has_a_longest_length(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="small", messages=[user(FIRST, picture())], max_tokens=10**6)
    assert completion.usage.completion_tokens <= 30
    short = client.chat.completions.create(model="small", messages=[user(FIRST, picture())], max_completion_tokens=2)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 2)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("request_", "error", "code", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"tools": [TOOL]}, openai.BadRequestError, "unsupported", "tools"),
        ({"n": 2}, openai.BadRequestError, "unsupported", "n"),
        ({"messages": [user(FIRST)]}, openai.BadRequestError, "no_picture", "messages"),
        ({"messages": [user(" ", picture())]}, openai.BadRequestError, "bad_request", "messages"),
        ({"messages": [user("<image>?", picture())]}, openai.BadRequestError, "bad_request", "messages"),
        ({"messages": [user("x " * 40_000, picture())]}, openai.BadRequestError, "bad_request", "messages"),
        ({"messages": [user(FIRST, picture()[:70])]}, openai.UnprocessableEntityError, "unreadable_image", "messages"),
        ({"extra_body": {"anomaly": {"region": 99}}}, openai.BadRequestError, "no_such_region", "anomaly.region"),
        ({"extra_body": {"anomaly": {"item": "i_1"}}}, openai.BadRequestError, "bad_request", "anomaly.item"),
    ],
)
def test_errors_are_the_clients_own(
    client: openai.OpenAI,
    request_: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str,
    param: str,
    stream: bool,
) -> None:
    """Also for a stream: what can be known before a word is said is no event half-way."""
    whole = {"model": "small", "messages": [user(FIRST, picture())], "stream": stream} | request_
    with pytest.raises(error) as caught:
        client.chat.completions.create(**whole)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_addresses_are_not_fetched(client: openai.OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/p.png"}}
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": [part, *user(FIRST)["content"]]}]
        )
    assert (caught.value.code, caught.value.param) == ("remote_images_off", "messages")


def test_a_token_is_asked_for(inspector: Inspector, tmp_path: Path) -> None:
    with serving(inspector, tmp_path, token="secret") as (address, _):
        with client_of(address, "wrong") as stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        with client_of(address, "secret") as client:
            assert client.chat.completions.create(model="small", messages=[user(FIRST, picture())]).choices


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[str]]]:
    """Answers that wait to be let go, and the questions that have come so far."""
    go, questions = threading.Event(), []

    def ask(self: Chat, question: str, *, on_text: Any, stopped: Any, **options: Any) -> Answer:
        questions.append(question)
        on_text("So ")
        on_text("be ")
        while not go.wait(0.005):
            if stopped():
                questions.append("stopped")
                break
        return Answer("So be it.", None, "stop", 1, 1)

    with monkeypatch.context() as patched:
        patched.setattr(Chat, "ask", ask)
        try:
            yield go, questions
        finally:
            go.set()


def test_too_many_questions(service: tuple[str, Any], client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service[1].speaker, "_max_waiting", 1)
    request: dict[str, Any] = {"model": "small", "messages": [user(FIRST, picture())]}
    client.chat.completions.create(**request)
    with held(monkeypatch) as (go, _):
        said: list[str | None] = []

        def ask() -> None:
            said.append(client.chat.completions.create(**request).choices[0].message.content)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: service[1].speaker.waiting == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**request, stream=True)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        go.set()
        for thread in threads:
            thread.join()
    assert said == ["So be it."] * 2
    assert client.chat.completions.create(**request).choices


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_ends_the_answer(
    service: tuple[str, Any], client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    request: dict[str, Any] = {"model": "small", "messages": [user(FIRST, picture(3))]}
    before = client.chat.completions.create(**request)
    with held(monkeypatch) as (_, questions):
        if stream:
            events = client.chat.completions.create(**request, stream=True)
            text = [event.choices[0].delta.content for event in (next(events), next(events))]
            assert text == ["", "So"], "pieces come while the answer is made"
            events.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(**request, timeout=0.3)
        until(lambda: questions == [FIRST, "stopped"], 10)
        until(lambda: service[1].speaker._taken == 0, 10)
    after = client.chat.completions.create(**request)
    assert after.choices[0].message.content == before.choices[0].message.content


def test_a_failure_half_way_is_an_error_of_the_stream(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(self: Chat, question: str, *, on_text: Any, **options: Any) -> Answer:
        on_text("So ")
        raise ValueError("/secret/path")

    monkeypatch.setattr(Chat, "ask", ask)
    events = client.chat.completions.create(model="small", messages=[user(FIRST, picture())], stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(events)
    assert caught.value.code == "internal"
    assert "secret" not in json.dumps(caught.value.body)


def test_a_stored_picture_and_its_regions(
    service: tuple[str, Any], client: openai.OpenAI, inspector: Inspector
) -> None:
    address, parts = service
    batch = parts.store.create_batch("one").id
    files = [("file", ("part.png", picture(4), "image/png"))]
    with httpx.Client(base_url=address, timeout=30) as http:
        (item,) = http.post(f"/v1/batches/{batch}/pictures", files=files).raise_for_status().json()["items"]
        until(lambda: http.get(f"/v1/items/{item['id']}").json()["state"] == "done")
        finding = http.get(f"/v1/items/{item['id']}").json()["finding"]

    def ask(**anomaly: Any) -> Any:
        body = {"anomaly": {"item": item["id"], **anomaly}}
        return client.chat.completions.create(model="small", messages=[user(FIRST)], extra_body=body)

    plain = ask()
    assert plain.choices[0].message.content == inspector.chat(picture(4)).ask(FIRST, max_tokens=30).text
    for name in ("id", "score", "regions", "context", "threshold"):
        assert plain.anomaly["finding"][name] == finding[name]
    assert ask(region=0).usage.prompt_tokens > plain.usage.prompt_tokens
    assert ask(reading="full").usage.prompt_tokens != ask(reading="focus").usage.prompt_tokens
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(
            model="small", messages=[user(FIRST)], extra_body={"anomaly": {"item": "i_nowhere"}}
        )


def test_a_model_that_does_not_speak(tmp_path: Path) -> None:
    silent = load(str(save_small_model(tmp_path / "model")), device="cpu")
    finding = silent.inspect(picture())
    request: dict[str, Any] = {"model": "small", "messages": [user(FIRST, picture())]}
    with serving(silent, tmp_path / "data") as (address, _), client_of(address) as client:
        assert client.models.list().data[0].anomaly["speaks"] is False
        whole = client.chat.completions.create(**request, max_tokens=3, extra_body={"anomaly": {"reading": "full"}})
        chunks = list(client.chat.completions.create(**request, stream=True))
        refused = client.chat.completions.create(model="small", messages=[user("Who won?", picture())])
    expected = answer(finding, FIRST)
    assert whole.choices[0].message.content == expected.text
    assert (whole.choices[0].finish_reason, whole.usage.total_tokens) == ("stop", 0)
    assert whole.anomaly["p_yes"] == pytest.approx(expected.p_yes)
    assert whole.anomaly["finding"]["score"] == pytest.approx(finding.score)
    assert whole.anomaly["ignored"] == ["max_tokens", "anomaly.reading"]
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == expected.text
    assert chunks[-1].anomaly == {"p_yes": whole.anomaly["p_yes"]}
    assert refused.choices[0].message.content == REFUSAL
