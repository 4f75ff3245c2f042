"""What all rows of one export have in common, and what counts of one row: its state, and who said what of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from anomaly_ov.records import ModelInfo, Threshold
from anomaly_ov_server.reviewed import Reviewed

State = Literal["pending", "failed", "done"]
Result = Literal["anomalous", "normal", "unsure", "none"]

CHOSEN = "chosen on export"
"""Source of a threshold that was given with the request."""


@dataclass(frozen=True)
class About:
    """``created``, ``exported_at``: UTC, ISO 8601. ``threshold``: of score and map, 0..1.

    ``context``: as in the batch, ``{kind, source, references, ...}``.
    """

    batch_id: str
    name: str
    created: str
    model: ModelInfo
    threshold: Threshold
    context: dict[str, Any]
    exported_at: str


def threshold_of(row: Reviewed, about: About) -> dict[str, Any]:
    """What the row was judged by, {value, source}; before its first finding the batch's."""
    used = (row.record or {}).get("threshold")
    return asdict(about.threshold) if used is None else dict(used)


def state_of(row: Reviewed) -> State:
    """Whether a score is still to come, cannot come, or is there."""
    if row.record is None:
        return "pending"
    return "failed" if row.record["error"] is not None else "done"


def result_of(row: Reviewed) -> Result:
    """A person's decision, or what the threshold says where there is none; "none" if neither."""
    if row.decision is not None:
        return row.decision.verdict
    if row.record is None or row.record["anomalous"] is None:
        return "none"
    return "anomalous" if row.record["anomalous"] else "normal"
