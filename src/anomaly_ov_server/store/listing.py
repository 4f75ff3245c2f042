"""Items as they are read: one, a page of a batch sorted and filtered, or all in the order of arrival."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Literal

from anomaly_ov_server.reviewed import Decision, Reviewed
from anomaly_ov_server.store.batches import require_batch
from anomaly_ov_server.store.folder import Folder
from anomaly_ov_server.store.rows import Item, ItemDetail, Page, Step, item_of

Sort = Literal["-score", "score", "position", "name", "decision"]
Show = Literal["all", "anomalous", "normal", "undecided", "decided", "failed", "pending"]

COLUMNS = "item.*, finding.summary, finding.has_map, decision.note, decision.at AS decided_at"
JOINED = """
FROM item LEFT JOIN finding ON finding.item = item.id AND finding.context = item.shown
LEFT JOIN decision ON decision.number = item.decision
"""
_ORDER: dict[Sort, str] = {
    "-score": "item.score DESC, item.position",
    "score": "item.score IS NULL, item.score, item.position",
    "position": "item.position",
    "name": "item.sort_name, item.position",
    "decision": (
        "CASE item.verdict WHEN 'anomalous' THEN 0 WHEN 'unsure' THEN 1 WHEN 'normal' THEN 2 ELSE 3 END, "
        "item.score IS NULL, item.score DESC, item.position"
    ),
}
_SHOWN: dict[Show, str] = {
    "all": "1",
    "anomalous": "item.anomalous = 1",
    "normal": "item.anomalous = 0",
    "undecided": "item.verdict IS NULL",
    "decided": "item.verdict IS NOT NULL",
    "failed": "item.state = 'failed'",
    "pending": "item.state IN ('pending', 'scoring')",
}
_SHOWN_AT: dict[Show, str] = {"anomalous": "item.score >= :threshold", "normal": "item.score < :threshold"}
EACH = 500


def read_item(connection: sqlite3.Connection, item: str) -> Item | None:
    """None for an unknown id."""
    row = connection.execute(f"SELECT {COLUMNS} {JOINED} WHERE item.id = ?", (item,)).fetchone()
    return None if row is None else item_of(row)


def read_detail(connection: sqlite3.Connection, item: str) -> ItemDetail | None:
    """An item with its record and everything that was decided about it; None for an unknown id."""
    row = connection.execute(f"SELECT {COLUMNS}, finding.record {JOINED} WHERE item.id = ?", (item,)).fetchone()
    if row is None:
        return None
    steps = connection.execute("SELECT * FROM decision WHERE item = ? ORDER BY number", (item,))
    history = [Step(step["action"], step["verdict"], step["note"], step["at"]) for step in steps]
    return ItemDetail(item_of(row), json.loads(row["record"]) if row["record"] else None, history)


def read_page(
    connection: sqlite3.Connection,
    batch: str,
    *,
    sort: Sort,
    show: Show,
    threshold: float | None,
    text: str,
    offset: int,
    limit: int,
    since: int | None,
) -> Page:
    """See ``Store.items``. Raises ``Fault`` 404."""
    revision = int(require_batch(connection, batch)["revision"])
    shown = _SHOWN[show] if threshold is None else _SHOWN_AT.get(show, _SHOWN[show])
    where = [f"item.batch = :batch AND {shown}"]
    values: dict[str, Any] = {"batch": batch, "threshold": threshold, "offset": offset, "limit": limit}
    if text:
        where.append(r"item.name LIKE :text ESCAPE '\'")
        values["text"] = f"%{_literal(text)}%"
    if since is not None:
        where.append("item.revision > :since")
        values["since"] = since
    condition = " AND ".join(where)
    (total,) = connection.execute(f"SELECT count(*) FROM item WHERE {condition}", values).fetchone()
    # Sorted and cut before anything is joined: a sorter that carries summaries takes ten times as long.
    numbers = connection.execute(
        f"SELECT item.number FROM item WHERE {condition} ORDER BY {_ORDER[sort]} LIMIT :limit OFFSET :offset", values
    )
    of_number = f"SELECT {COLUMNS} {JOINED} WHERE item.number = ?"
    rows = [connection.execute(of_number, tuple(number)).fetchone() for number in numbers.fetchall()]
    return Page([item_of(row, threshold) for row in rows], int(total), revision)


def read_reviewed(
    connection: sqlite3.Connection, folder: Folder, batch: str, after: int, most: int = EACH
) -> list[Reviewed]:
    """The next items of a batch behind position ``after``, some at a time; none at the end."""
    rows = connection.execute(
        f"SELECT {COLUMNS}, finding.record {JOINED} WHERE item.batch = ? AND item.position > ? "
        "ORDER BY item.position LIMIT ?",
        (batch, after, most),
    )
    return [_reviewed(row, folder) for row in rows]


def _reviewed(row: sqlite3.Row, folder: Folder) -> Reviewed:
    decision = None if row["verdict"] is None else Decision(row["verdict"], row["note"], row["decided_at"])
    return Reviewed(
        id=row["id"],
        position=row["position"],
        name=row["name"],
        sha256=row["sha256"],
        record=json.loads(row["record"]) if row["record"] else None,
        decision=decision,
        picture=folder.picture(row["sha256"]),
        map_path=folder.map(row["id"], row["shown"]) if row["has_map"] else None,
        preview=folder.preview(row["digest"]) if row["has_map"] else None,
        thumbnail=folder.thumbnail(row["digest"]) if row["has_map"] else None,
    )


def _literal(text: str) -> str:
    """``text`` for LIKE, standing for itself."""
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
