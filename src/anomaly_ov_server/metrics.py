"""What the service counts about itself, in Prometheus' text format, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_PICTURES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Requests, passes through the networks, and what waits. Safe to use from any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "anomaly_ov_requests", "Requests answered", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "anomaly_ov_request_seconds",
            "From the request's head to the end of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._pictures = Counter("anomaly_ov_pictures", "Pictures that went through the networks", registry=registry)
        self._pass_pictures = Histogram(
            "anomaly_ov_pass_pictures", "Pictures in one forward pass", buckets=_PICTURES, registry=registry
        )
        self._pass_seconds = Histogram(
            "anomaly_ov_pass_seconds", "Seconds of one forward pass", buckets=_SECONDS, registry=registry
        )

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge that is read when somebody looks."""
        Gauge(f"anomaly_ov_{name}", description, registry=self._registry).set_function(value)

    def passed(self, pictures: int, seconds: float) -> None:
        """One pass of the engine."""
        self._pictures.inc(pictures)
        self._pass_pictures.observe(pictures)
        self._pass_seconds.observe(seconds)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request. ``route``: the pattern, not the address, so that their number stays small."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it, as ``/metrics`` shows it."""
        return generate_latest(self._registry)
