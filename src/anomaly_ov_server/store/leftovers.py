"""Which files belong to rows: all that the sweep at the start must spare, and those that go with a batch."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from anomaly_ov_server.store.folder import Folder


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
