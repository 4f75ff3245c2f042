"""All that one running service is made of, as the routes find it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from anomaly_ov.inspector import Inspector
from anomaly_ov_server.access import Access
from anomaly_ov_server.batch_runner import BatchRunner
from anomaly_ov_server.chat_worker import ChatWorker
from anomaly_ov_server.inference_worker import InferenceWorker
from anomaly_ov_server.metrics import Metrics
from anomaly_ov_server.settings import ServeSettings
from anomaly_ov_server.store.store import Store


@dataclass
class Service:
    """``request.app.state.service``. ``stopping``: set once, when the process has been told to end."""

    settings: ServeSettings
    inspector: Inspector
    engine: InferenceWorker
    access: Access
    metrics: Metrics
    store: Store
    runner: BatchRunner
    speaker: ChatWorker
    stopping: bool = False

    @property
    def takes_work(self) -> bool:
        """False from the moment that the service is told to stop."""
        return not self.stopping and self.engine.takes_work

    def refuse(self) -> None:
        """Takes nothing more; what was taken goes on."""
        self.stopping = True
        self.engine.refuse()


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    service: Service = request.app.state.service
    return service
