"""Whether the service lives, is ready, what it counts, what it is, and signing in."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from anomaly_ov.images.colours import palette
from anomaly_ov.records import ModelInfo, Threshold
from anomaly_ov.words.from_record import QUESTIONS as OF_RECORD
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.metrics import CONTENT_TYPE
from anomaly_ov_server.service import service_of

router = APIRouter(tags=["service"])

QUESTIONS = (
    "Is there a defect?",
    "What kind of defect is it?",
    "Where is it?",
    "Why does it look anomalous?",
    "What should be done?",
)
LIMITS = (
    "max_picture_bytes",
    "max_picture_pixels",
    "max_pictures",
    "max_request_bytes",
    "max_waiting",
    "request_seconds",
    "max_answer_tokens",
)


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """``queue``: interactive pictures that wait."""

    status: Literal["ready", "stopping"]
    model: str
    queue: int


class ServiceDescription(BaseModel):
    """What the service is. ``map_threshold``: that of ``threshold`` again. ``palette``: colours of the map, 0..255.
    ``speaks``: whether a language model answers questions; else the record does. ``questions``: what may be asked.
    """

    model: ModelInfo
    speaks: bool
    threshold: Threshold
    map_threshold: float
    limits: dict[str, float]
    version: str
    palette: list[str]
    questions: list[str]
    token_required: bool
    remote_images: bool


class SignIn(BaseModel):
    """The token that the service was started with."""

    model_config = ConfigDict(extra="forbid", strict=True)
    token: str = Field(max_length=10_000)


@router.get("/healthz")
async def healthz() -> Alive:
    """Whether the process lives."""
    return Alive()


@router.get("/readyz", responses={200: {"model": Ready}, 503: {"model": Ready, "description": "It is stopping"}})
async def readyz(request: Request) -> Response:
    """Whether it takes work."""
    service = service_of(request)
    ready = Ready(
        status="ready" if service.takes_work else "stopping",
        model=service.inspector.info.name,
        queue=service.engine.waiting,
    )
    return JSONResponse(ready.model_dump(), 200 if service.takes_work else 503)


_TEXT = {200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/metrics", response_class=Response, responses=_TEXT)  # type: ignore[arg-type]
async def metrics(request: Request) -> Response:
    """What the service counts."""
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/v1/about")
async def about(request: Request) -> ServiceDescription:
    """The model, its thresholds, the limits, and what a page needs to show findings."""
    service = service_of(request)
    inspector, settings = service.inspector, service.settings
    return ServiceDescription(
        model=inspector.info,
        speaks=inspector.speaks,
        threshold=inspector.threshold,
        map_threshold=inspector.threshold.value,
        limits={name: getattr(settings, name) for name in LIMITS},
        version=version("anomaly-ov"),
        palette=[f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette().tolist()],
        questions=list(QUESTIONS if inspector.speaks else OF_RECORD),
        token_required=settings.token is not None,
        remote_images=settings.remote_images,
    )


@router.post("/v1/session", status_code=204, response_class=Response)
async def session(request: Request, given: SignIn) -> Response:
    """Exchanges the token for a cookie, for a page whose pictures cannot send a header."""
    service = service_of(request)
    if not service.access.is_token(given.token):
        asks = {"WWW-Authenticate": 'Bearer realm="anomaly-ov"'}
        raise Fault(401, "unauthorized", "the token is wrong", hint="it was set when the service started", headers=asks)
    response = Response(status_code=204)
    secure = request.url.scheme == "https"
    access = service.access
    response.set_cookie(access.cookie_name, access.cookie, httponly=True, samesite="strict", secure=secure, path="/")
    return response
