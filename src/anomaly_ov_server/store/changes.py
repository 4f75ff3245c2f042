"""What every change to a batch begins with: its row, or a 404, and its next revision."""

from __future__ import annotations

import sqlite3

from anomaly_ov_server.faults import Fault


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
