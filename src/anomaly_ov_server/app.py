"""The application: the service's parts put together, their start and their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Protocol

from fastapi import FastAPI

from anomaly_ov.inspector import Inspector
from anomaly_ov_server import faults
from anomaly_ov_server.access import Access
from anomaly_ov_server.batch_runner import BatchRunner
from anomaly_ov_server.chat_worker import ChatWorker
from anomaly_ov_server.guard import Guard
from anomaly_ov_server.inference_worker import InferenceWorker
from anomaly_ov_server.metrics import Metrics
from anomaly_ov_server.routes import batches, chat, health, inspect, items, page, results
from anomaly_ov_server.service import Service
from anomaly_ov_server.settings import ServeSettings
from anomaly_ov_server.store.store import Store, StoreLimits
from anomaly_ov_server.uploads import UPLOAD_SCHEMAS

DESCRIPTION = "How anomalous a picture is, where, and why. Texts of a language model may be wrong."
# The page's comes last: what no other address takes is looked for among its files.
ROUTERS = tuple(one.router for one in (health, inspect, batches, items, results, chat, page))


class _Part(Protocol):
    """What starts and ends with the service; both may block."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def create_app(inspector: Inspector, settings: ServeSettings) -> FastAPI:
    """The service for one model and one data folder. Raises ``UsageError`` for a folder that cannot be used."""
    service = _service(inspector, settings)
    app = FastAPI(
        title="Anomaly-OV",
        version=version("anomaly-ov"),
        description=DESCRIPTION,
        lifespan=_lifespan,
        responses=faults.RESPONSES,
        docs_url=None,  # they load their scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    faults.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Guard, gate=service)
    _describe_uploads(app)
    return app


def _service(inspector: Inspector, settings: ServeSettings) -> Service:
    metrics = Metrics()
    engine = InferenceWorker(
        inspector, batch_size=settings.batch_size, max_waiting=settings.max_waiting, observe=metrics.passed
    )
    metrics.watch("waiting_pictures", "Interactive pictures that wait for the networks", lambda: engine.waiting)
    metrics.watch("waiting_background_pictures", "Pictures of batches that wait", lambda: engine.waiting_background)
    metrics.watch("running_pictures", "Pictures in the networks now", lambda: engine.running)
    store = Store(settings.data, limits=StoreLimits(picture=settings.limits))
    runner, speaker = BatchRunner(engine, store, inspector), ChatWorker(inspector, engine)
    metrics.watch("waiting_questions", "Questions that wait for the language model", lambda: speaker.waiting)
    return Service(settings, inspector, engine, Access(settings), metrics, store, runner, speaker)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Parts start in the order in which they need each other, and end in the other one."""
    service: Service = app.state.service
    parts: tuple[_Part, ...] = (service.engine, service.runner, service.speaker)
    for part in parts:
        part.start()
    try:
        yield
    finally:
        service.refuse()
        for part in reversed(parts):
            await asyncio.to_thread(part.stop)
        service.store.close()


def _describe_uploads(app: FastAPI) -> None:
    """Adds to the OpenAPI document what the bodies of uploads refer to."""
    make = app.openapi

    def described() -> dict[str, Any]:
        document = make()
        document["components"]["schemas"] |= UPLOAD_SCHEMAS
        return document

    app.openapi = described  # type: ignore[method-assign]
