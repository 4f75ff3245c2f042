"""OpenAI's chat completions: what a request may hold, and what an answer looks like, whole or in pieces.

Compatible with OpenAI's published format of ``POST /v1/chat/completions``, plus one object of ours, ``anomaly``, both
ways. Three kinds of fields:

* read: model, messages (text and image_url parts), max_tokens, max_completion_tokens, temperature (default 0, the most
  likely answer), stream, stream_options.include_usage, anomaly;
* refused, because an answer without them would be another one than asked for: tools, functions, audio, n
  above 1, logit_bias, a response_format other than text (``unsupported``);
* anything else is accepted and not used. Those that would have changed the answer elsewhere (``WITHOUT_EFFECT``) are
  named in the reply, in ``anomaly.ignored``; system messages too: the model was taught with one fixed system message.
  ``logprobs`` stay null: P(yes) is ``anomaly.p_yes``.

In a stream the first piece brings ``anomaly`` with the finding, before a word is said; the piece that ends the answer
brings ``anomaly`` with ``p_yes``, which is null until then, and ``contradiction`` if there is one.

Not here: answering (``chat_worker``), reading pictures out of URLs (``uploads``).
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from anomaly_ov.records import Answer
from anomaly_ov_server.faults import Fault, fault_of_fields
from anomaly_ov_server.requests import require_modest
from anomaly_ov_server.views import Record

Message = tuple[str, str]
"""(role, text), as ``chat.Chat`` takes it."""

WITHOUT_EFFECT = (
    "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "reasoning_effort", "verbosity", "prediction", "logprobs", "top_logprobs",
)  # fmt: skip
REFUSED = ("tools", "functions", "audio", "logit_bias", "web_search_options")
_NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})
_MOST_MESSAGES, _MOST_PARTS, _MOST_TEXT = 1000, 256, 100_000


class TextPart(BaseModel):
    """A piece of text."""

    type: Literal["text"]
    text: str = Field(max_length=_MOST_TEXT)


class ImageUrl(BaseModel):
    """``url``: a data URL (``data:image/png;base64,...``), or, where the operator allows it, an http(s) address."""

    url: str = Field(min_length=1)


class ImagePart(BaseModel):
    """A picture."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(lambda value: {"url": value} if isinstance(value, str) else value)]


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


def _as_parts(content: Any) -> Any:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_PART_SCHEMAS = [TextPart.model_json_schema(), {
    "type": "object",
    "title": "ImagePart",
    "properties": {
        "type": {"const": "image_url", "type": "string"},
        "image_url": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
    },
    "required": ["type", "image_url"],
}]  # fmt: skip
_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string", "maxLength": _MOST_TEXT},
        {"type": "array", "maxItems": _MOST_PARTS, "items": {"oneOf": _PART_SCHEMAS}},
    ]
}


class ChatMessage(BaseModel):
    """One turn. ``system`` and ``developer`` messages are accepted and not read."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[Part], Field(max_length=_MOST_PARTS), BeforeValidator(_as_parts), WithJsonSchema(_CONTENT_SCHEMA)
    ] = []

    @property
    def text(self) -> str:
        """Its text parts, one a line."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart) and part.text)

    @property
    def pictures(self) -> list[str]:
        """The URLs of its pictures."""
        return [part.image_url.url for part in self.content if isinstance(part, ImagePart)]


class StreamOptions(BaseModel):
    """``include_usage``: one more piece at the end, with the tokens read and made."""

    include_usage: bool | None = False


class AnomalyOptions(BaseModel):
    """Ours. ``item``: a stored picture to talk about, instead of one in the messages. ``region``: the question is about
    this region of the finding, from 0. ``reading``: how the language model reads the picture.
    """

    model_config = ConfigDict(extra="forbid")

    item: str | None = Field(default=None, max_length=200)
    region: int | None = Field(default=None, ge=0)
    reading: Literal["full", "focus", "highlight"] | None = None


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``; the module says which further fields are refused or not used."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(default=None, max_length=1000)
    messages: list[ChatMessage] = Field(min_length=1, max_length=_MOST_MESSAGES)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, WithJsonSchema({"enum": [1, None]})] = None
    anomaly: Annotated[AnomalyOptions, BeforeValidator(lambda value: {} if value is None else value)] = AnomalyOptions()

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def most_tokens(self, default: int, cap: int) -> int:
        """How long the answer may become: what is asked for, never more than ``cap``."""
        return min(self.max_completion_tokens or self.max_tokens or default, cap)


@dataclass(frozen=True)
class RequestConversation:
    """What a request says: the ``question`` asked now, what was said before, the URLs of all pictures, each once."""

    question: str
    history: tuple[Message, ...]
    pictures: tuple[str, ...]
    ignored: tuple[str, ...]


def request_of(body: bytes) -> ChatRequest:
    """The request in a body. Raises ``Fault`` 400 that names the first field that is wrong or not supported, or 413."""
    require_modest(body)
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        raise fault_of_fields(wrong, 400, "bad_request", "see /openapi.json") from None
    _refuse_unsupported(request)
    return request


def conversation_of(request: ChatRequest) -> RequestConversation:
    """Turns as the model was taught them: user and assistant by turns, the user first and last.

    Neighbours of one role become one turn, and an assistant's greeting is dropped. Raises ``Fault`` 400 when the last
    turn is not a question.
    """
    ignored = [name for name in WITHOUT_EFFECT if (request.model_extra or {}).get(name) not in _NOTHING]
    turns: list[Message] = []
    pictures: dict[str, None] = {}
    for message in request.messages:
        if message.role in ("system", "developer"):
            ignored.append("system message")
            continue
        if message.role == "assistant" and not turns:
            ignored.append("greeting")
            continue
        pictures |= dict.fromkeys(message.pictures)
        if turns and turns[-1][0] == message.role:
            joined = "\n".join(text for text in (turns.pop()[1], message.text) if text)
            turns.append((message.role, joined))
        else:
            turns.append((message.role, message.text))
    if not turns or turns[-1][0] != "user":
        raise Fault(
            400, "bad_request", "the last message is not the user's", hint="end with a question", param="messages"
        )
    (_, question), history = turns[-1], turns[:-1]
    if not question.strip():
        hint = "add a text part, for example 'Is anything wrong here?'"
        raise Fault(400, "bad_request", "the last message asks nothing", hint=hint, param="messages")
    return RequestConversation(question, tuple(history), tuple(pictures), tuple(dict.fromkeys(ignored)))


def request_schema() -> dict[str, Any]:
    """JSON schema of a request in one piece, for the OpenAPI document."""
    schema = ChatRequest.model_json_schema()
    definitions = schema.pop("$defs")

    def inlined(value: Any) -> Any:
        if isinstance(value, list):
            return [inlined(one) for one in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        rest = {key: inlined(one) for key, one in value.items() if key != "$ref"}
        return inlined(definitions[name]) | rest if name else rest

    whole: dict[str, Any] = inlined(schema)
    return whole


def _refuse_unsupported(request: ChatRequest) -> None:
    extra = request.model_extra or {}
    if request.n not in (None, 1):
        raise _unsupported("n", "there is one answer to a question", "leave it out, or ask several times")
    for name in REFUSED:
        if extra.get(name) not in _NOTHING:
            raise _unsupported(name, f"'{name}' is not supported", "leave it out")
    form = extra.get("response_format")
    if form is not None and form != {"type": "text"}:
        raise _unsupported("response_format", "answers are plain text", "leave it out; 'anomaly.finding' is structured")
    if extra.get("modalities") not in (None, [], ["text"]):
        raise _unsupported("modalities", "answers are plain text", "leave it out")


def _unsupported(name: str, what: str, hint: str) -> Fault:
    return Fault(400, "unsupported", what, hint=hint, param=name)


class AnomalyReply(BaseModel):
    """Ours. ``finding``: the published record of the picture, of several views the most anomalous one's; ``findings``:
    all views', if there are several. ``p_yes``: P(yes) / (P(yes) + P(no)) of the answer, where it says either.
    ``ignored``: what the request asked for that has no effect here. ``contradiction``: the record's verdict where a
    language model's text says the opposite.
    """

    finding: Record  # type: ignore[valid-type]
    findings: list[Record] | None = None  # type: ignore[valid-type]
    p_yes: float | None
    ignored: list[str]
    contradiction: str | None = None


class Usage(BaseModel):
    """Tokens as the language model counts them, those of the pictures included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReplyMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one answer. ``finish_reason``: "length" where it was cut at the most tokens allowed."""

    index: int
    message: ReplyMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    anomaly: AnomalyReply


@dataclass(frozen=True)
class ChatResponse:
    """Writes one answer to ``request`` by ``model`` (of ``revision``), whole or piece by piece."""

    model: str
    revision: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer, anomaly: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
        return self._head("chat.completion", [choice]) | {"usage": usage_of(answer), "anomaly": anomaly}

    def first(self, anomaly: dict[str, Any]) -> bytes:
        """The first event of a stream: the finding, before a word is said."""
        return self._event({"role": "assistant", "content": ""}, {"anomaly": anomaly})

    def piece(self, text: str) -> bytes:
        """An event with the next piece of text."""
        return self._event({"content": text}, {})

    def last(self, answer: Answer) -> bytes:
        """The events that end a stream: why it ended and P(yes), the usage if it is wanted, ``[DONE]``."""
        ours: dict[str, Any] = {"p_yes": answer.p_yes}
        if answer.contradiction is not None:
            ours["contradiction"] = answer.contradiction
        end = self._event({}, {"anomaly": ours}, answer.finish)
        if self.include_usage:
            end += event(self._head("chat.completion.chunk", []) | {"usage": usage_of(answer)})
        return end + b"data: [DONE]\n\n"

    def _event(self, delta: dict[str, str], extra: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self.include_usage else {}
        return event(self._head("chat.completion.chunk", [choice]) | usage | extra)

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.revision,
            "choices": choices,
        }


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def usage_of(answer: Answer) -> dict[str, int]:
    """OpenAI's usage object."""
    read, made = answer.tokens_in or 0, answer.tokens_out or 0
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
