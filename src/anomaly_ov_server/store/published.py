"""A finding as it is kept: the published record, under the picture's own name, with no path of the data folder."""

from __future__ import annotations

from typing import Any

from anomaly_ov.records import Finding
from anomaly_ov_server.store.rows import Task


def published(finding: Finding, task: Task) -> dict[str, Any]:
    """The record of ``finding`` about ``task``; of an unreadable picture too it tells the digest."""
    record = finding.to_json()
    record["id"] = task.name
    record["image"] = record["image"] | {"path": task.name, "sha256": task.sha256}
    return record
