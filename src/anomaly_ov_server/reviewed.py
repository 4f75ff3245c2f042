"""What is known of one picture of a batch: its record, and what a person decided about it. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["normal", "anomalous", "unsure"]


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided. ``at``: UTC, ISO 8601 to the second."""

    verdict: Verdict
    note: str
    at: str


@dataclass(frozen=True)
class Reviewed:
    """One picture of a batch. ``record``: its finding's JSON form (``records.Finding.to_json``), None while pending.

    ``position``: from 0, in the order of arrival. ``picture``: the file as it was sent. ``map_path``: grey PNG, 0..255
    for 0..1 at the map's own size, None without a map. ``preview``, ``thumbnail``: WebP, None if unreadable.
    """

    id: str
    position: int
    name: str
    sha256: str
    record: dict[str, Any] | None
    decision: Decision | None
    picture: Path
    map_path: Path | None
    preview: Path | None
    thumbnail: Path | None
