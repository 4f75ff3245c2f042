"""What says what is normal for a batch: asked for, built by the runner, then used to score every item anew.

A new batch is automatic: judged without a context while it holds few pictures, and from then on beside its own pictures
if they are alike enough. It is tried again when there are twice as many, so that what comes in over hours is scored
anew a few times only, and the pictures that serve are at least half of all.

Until a context is ready the batch keeps the scores and the context it has; if it cannot be built, for good.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Literal

from anomaly_ov.context.build import FEWEST_FOR_AUTO
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.store.batches import next_revision, require_batch
from anomaly_ov_server.store.names import new_id
from anomaly_ov_server.store.rows import ContextJob, Problem, Task, Wanted

NONE = "none"
TOO_FEW = f"there are fewer than {FEWEST_FOR_AUTO} pictures, so each is judged by itself"


def want(connection: sqlite3.Connection, batch: str, kind: Wanted, items: Sequence[str]) -> list[str]:
    """Asks for a context. Returns the ids of those that nothing needs any more.

    Raises ``Fault`` 404 (no such batch) and 422 (no items, or of another batch).
    """
    row = require_batch(connection, batch)
    connection.execute("UPDATE batch SET auto = ?, reason = NULL, tried = 0 WHERE id = ?", (kind == "auto", batch))
    if kind == "auto":
        return follow(connection, batch)
    if kind == "none":
        return _use_none(connection, batch)
    chosen = sorted(set(items)) if kind == "references" else _all_items(connection, batch)
    if not chosen:
        raise Fault(422, "no_pictures", "there are no pictures to tell what is normal", param="items")
    _require_own(connection, batch, chosen)
    return _ask(connection, row, kind, chosen)


def follow(connection: sqlite3.Connection, batch: str) -> list[str]:
    """Has an automatic choice suit the pictures that are there now; ids as ``want``. Raises ``Fault`` 404."""
    row = require_batch(connection, batch)
    if not row["auto"]:
        return []
    (count,) = connection.execute("SELECT count(*) FROM item WHERE batch = ?", (batch,)).fetchone()
    if count < FEWEST_FOR_AUTO:
        if row["reason"] == TOO_FEW and row["wanted"] == NONE:
            return []
        connection.execute("UPDATE batch SET reason = ? WHERE id = ?", (TOO_FEW, batch))
        return _use_none(connection, batch)
    if not _worth_trying(connection, row, count):
        return []
    connection.execute("UPDATE batch SET tried = ?, reason = NULL WHERE id = ?", (count, batch))
    return _ask(connection, row, "folder", _all_items(connection, batch))


def _worth_trying(connection: sqlite3.Connection, row: sqlite3.Row, count: int) -> bool:
    tried = row["tried"]
    if count == tried:
        return False
    wanted = connection.execute("SELECT * FROM context WHERE id = ?", (row["wanted"],)).fetchone()
    if wanted["state"] == "building" and not wanted["attempts"]:
        return True  # nothing has been done for it yet
    if wanted["id"] == NONE and count < 2 * FEWEST_FOR_AUTO:
        return True  # of so few, some that cannot be read may have decided
    return bool(count >= 2 * tried)


def _ask(
    connection: sqlite3.Connection, row: sqlite3.Row, kind: Literal["folder", "references"], chosen: Sequence[str]
) -> list[str]:
    context, batch = new_id("c"), row["id"]
    source = f"{len(chosen)} pictures of {row['name']}" if kind == "references" else f"the pictures of {row['name']}"
    connection.execute(
        "INSERT INTO context (id, batch, kind, source, pictures, state) VALUES (?, ?, ?, ?, ?, 'building')",
        (context, batch, kind, source, len(chosen)),
    )
    connection.executemany("INSERT INTO reference VALUES (?, ?)", [(context, item) for item in chosen])
    connection.execute("UPDATE batch SET wanted = ? WHERE id = ?", (context, batch))
    next_revision(connection, batch)
    return _forget_unused(connection, batch)


def next_job(connection: sqlite3.Connection) -> ContextJob | None:
    """The oldest context that is to be built, counted as begun."""
    row = connection.execute(
        "UPDATE context SET attempts = attempts + 1 WHERE id = "
        "(SELECT id FROM context WHERE state = 'building' ORDER BY rowid LIMIT 1) RETURNING *"
    ).fetchone()
    if row is None:
        return None
    auto = row["kind"] == "folder" and require_batch(connection, row["batch"])["auto"]
    items = connection.execute(
        "SELECT item.* FROM reference JOIN item ON item.id = reference.item WHERE reference.context = ? "
        "ORDER BY item.position",
        (row["id"],),
    )
    tasks = [Task(item["id"], item["name"], item["sha256"], item["page"], item["attempts"]) for item in items]
    return ContextJob(row["id"], row["batch"], row["kind"], row["source"], row["attempts"], bool(auto), tasks)


def release(connection: sqlite3.Connection, context: str) -> None:
    """Building it was broken off on purpose: that does not count as an attempt."""
    connection.execute("UPDATE context SET attempts = max(attempts - 1, 0) WHERE id = ?", (context,))


def exists(connection: sqlite3.Connection, context: str) -> bool:
    """Whether anything still asks for it."""
    return connection.execute("SELECT 1 FROM context WHERE id = ?", (context,)).fetchone() is not None


def ready(connection: sqlite3.Connection, context: str, pictures: int, reason: str | None) -> list[str]:
    """Its file is there: items are scored with it from now on. Ids of contexts that nothing needs any more."""
    row = connection.execute(
        "UPDATE context SET state = 'ready', attempts = 0, pictures = ?, error = NULL WHERE id = ? RETURNING batch",
        (pictures, context),
    ).fetchone()
    if row is None:
        return [context]  # another one, or none, was asked for meanwhile
    next_revision(connection, row["batch"])
    connection.execute("UPDATE batch SET reason = ? WHERE id = ? AND wanted = ?", (reason, row["batch"], context))
    if require_batch(connection, row["batch"])["context"] != context:
        _use(connection, row["batch"], context)
    return _forget_unused(connection, row["batch"])


def declined(connection: sqlite3.Connection, context: str, reason: str) -> list[str]:
    """It would not help: items are scored without any. Ids as ``ready``."""
    row = connection.execute("SELECT batch FROM context WHERE id = ?", (context,)).fetchone()
    if row is None:
        return []
    connection.execute("UPDATE batch SET reason = ? WHERE id = ?", (reason, row["batch"]))
    return _use_none(connection, row["batch"])


def failed(connection: sqlite3.Connection, context: str, problem: Problem) -> None:
    """It cannot be built. A batch that already uses it has its waiting items scored without any."""
    error = json.dumps({"type": problem.type, "message": problem.message, "hint": problem.hint})
    row = connection.execute(
        "UPDATE context SET state = 'failed', error = ? WHERE id = ? RETURNING batch", (error, context)
    ).fetchone()
    if row is None:
        return
    batch = require_batch(connection, row["batch"])
    next_revision(connection, batch["id"])
    if batch["context"] == context:
        _use(connection, batch["id"], NONE)


def lost(connection: sqlite3.Connection, context: str) -> None:
    """Its file is gone, damaged or of another model: it is to be built again."""
    row = connection.execute(
        "UPDATE context SET state = 'building' WHERE id = ? AND state = 'ready' RETURNING batch", (context,)
    ).fetchone()
    if row is not None:
        next_revision(connection, row["batch"])


def _use_none(connection: sqlite3.Connection, batch: str) -> list[str]:
    next_revision(connection, batch)
    connection.execute("UPDATE batch SET wanted = 'none' WHERE id = ?", (batch,))
    if require_batch(connection, batch)["context"] != NONE:
        _use(connection, batch, NONE)
    return _forget_unused(connection, batch)


def _use(connection: sqlite3.Connection, batch: str, context: str) -> None:
    """Makes ``context`` the one that counts; items scored with it before show that finding at once."""
    revision = next_revision(connection, batch)
    connection.execute("UPDATE batch SET context = ? WHERE id = ?", (context, batch))
    connection.execute(
        "UPDATE item SET state = 'pending', attempts = 0, revision = ? WHERE batch = ?", (revision, batch)
    )
    connection.execute(
        "UPDATE item SET state = CASE finding.failed WHEN 1 THEN 'failed' ELSE 'done' END, shown = finding.context, "
        "score = finding.score, anomalous = finding.anomalous FROM finding "
        "WHERE item.batch = ? AND finding.item = item.id AND finding.context = ?",
        (batch, context),
    )


def _all_items(connection: sqlite3.Connection, batch: str) -> list[str]:
    return [row["id"] for row in connection.execute("SELECT id FROM item WHERE batch = ?", (batch,))]


def _require_own(connection: sqlite3.Connection, batch: str, items: Sequence[str]) -> None:
    own = set(_all_items(connection, batch))
    if not own.issuperset(items):
        hint = "GET /v1/batches/{id}/items lists them"
        raise Fault(422, "unknown_items", "some of the items are not of this batch", hint=hint, param="items")


def _forget_unused(connection: sqlite3.Connection, batch: str) -> list[str]:
    """Contexts that the batch neither uses nor wants; findings made with them stay until they are replaced."""
    gone = connection.execute(
        "DELETE FROM context WHERE batch = :batch AND id NOT IN "
        "(SELECT context FROM batch WHERE id = :batch UNION SELECT wanted FROM batch WHERE id = :batch) RETURNING id",
        {"batch": batch},
    )
    return [row["id"] for row in gone]
