"""Pictures on their way into a batch: checked by their first bytes, put on disk, then written down in one go."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from anomaly_ov.images.read import KNOWN_FORMATS, Limits, is_picture
from anomaly_ov.images.sources import page_count, page_digest
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.store.batches import next_revision, require_batch
from anomaly_ov_server.store.folder import Folder
from anomaly_ov_server.store.names import clean, new_id, sort_name
from anomaly_ov_server.store.rows import Problem


class Sent(Protocol):
    """A picture as it was sent: its name and its bytes."""

    @property
    def name(self) -> str:
        """As the sender calls it."""
        ...

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        ...


@dataclass(frozen=True)
class Rejected:
    """A picture that was not taken, and why."""

    name: str
    error: Problem


@dataclass(frozen=True)
class OnDisk:
    """A file that lies in the folder, and how many pictures it holds."""

    name: str
    sha256: str
    data: bytes
    pages: int


def stored(folder: Folder, sent: Sequence[Sent], limits: Limits) -> tuple[list[OnDisk], list[Rejected]]:
    """Puts those that look like pictures on disk, flushed. Raises ``Fault`` 507 ``storage_full``."""
    taken, rejected = [], []
    for one in sent:
        name = clean(one.name, "picture")
        problem = _refusal(one.data, limits)
        if problem is not None:
            rejected.append(Rejected(name, problem))
            continue
        sha256 = folder.keep_picture(one.data)
        # One past the limit, so that reading the last one says that the file holds too many.
        taken.append(OnDisk(name, sha256, one.data, page_count(folder.picture(sha256), limits.max_pages + 1)))
    return taken, rejected


def add(connection: sqlite3.Connection, folder: Folder, batch: str, files: Sequence[OnDisk], most: int) -> list[str]:
    """Ids of the items of ``files``, in order; what the batch has already is not added again.

    Raises ``Fault`` 404 (no such batch) and 413 ``batch_full`` (nothing is added then).
    """
    require_batch(connection, batch)
    (position,) = connection.execute(
        "SELECT coalesce(max(position) + 1, 0) FROM item WHERE batch = ?", (batch,)
    ).fetchone()
    revision, ids = 0, []
    for file in files:
        if not folder.picture(file.sha256).is_file():  # the batch that it was shared with has gone meanwhile
            folder.keep_picture(file.data)
        for page in range(file.pages):
            name = f"{file.name}#page={page + 1}" if file.pages > 1 else file.name
            known = _known(connection, batch, file.sha256, name, page)
            if known is not None:
                ids.append(known)
                continue
            if position >= most:
                hint = "start another batch for the rest"
                raise Fault(413, "batch_full", f"a batch holds at most {most} pictures", hint=hint)
            revision = revision or next_revision(connection, batch)
            ids.append(_insert(connection, batch, position, name, (file.sha256, page), revision))
            position += 1
    return ids


def _known(connection: sqlite3.Connection, batch: str, sha256: str, name: str, page: int) -> str | None:
    row = connection.execute(
        "SELECT id FROM item WHERE batch = ? AND sha256 = ? AND name = ? AND page = ?", (batch, sha256, name, page)
    ).fetchone()
    return None if row is None else str(row["id"])


def _insert(
    connection: sqlite3.Connection, batch: str, position: int, name: str, file: tuple[str, int], revision: int
) -> str:
    item = new_id("i")
    connection.execute(
        "INSERT INTO item (id, batch, position, name, sort_name, sha256, page, digest, revision) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (item, batch, position, name, sort_name(name), *file, page_digest(*file), revision),
    )
    return item


def _refusal(data: bytes, limits: Limits) -> Problem | None:
    if not data:
        return Problem("unreadable_image", "the file is empty (0 bytes)", "copy or export it again")
    if not is_picture(data[:16]):
        hint = f"known formats: {KNOWN_FORMATS}; convert it to one of them"
        return Problem("unreadable_image", "it is in no picture format that we know", hint)
    if len(data) > limits.max_bytes:
        return Problem("image_too_large", f"it holds {len(data)} bytes", f"the limit is {limits.max_bytes} bytes")
    return None
