"""Which pictures are to be scored, and what came of it. An item and a context have one finding, whoever asks twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anomaly_ov.records import Finding
from anomaly_ov_server.store.batches import next_revision
from anomaly_ov_server.store.names import now
from anomaly_ov_server.store.rows import ScoredBy, Task, Work

ALONE_FROM = 3
"""From this attempt on a picture is scored alone: those before ended with the process, and it may be the cause."""


@dataclass(frozen=True)
class Result:
    """One finding to be kept. ``record``: as published, without paths; ``has_map``: whether its map is on disk."""

    item: str
    record: dict[str, Any]
    has_map: bool


def recover(connection: sqlite3.Connection) -> None:
    """What an earlier process had begun is to be done."""
    connection.execute("UPDATE item SET state = 'pending' WHERE state = 'scoring'")


def take(connection: sqlite3.Connection, limit: int, after: int) -> Work | None:
    """The next pictures of one batch, marked as begun; batches take turns: first those behind number ``after``."""
    waiting = (
        "SELECT batch.id, batch.number, batch.context FROM batch JOIN context ON context.id = batch.context "
        "WHERE context.state = 'ready' AND {} AND EXISTS "
        "(SELECT 1 FROM item WHERE item.batch = batch.id AND item.state = 'pending') ORDER BY batch.number LIMIT 1"
    )
    batch = connection.execute(waiting.format("batch.number > ?"), (after,)).fetchone()
    batch = batch or connection.execute(waiting.format("batch.number <= ?"), (after,)).fetchone()
    if batch is None:
        return None
    rows = connection.execute(
        "SELECT * FROM item WHERE batch = ? AND state = 'pending' ORDER BY attempts, position LIMIT ?",
        (batch["id"], limit),
    ).fetchall()
    tasks = [Task(row["id"], row["name"], row["sha256"], row["page"], row["attempts"] + 1) for row in rows]
    if tasks[0].attempts >= ALONE_FROM:
        del tasks[1:]
    else:
        tasks = [task for task in tasks if task.attempts < ALONE_FROM]
    connection.executemany(
        "UPDATE item SET state = 'scoring', attempts = attempts + 1 WHERE id = ?", [(task.item,) for task in tasks]
    )
    return Work(batch["id"], batch["number"], batch["context"], tasks)


def release(connection: sqlite3.Connection, items: Sequence[str]) -> None:
    """Gives back what was taken and not begun."""
    connection.executemany(
        "UPDATE item SET state = 'pending', attempts = max(attempts - 1, 0) WHERE id = ? AND state = 'scoring'",
        [(item,) for item in items],
    )


def keep(
    connection: sqlite3.Connection, batch: str, context: str, results: Sequence[Result], scored_by: ScoredBy
) -> list[tuple[str, str]]:
    """Writes findings; those of items that are gone, or have one for this context, are left out.

    Returns the findings (item, context) that these replace.
    """
    row = connection.execute("SELECT context FROM batch WHERE id = ?", (batch,)).fetchone()
    if row is None:
        return []
    for result in results:
        _insert(connection, batch, context, result)
    if row["context"] != context:
        return []  # another one is wanted by now, and this one may be gone
    value = (batch, context, scored_by.to_json())
    connection.execute("INSERT OR REPLACE INTO scored_by (batch, context, value) VALUES (?, ?, ?)", value)
    revision = next_revision(connection, batch)
    return [gone for result in results for gone in _show(connection, result.item, context, revision)]


def _insert(connection: sqlite3.Connection, batch: str, context: str, result: Result) -> None:
    record = result.record
    failed = record["error"] is not None
    anomalous = None if record["anomalous"] is None else int(record["anomalous"])
    connection.execute(
        "INSERT OR IGNORE INTO finding (item, context, at, failed, score, anomalous, has_map, summary, record) "
        "SELECT id, ?, ?, ?, ?, ?, ?, ?, ? FROM item WHERE id = ? AND batch = ?",
        (
            context,
            now(),
            int(failed),
            record["score"],
            anomalous,
            int(result.has_map),
            json.dumps(summary_of(record)),
            json.dumps(record),
            result.item,
            batch,
        ),
    )


def _show(connection: sqlite3.Connection, item: str, context: str, revision: int) -> list[tuple[str, str]]:
    """Shows the finding of ``context``; one of an older context than ``none`` goes."""
    before = connection.execute("SELECT shown FROM item WHERE id = ?", (item,)).fetchone()
    connection.execute(
        "UPDATE item SET state = CASE finding.failed WHEN 1 THEN 'failed' ELSE 'done' END, shown = finding.context, "
        "score = finding.score, anomalous = finding.anomalous, revision = ? FROM finding "
        "WHERE item.id = ? AND finding.item = item.id AND finding.context = ?",
        (revision, item, context),
    )
    if before is None or before["shown"] in (None, "none", context):
        return []
    connection.execute("DELETE FROM finding WHERE item = ? AND context = ?", (item, before["shown"]))
    return [(item, before["shown"])]


def summary_of(record: dict[str, Any]) -> dict[str, Any]:
    """The few values of a record that lists show."""
    return {
        "width": record["image"]["width"],
        "height": record["image"]["height"],
        "score_expert": record["score_expert"],
        "score_context": record["score_context"],
        "level": record["level"],
        "regions": len(record["regions"]),
        "error": record["error"],
        "threshold": record["threshold"],
        "model": f"{record['model']['name']} {record['model']['revision']}",
    }


def published(finding: Finding, task: Task) -> dict[str, Any]:
    """The record of ``finding`` about ``task`` under the picture's own name, with no path of the data folder.

    Of an unreadable picture too it tells the digest.
    """
    record = finding.to_json()
    record["id"] = task.name
    record["image"] = record["image"] | {"path": task.name, "sha256": task.sha256}
    return record
