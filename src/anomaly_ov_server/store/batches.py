"""Batches: what is read of them, what every change to one begins with, and which files belong to rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from anomaly_ov_server.faults import Fault
from anomaly_ov_server.store.folder import Folder
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


def require_batch(connection: sqlite3.Connection, batch: str) -> sqlite3.Row:
    """The row of ``batch``. Raises ``Fault`` 404."""
    row: sqlite3.Row | None = connection.execute("SELECT * FROM batch WHERE id = ?", (batch,)).fetchone()
    if row is None:
        raise Fault(404, "not_found", "there is no such batch", hint="GET /v1/batches lists them")
    return row


def require_item(connection: sqlite3.Connection, item: str) -> sqlite3.Row:
    """The row of ``item``. Raises ``Fault`` 404."""
    row: sqlite3.Row | None = connection.execute("SELECT * FROM item WHERE id = ?", (item,)).fetchone()
    if row is None:
        raise Fault(404, "not_found", "there is no such item", hint="GET /v1/batches/{id}/items lists them")
    return row


def next_revision(connection: sqlite3.Connection, batch: str) -> int:
    """Counts a change to ``batch``; the number is for the items that changed. Raises ``Fault`` 404."""
    row = connection.execute(
        "UPDATE batch SET revision = revision + 1 WHERE id = ? RETURNING revision", (batch,)
    ).fetchone()
    if row is None:
        raise Fault(404, "not_found", "there is no such batch", hint="GET /v1/batches lists them")
    return int(row[0])


def expected(connection: sqlite3.Connection) -> tuple[set[str], set[str], set[str], set[str]]:
    """Digests of pictures and of their pages, names of maps (ITEM-CONTEXT), ids of contexts."""

    def column(query: str) -> set[str]:
        return {row[0] for row in connection.execute(query)}

    return (
        column("SELECT DISTINCT sha256 FROM item"),
        column("SELECT DISTINCT digest FROM item"),
        column("SELECT item || '-' || context FROM finding WHERE has_map = 1"),
        column("SELECT id FROM context"),
    )


def leftovers(connection: sqlite3.Connection, folder: Folder, batch: str) -> list[Path]:
    """The files that nothing needs once ``batch`` is gone. Pictures that another batch has too are not among them."""
    pictures = connection.execute(
        "SELECT DISTINCT sha256, digest FROM item AS own WHERE batch = :batch AND NOT EXISTS "
        "(SELECT 1 FROM item AS other WHERE other.sha256 = own.sha256 AND other.batch <> :batch)",
        {"batch": batch},
    ).fetchall()
    maps = connection.execute(
        "SELECT finding.item, finding.context FROM finding JOIN item ON item.id = finding.item WHERE item.batch = ?",
        (batch,),
    )
    made = connection.execute("SELECT id FROM context WHERE batch = ?", (batch,))
    return [
        *(path(row["digest"]) for row in pictures for path in (folder.thumbnail, folder.preview)),
        *{folder.picture(row["sha256"]) for row in pictures},
        *(folder.map(row["item"], row["context"]) for row in maps),
        *(folder.context(row["id"]) for row in made),
    ]
