"""What the HTTP interface shows: a batch with how fast it goes, and the record as the OpenAPI document describes it.

The latter is made from ``records``, so that the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, Field, create_model

from anomaly_ov import records
from anomaly_ov.records import IN_MEMORY, SCHEMA, Finding, ModelInfo
from anomaly_ov_server.service import Service
from anomaly_ov_server.store.pictures import Rejected
from anomaly_ov_server.store.rows import Batch, BatchContext, Counts, ThresholdUsed


@dataclass(frozen=True)
class BatchView:
    """``model``, ``threshold``: of the findings with this context, before the first the model alone.
    ``map_threshold``: the threshold's value again, from when regions had one of their own.

    ``rate``: pictures per second of late; ``eta_s``: seconds until all are scored at that rate; both null while
    nothing goes on. ``revision`` grows with every change to the batch or its items.
    """

    id: str
    name: str
    created: str
    state: Literal["empty", "running", "done"]
    counts: Counts
    context: BatchContext
    model: ModelInfo
    threshold: ThresholdUsed
    map_threshold: float
    rate: float | None
    eta_s: float | None
    revision: int


@dataclass(frozen=True)
class NewBatchView(BatchView):
    """A new batch, and the pictures sent with it that were not taken."""

    rejected: list[Rejected] = field(default_factory=list)


def view_of(service: Service, batch: Batch) -> BatchView:
    """``batch`` with what the runner and the model know of it."""
    inspector, scored_by = service.inspector, batch.scored_by
    running = batch.state == "running"
    rate = service.runner.rate(batch.id) if running else None
    own = inspector.threshold
    threshold = scored_by.threshold if scored_by else ThresholdUsed(own.value, own.source)
    return BatchView(
        id=batch.id,
        name=batch.name,
        created=batch.created,
        state=batch.state,
        counts=batch.counts,
        context=batch.context,
        model=ModelInfo(**scored_by.model) if scored_by else inspector.info,
        threshold=threshold,
        map_threshold=threshold.value,
        rate=None if rate is None else round(rate, 3),
        eta_s=round(batch.counts.pending / rate, 1) if rate and batch.counts.pending else None,
        revision=batch.revision,
    )


def new_view_of(service: Service, batch: Batch, rejected: list[Rejected]) -> NewBatchView:
    """As ``view_of`` for the answer to its creation."""
    view = view_of(service, batch)
    values = {name: getattr(view, name) for name in view.__dataclass_fields__}
    return NewBatchView(**values, rejected=rejected)


_FIELDS: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(Finding).items() if name not in IN_MEMORY}
_SCHEMA: dict[str, Any] = {"schema_": (Literal[SCHEMA], Field(alias="schema"))}

Record: type[BaseModel] = create_model("Record", __doc__=records.__doc__, **_SCHEMA, **_FIELDS)
"""``Finding.to_json()``."""
