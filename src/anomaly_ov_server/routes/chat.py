"""``/v1/chat/completions`` and ``/v1/models``: questions about pictures, in OpenAI's shape."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from anomaly_ov.records import Answer
from anomaly_ov_server.chat_worker import Begun, ChatQuestion, Subject
from anomaly_ov_server.completions import (
    ChatRequest,
    ChatResponse,
    Completion,
    RequestConversation,
    conversation_of,
    event,
    request_of,
    request_schema,
)
from anomaly_ov_server.faults import Fault, fault_of
from anomaly_ov_server.requests import unless_gone
from anomaly_ov_server.service import Service, service_of
from anomaly_ov_server.uploads import Upload, decode_picture_url, sources_of

router = APIRouter(tags=["chat"])

DEFAULT_TOKENS = 200
FOR_LANGUAGE_MODELS = ("max_tokens", "max_completion_tokens", "temperature")
"""What has no effect on answers from the record."""
# No type: some take the schema for that of the whole stream, some for that of each event.
_STREAM = {
    "schema": {"description": "Events whose data are OpenAI's chunks"},
    "example": 'data: {"object": "chat.completion.chunk"}\n\ndata: [DONE]\n\n',
}
_BODY = {"required": True, "content": {"application/json": {"schema": request_schema()}}}

Events = AsyncGenerator[Begun | str | Answer, None]


class ModelAnomaly(BaseModel):
    """Ours: which weights, where they run, and whether a language model answers; else the finding's record does."""

    revision: str
    device: str
    dtype: str
    speaks: bool


class ModelCard(BaseModel):
    """The model in OpenAI's shape. ``created``: not known, 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "anomaly-ov"
    anomaly: ModelAnomaly


class ModelList(BaseModel):
    """All models: the one that the service was started with."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


@router.get("/v1/models")
async def models(request: Request) -> ModelList:
    """The model of this service."""
    return ModelList(data=[_card(service_of(request))])


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> ModelCard:
    """The model, if it has this name."""
    service = service_of(request)
    _require_model(service, name)
    return _card(service)


@router.post(
    "/v1/chat/completions",
    response_class=JSONResponse,
    responses={200: {"model": Completion, "content": {"text/event-stream": _STREAM}}},
    openapi_extra={"requestBody": _BODY},
)
async def completions(request: Request) -> Response:
    """Answers the last message about the pictures of all messages, or about a stored picture.

    Several pictures are several views of one thing. The answer, or the first piece of a stream, brings the finding.
    What is refused and what has no effect: see ``ChatRequest``. A language model's text may be wrong; without one the
    finding's record answers, and ``usage`` is 0.
    """
    service = service_of(request)
    wanted = await asyncio.to_thread(request_of, await request.body())
    _require_model(service, wanted.model)
    said = conversation_of(wanted)
    asked = ChatQuestion(
        subject=await _subject(service, wanted, said),
        question=said.question,
        history=said.history,
        max_tokens=wanted.most_tokens(DEFAULT_TOKENS, service.settings.max_answer_tokens),
        temperature=wanted.temperature or 0.0,
        reading=wanted.anomaly.reading,
        region=wanted.anomaly.region,
    )
    ignored = said.ignored + (() if service.inspector.speaks else _without_effect(wanted))
    info = service.inspector.info
    reply = ChatResponse(info.name, info.revision, wanted.include_usage)
    if wanted.stream:
        events: Events = service.speaker.say(asked)
        begun = await unless_gone(request, anext(events))
        assert isinstance(begun, Begun)
        stream = _stream(reply, events, _anomaly(begun.records, None, ignored))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    told = await unless_gone(request, service.speaker.answer(asked))
    anomaly = _anomaly(told.records, told.answer.p_yes, ignored) | {"contradiction": told.answer.contradiction}
    return JSONResponse(reply.whole(told.answer, anomaly))


def _without_effect(wanted: ChatRequest) -> tuple[str, ...]:
    """What was asked for that only a language model could heed."""
    given = tuple(name for name in FOR_LANGUAGE_MODELS if getattr(wanted, name) is not None)
    return (*given, "anomaly.reading") if wanted.anomaly.reading is not None else given


async def _stream(reply: ChatResponse, events: Events, anomaly: dict[str, Any]) -> AsyncIterator[bytes]:
    """The server-sent events. A failure half-way is an event of its own, which clients raise as an error."""
    async with aclosing(events):
        try:
            yield reply.first(anomaly)
            async for one in events:
                if isinstance(one, Answer):
                    yield reply.last(one)
                elif isinstance(one, str):
                    yield reply.piece(one)
        except Exception as error:
            yield event(fault_of(error).to_json())


def _anomaly(records: tuple[dict[str, Any], ...], p_yes: float | None, ignored: tuple[str, ...]) -> dict[str, Any]:
    telling = max(records, key=lambda record: record["score"])
    findings = {"findings": list(records)} if len(records) > 1 else {}
    return {"finding": telling, **findings, "p_yes": p_yes, "ignored": list(ignored)}


async def _subject(service: Service, wanted: ChatRequest, said: RequestConversation) -> Subject:
    """What the question is about. Raises ``Fault`` for no picture, too many, one that cannot be had, no such item."""
    item, region = wanted.anomaly.item, wanted.anomaly.region
    if item is not None and said.pictures:
        what = "the question is about a stored picture and about pictures in the messages"
        raise Fault(400, "bad_request", what, hint="send one or the other", param="anomaly.item")
    if region is not None and len(said.pictures) > 1:
        what = "a region belongs to one picture, and there are several"
        raise Fault(400, "bad_request", what, hint="leave it out", param="anomaly.region")
    if item is not None:
        return await asyncio.to_thread(_stored, service, item)
    if not said.pictures:
        what, hint = "there is no picture in the messages", "add an image_url part with a data URL, or 'anomaly.item'"
        raise Fault(400, "no_picture", what, hint=hint, param="messages")
    most = service.settings.max_pictures
    if len(said.pictures) > most:
        raise Fault(413, "too_large", f"a request may hold {most} pictures", hint="send fewer", param="messages")
    uploads, left = [], service.settings.max_request_bytes
    for url in said.pictures:
        uploads.append(await _picture_at(url, service))
        left -= len(uploads[-1].data)
        if left < 0:  # what is fetched is not part of the body
            what = f"the pictures of a request may hold {service.settings.max_request_bytes} bytes"
            raise Fault(413, "too_large", what, hint="send fewer", param="messages")
    by_digest = await asyncio.to_thread(lambda: {hashlib.sha256(one.data).hexdigest(): one for one in uploads})
    return Subject(tuple(sources_of(list(by_digest.values()))), tuple(by_digest))


async def _picture_at(url: str, service: Service) -> Upload:
    try:
        return await decode_picture_url(url, service.settings)
    except Fault as fault:
        fault.param = "messages"  # it knows of no messages
        raise


def _stored(service: Service, item: str) -> Subject:
    """A stored picture, seen with the context that its finding was made with."""
    source, digest = service.store.picture_of(item)
    context_id, context = service.runner.context_of(item)
    return Subject((source,), (digest,), context, context_id)


def _card(service: Service) -> ModelCard:
    info = service.inspector.info
    speaks = service.inspector.speaks
    ours = ModelAnomaly(revision=info.revision, device=info.device, dtype=info.dtype, speaks=speaks)
    return ModelCard(id=info.name, anomaly=ours)


def _require_model(service: Service, name: str | None) -> None:
    own = service.inspector.info.name
    if name not in (None, own):
        raise Fault(404, "model_not_found", "there is no such model here", hint="GET /v1/models", param="model")
