"""The one error object of the service, and how every failure becomes it.

``{"error": {"type", "code", "message", "hint", "param"}}``: OpenAI's shape with our next step. ``code`` equals
``type``. Nothing of the process gets into it: an unforeseen failure says an incident's id, under which the log has the
rest.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from anomaly_ov.errors import (
    AnomalyOVError,
    ContextMismatch,
    DeviceError,
    EndpointError,
    ImageTooLarge,
    UnreadableImage,
    UsageError,
    WeightsError,
)
from anomaly_ov.images.messages import one_line
from anomaly_ov.records import ErrorInfo

log = logging.getLogger("anomaly_ov_server")

CLIENT_GONE = 499
_TYPES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
_TYPES |= {413: "too_large", 415: "unsupported_media_type", 422: "invalid_request", 429: "overloaded", 503: "stopping"}
# The first that fits. What is not a matter of the request is the server's: 500, or 503 where it may pass.
_STATUS: tuple[tuple[type[AnomalyOVError], int], ...] = (
    (UnreadableImage, 422),
    (ImageTooLarge, 413),
    (ContextMismatch, 409),
    (UsageError, 422),
    (DeviceError, 503),
    (EndpointError, 502),
    (WeightsError, 500),
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class ErrorObject(BaseModel):
    """What went wrong, for people (``message``, ``hint``) and for programs (``type``, which ``code`` equals)."""

    type: str
    code: str
    message: str
    hint: str
    param: str | None


class ErrorReply(BaseModel):
    """The body of every answer that is not the one asked for."""

    error: ErrorObject


class Fault(Exception):
    """A refusal with its HTTP status. ``param``: the field at fault; ``retry_after``: seconds until it may work."""

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.message, self.hint, self.param = status, type, message, hint, param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def to_json(self) -> dict[str, Any]:
        """The error object."""
        named = {"type": self.type, "code": self.type, "message": self.message, "hint": self.hint, "param": self.param}
        return {"error": named}

    def response(self) -> Response:
        """The error object as a response; ASCII, so that no odd character of a request can break it."""
        body = json.dumps(self.to_json())
        return Response(body, self.status, self.headers, media_type="application/json")


def _documented(description: str, *headers: str) -> dict[str, Any]:
    described = {name: {"schema": {"type": "string"}} for name in headers}
    return {"model": ErrorReply, "description": description} | ({"headers": described} if headers else {})


RESPONSES: dict[int | str, dict[str, Any]] = {
    400: _documented("The body is not what its type says"),
    401: _documented("The token is missing or wrong", "WWW-Authenticate"),
    403: _documented("The request names another host, or comes from another site"),
    404: _documented("There is no such thing"),
    405: _documented("The address exists, the method does not", "Allow"),
    409: _documented("It does not fit the present state"),
    413: _documented("More bytes, pixels or pictures than allowed"),
    415: _documented("A body of a type that is not understood"),
    422: _documented("A field is missing or wrong, or a picture cannot be read"),
    429: _documented("Too much is waiting", "Retry-After"),
    500: _documented("A fault of the service; the log has it under the incident named"),
    502: _documented("A remote picture could not be fetched"),
    503: _documented("The service is stopping, or took too long", "Retry-After"),
    507: _documented("The disk is full"),
}
"""Every status other than success, for the OpenAPI document."""


def fault_of(error: BaseException) -> Fault:
    """Any failure as a ``Fault``. What nobody foresaw is logged whole and told by an incident's id alone."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, RequestValidationError):
        return fault_of_fields(error.errors())
    if isinstance(error, HTTPException):
        return _of_http(error)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, AnomalyOVError) and status != 500:
        name = _CAMEL.sub("_", type(error).__name__).lower()
        return Fault(status, name, error.message, hint=error.hint, retry_after=5 if status == 503 else None)
    incident = secrets.token_hex(6)
    log.error("incident %s", incident, exc_info=error)
    return Fault(500, "internal", f"the service failed (incident {incident})", hint="its log says more")


def _of_http(error: HTTPException) -> Fault:
    kind = _TYPES.get(error.status_code, "internal" if error.status_code >= 500 else "bad_request")
    told = {404: "there is nothing at this address", 405: "this address does not take the method"}
    message = told.get(error.status_code) or one_line(Exception(error.detail))
    return Fault(error.status_code, kind, message, headers=dict(error.headers or {}))


def fault_of_fields(errors: Sequence[Any], status: int = 422, type: str = "invalid_request", hint: str = "") -> Fault:
    """The first of the wrong fields, as pydantic tells them; a body that is no JSON at all is 400."""
    first = errors[0] if errors else {"loc": (), "msg": "it is not understood", "type": ""}
    where = [str(part) for part in first["loc"]]
    if first["type"] == "json_invalid":
        return Fault(400, "bad_request", "the body is no JSON", hint="send one JSON object")
    place = ".".join(where[1:] if len(where) > 1 and where[0] in ("body", "query", "path", "header") else where)
    printable = place.encode("ascii", "backslashreplace").decode()[:200] or "body"
    return Fault(status, type, f"{printable}: {first['msg']}"[:1000], hint=hint, param=printable)


def fault_of_picture(error: ErrorInfo, param: str | None) -> Fault:
    """A picture's error as the answer to the whole request; ``param``: the field that brought it."""
    status, kind = (413, "image_too_large") if error.type == "ImageTooLarge" else (422, "unreadable_image")
    return Fault(status, kind, error.message, hint=error.hint, param=param)


def install(app: FastAPI) -> None:
    """Every failure of ``app`` as the error object."""

    async def answer(request: Request, error: Exception) -> Response:
        fault = fault_of(error)
        if fault.status == 405:
            fault.headers["Allow"] = ", ".join(_allowed(request))
        return fault.response()

    for kind in (Fault, AnomalyOVError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


METHODS: tuple[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], ...] = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
)


def _allowed(request: Request) -> list[str]:
    """All methods that the address takes: one path may have a route per method."""
    from starlette.routing import Match

    def takes(method: str) -> bool:
        scope = dict(request.scope) | {"method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in METHODS if takes(method)]
