"""The SQLite file behind the store: connections that any thread may borrow, and transactions. Knows no table.

Write-ahead log, so that readers never wait for the writer; every commit is flushed to disk (``synchronous=FULL``), so
that what was answered survives a power cut. Writers take turns on a lock of this process instead of SQLite's busy loop.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomaly_ov.errors import UsageError
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.store.schema import prepare

BUSY_SECONDS = 10.0
SETTINGS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF")


class Database:
    """Rows by name (``sqlite3.Row``). Raises ``UsageError`` for a file that is no database of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._turn = threading.Lock()
        self._closed = False
        try:
            connection = self._open()
            prepare(connection, path.name)
        except sqlite3.Error as error:
            raise UsageError(
                f"cannot use {path.name} in the data folder: {error}",
                hint="it may be damaged or not writable; restore it or name another --data folder",
            ) from error
        self._idle.put(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection on which everything read is of one moment."""
        with self._borrowed() as connection, _transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The one transaction that writes; on disk when the block is left, undone when it raises."""
        try:
            with self._turn, self._borrowed() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
                yield connection
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                raise
            hint = "delete batches that are no longer needed, or make room on the disk"
            raise Fault(507, "storage_full", "the disk with the data folder is full", hint=hint) from error

    def close(self) -> None:
        """Closes what is idle now and, when they come back, the connections still out."""
        with self._turn:
            self._closed = True
            while True:
                try:
                    self._idle.get_nowait().close()
                except queue.Empty:
                    return

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._open()
        try:
            yield connection
        finally:
            if self._closed:
                connection.close()
            else:
                self._idle.put(connection)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        for setting in SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        return connection


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
