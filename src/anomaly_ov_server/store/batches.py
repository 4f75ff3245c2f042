"""Batches as they are read: their row, what is counted of their items, and the context they want."""

from __future__ import annotations

import sqlite3

from anomaly_ov_server.store.changes import require_batch
from anomaly_ov_server.store.rows import Batch, BatchContext, Counts, ScoredBy, problem_of

_COUNTS = """
SELECT count(*) AS total,
  total(state = 'done') AS done,
  total(state = 'failed') AS failed,
  total(state IN ('pending', 'scoring')) AS pending,
  total(anomalous = 1) AS anomalous,
  total(anomalous = 0) AS normal,
  count(verdict) AS decided
FROM item WHERE batch = ?
"""


def read_batch(connection: sqlite3.Connection, batch: str) -> Batch:
    """Raises ``Fault`` 404."""
    return _batch(connection, require_batch(connection, batch))


def read_batches(connection: sqlite3.Connection, limit: int) -> list[Batch]:
    """The newest first."""
    rows = connection.execute("SELECT * FROM batch ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
    return [_batch(connection, row) for row in rows]


def _batch(connection: sqlite3.Connection, row: sqlite3.Row) -> Batch:
    scored_by = connection.execute(
        "SELECT value FROM scored_by WHERE batch = ? AND context = ?", (row["id"], row["context"])
    ).fetchone()
    counts = connection.execute(_COUNTS, (row["id"],)).fetchone()
    wanted = connection.execute("SELECT * FROM context WHERE id = ?", (row["wanted"],)).fetchone()
    return Batch(
        id=row["id"],
        number=row["number"],
        name=row["name"],
        created=row["created"],
        revision=row["revision"],
        counts=Counts(**{name: int(counts[name]) for name in counts.keys()}),  # noqa: SIM118 - a Row is no mapping
        context=BatchContext(
            wanted["kind"],
            wanted["source"],
            wanted["pictures"],
            wanted["state"],
            problem_of(wanted["error"]),
            bool(row["auto"]),
            row["reason"],
        ),
        context_id=row["context"],
        scored_by=ScoredBy.of_json(scored_by["value"]) if scored_by else None,
    )
