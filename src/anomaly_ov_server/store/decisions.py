"""What reviewers decide. Nothing is ever overwritten: an undo is one more entry, and leads one step back."""

from __future__ import annotations

import sqlite3

from anomaly_ov_server.reviewed import Verdict
from anomaly_ov_server.store.batches import next_revision, require_item
from anomaly_ov_server.store.names import now


def decide(connection: sqlite3.Connection, item: str, verdict: Verdict, note: str) -> None:
    """A new decision about ``item``; repeating the present one changes nothing. Raises ``Fault`` 404."""
    row = require_item(connection, item)
    current = _decision(connection, row["decision"])
    if current is not None and (current["verdict"], current["note"]) == (verdict, note):
        return
    added = connection.execute(
        "INSERT INTO decision (item, action, verdict, note, at, previous) VALUES (?, 'decide', ?, ?, ?, ?)",
        (item, verdict, note, now(), row["decision"]),
    )
    _point(connection, row, added.lastrowid, verdict)


def undo(connection: sqlite3.Connection, item: str) -> None:
    """Back to what was decided before, or to nothing; without a decision nothing changes. Raises ``Fault`` 404."""
    row = require_item(connection, item)
    current = _decision(connection, row["decision"])
    if current is None:
        return
    before = _decision(connection, current["previous"])
    verdict, note = (None, "") if before is None else (before["verdict"], before["note"])
    connection.execute(
        "INSERT INTO decision (item, action, verdict, note, at, previous) VALUES (?, 'undo', ?, ?, ?, NULL)",
        (item, verdict, note, now()),
    )
    _point(connection, row, current["previous"], verdict)


def _decision(connection: sqlite3.Connection, number: int | None) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute("SELECT * FROM decision WHERE number = ?", (number,)).fetchone()
    return row


def _point(connection: sqlite3.Connection, row: sqlite3.Row, number: int | None, verdict: Verdict | None) -> None:
    """Makes ``number`` the item's present decision."""
    revision = next_revision(connection, row["batch"])
    connection.execute(
        "UPDATE item SET decision = ?, verdict = ?, revision = ? WHERE id = ?", (number, verdict, revision, row["id"])
    )
