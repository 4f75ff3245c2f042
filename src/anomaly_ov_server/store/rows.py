"""What the store hands out: frozen values in the shapes of the HTTP interface, and how they are read from rows."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from anomaly_ov.records import level_beside
from anomaly_ov_server.reviewed import Decision, Verdict

Wanted = Literal["auto", "none", "folder", "references"]
ContextState = Literal["building", "ready", "failed"]
ItemState = Literal["pending", "done", "failed"]


@dataclass(frozen=True)
class Problem:
    """Why something failed: a short name, what happened, what to do."""

    type: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class ThresholdUsed:
    """What a score was compared with, and where that value comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class Counts:
    """Items of a batch. ``pending``: not scored against its context yet; ``decided``: with a verdict."""

    total: int = 0
    done: int = 0
    failed: int = 0
    pending: int = 0
    anomalous: int = 0
    normal: int = 0
    decided: int = 0


@dataclass(frozen=True)
class BatchContext:
    """What was last asked for as a batch's context. ``references``: how many pictures serve.

    ``auto``: whether the service chooses between none and folder, ``reason``: why it chose so, one sentence.
    """

    kind: Literal["none", "folder", "references"]
    source: str | None
    references: int | None
    state: ContextState
    error: Problem | None = None
    auto: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class ScoredBy:
    """The model and the threshold that a batch's latest findings were made with."""

    model: dict[str, Any]
    threshold: ThresholdUsed

    def to_json(self) -> str:
        """As kept in the database."""
        threshold = {"value": self.threshold.value, "source": self.threshold.source}
        return json.dumps({"model": self.model, "threshold": threshold})

    @classmethod
    def of_json(cls, text: str) -> ScoredBy:
        """The reverse of ``to_json``."""
        values = json.loads(text)
        return cls(values["model"], ThresholdUsed(**values["threshold"]))


@dataclass(frozen=True)
class Batch:
    """``number``: order of creation. ``context``: as last asked for; ``context_id``: what scores are made with.

    ``revision`` grows with each change. ``scored_by``: None before the first
    finding with that context.
    """

    id: str
    number: int
    name: str
    created: str
    revision: int
    counts: Counts
    context: BatchContext
    context_id: str
    scored_by: ScoredBy | None

    @property
    def state(self) -> Literal["empty", "running", "done"]:
        """Running while a picture waits or a context is being built."""
        if self.counts.pending or self.context.state == "building":
            return "running"
        return "done" if self.counts.total else "empty"


@dataclass(frozen=True)
class Item:
    """One picture of a batch and what is shown of it: while it waits to be scored again, its earlier finding.

    ``context``: id of the context that this was made with (``none`` for no context), null before the first finding.
    """

    id: str
    batch: str
    position: int
    name: str
    sha256: str
    revision: int
    width: int | None
    height: int | None
    state: ItemState
    score: float | None
    score_expert: float | None
    score_context: float | None
    anomalous: bool | None
    level: str | None
    regions: int
    error: Problem | None
    decision: Decision | None
    threshold: ThresholdUsed | None
    model: str | None
    context: str | None


@dataclass(frozen=True)
class Page:
    """Part of a batch's items. ``total``: how many match; ``revision``: of the batch at the time of reading."""

    items: list[Item]
    total: int
    revision: int


@dataclass(frozen=True)
class Step:
    """One entry of an item's history. ``verdict``: None when nothing was left to go back to."""

    action: Literal["decide", "undo"]
    verdict: Verdict | None
    note: str
    at: str


@dataclass(frozen=True)
class ItemDetail:
    """``finding``: the full record that is shown, None before the first. ``decisions``: oldest first."""

    item: Item
    finding: dict[str, Any] | None
    decisions: list[Step]


@dataclass(frozen=True)
class Task:
    """A picture to be scored. ``attempts``: how often that was begun, this time included."""

    item: str
    name: str
    sha256: str
    page: int
    attempts: int


@dataclass(frozen=True)
class Work:
    """Pictures of one batch, to be scored together with one context (``none`` for no context)."""

    batch: str
    number: int
    context: str
    tasks: list[Task]


@dataclass(frozen=True)
class ContextJob:
    """A context to be built from ``tasks`` (``attempts`` is that of the job); if ``auto``, only if it helps."""

    id: str
    batch: str
    kind: Literal["folder", "references"]
    source: str
    attempts: int
    auto: bool
    tasks: list[Task]


def problem_of(text: str | None) -> Problem | None:
    """An error as kept in the database."""
    return Problem(**json.loads(text)) if text else None


def item_of(row: sqlite3.Row, threshold: float | None = None) -> Item:
    """A row of ``listing.COLUMNS``. ``threshold``: of the score, in place of the finding's own."""
    summary = json.loads(row["summary"]) if row["summary"] else {}
    score, used, level = row["score"], summary.get("threshold"), summary.get("level")
    limit = ThresholdUsed(**used) if used else None
    if threshold is not None and score is not None:
        limit, level = ThresholdUsed(threshold, "chosen for this view"), level_beside(score, threshold)
    decided = None if row["verdict"] is None else Decision(row["verdict"], row["note"], row["decided_at"])
    return Item(
        id=row["id"],
        batch=row["batch"],
        position=row["position"],
        name=row["name"],
        sha256=row["sha256"],
        revision=row["revision"],
        width=summary.get("width"),
        height=summary.get("height"),
        state="pending" if row["state"] == "scoring" else row["state"],
        score=score,
        score_expert=summary.get("score_expert"),
        score_context=summary.get("score_context"),
        anomalous=None if score is None or limit is None else score >= limit.value,
        level=level,
        regions=summary.get("regions", 0),
        error=Problem(**summary["error"]) if summary.get("error") else None,
        decision=decided,
        threshold=limit,
        model=summary.get("model"),
        context=row["shown"],
    )
