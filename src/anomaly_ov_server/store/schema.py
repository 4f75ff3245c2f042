"""The tables of ``store.sqlite3`` and their version. Only creates and checks them; ``database`` opens the file.

* ``batch``     a list of pictures. ``context``: what its scores are made with; ``wanted``: what was last asked for, the
  same once that is ready. ``auto``: whether that follows the pictures by itself; then ``reason`` says why it is what it
  is and ``tried`` how many pictures there were at the last attempt. ``revision`` grows with every change to the batch
  or one of its items.
* ``context``   what is normal for a batch, named ``none`` for nothing; its file lies in ``contexts/``.
* ``item``      one picture of a batch. ``state``: against the batch's context. ``shown``: the context whose finding is
  shown; with ``score`` and ``anomalous`` a copy out of that finding, so that sorting and counting read one table.
* ``finding``   what an inspection found out. Its key (item, context) is why nothing can be scored twice.
* ``decision``  everything that reviewers did, only ever added to. ``previous``: the decision an undo leads back to.
"""

from __future__ import annotations

import sqlite3

from anomaly_ov.errors import UsageError

VERSION = 2
APPLICATION = 0x414E4F56  # "ANOV"; tells our file from any other SQLite file

FROM_1 = """
ALTER TABLE batch ADD COLUMN auto INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN reason TEXT;
ALTER TABLE batch ADD COLUMN tried INTEGER NOT NULL DEFAULT 0;
"""
"""Of batches that were there before, the context stays what somebody had chosen, or none."""

TABLES = """
CREATE TABLE batch (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  created TEXT NOT NULL,
  revision INTEGER NOT NULL DEFAULT 1,
  context TEXT NOT NULL DEFAULT 'none' REFERENCES context (id),
  wanted TEXT NOT NULL DEFAULT 'none' REFERENCES context (id),
  auto INTEGER NOT NULL DEFAULT 0,
  reason TEXT,
  tried INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE scored_by (
  batch TEXT NOT NULL REFERENCES batch (id) ON DELETE CASCADE,
  context TEXT NOT NULL REFERENCES context (id) ON DELETE CASCADE,
  value TEXT NOT NULL,
  PRIMARY KEY (batch, context)
) STRICT, WITHOUT ROWID;

CREATE TABLE context (
  id TEXT PRIMARY KEY,
  batch TEXT REFERENCES batch (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  kind TEXT NOT NULL CHECK (kind IN ('none', 'folder', 'references')),
  source TEXT,
  pictures INTEGER,
  state TEXT NOT NULL CHECK (state IN ('building', 'ready', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  error TEXT
) STRICT;
INSERT INTO context (id, kind, state) VALUES ('none', 'none', 'ready');
CREATE INDEX context_of_batch ON context (batch);

CREATE TABLE item (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  batch TEXT NOT NULL REFERENCES batch (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  name TEXT NOT NULL,
  sort_name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  page INTEGER NOT NULL,
  digest TEXT NOT NULL,
  revision INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'scoring', 'done', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  shown TEXT,
  score REAL,
  anomalous INTEGER,
  verdict TEXT CHECK (verdict IN ('normal', 'anomalous', 'unsure')),
  decision INTEGER,
  UNIQUE (batch, position),
  UNIQUE (batch, sha256, name, page)
) STRICT;
CREATE INDEX item_by_score ON item (batch, score DESC, position);
CREATE INDEX item_by_state ON item (batch, state, anomalous, verdict);
CREATE INDEX item_by_revision ON item (batch, revision);
CREATE INDEX item_by_name ON item (batch, sort_name);
CREATE INDEX item_by_file ON item (sha256);
CREATE INDEX item_by_digest ON item (digest);

CREATE TABLE reference (
  context TEXT NOT NULL REFERENCES context (id) ON DELETE CASCADE,
  item TEXT NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  PRIMARY KEY (context, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_by_item ON reference (item);

CREATE TABLE finding (
  item TEXT NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  context TEXT NOT NULL,
  at TEXT NOT NULL,
  failed INTEGER NOT NULL,
  score REAL,
  anomalous INTEGER,
  has_map INTEGER NOT NULL,
  summary TEXT NOT NULL,
  record TEXT NOT NULL,
  PRIMARY KEY (item, context)
) STRICT;

CREATE TABLE decision (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  item TEXT NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  action TEXT NOT NULL CHECK (action IN ('decide', 'undo')),
  verdict TEXT CHECK (verdict IN ('normal', 'anomalous', 'unsure')),
  note TEXT NOT NULL,
  at TEXT NOT NULL,
  previous INTEGER
) STRICT;
CREATE INDEX decision_of_item ON decision (item, number);
"""


def prepare(connection: sqlite3.Connection, where: str) -> None:
    """Makes the tables in an empty file, brings those of an older version up to date. ``where``: the file's name, for
    errors.

    Raises ``UsageError`` for a file of a newer version or of another program.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and not version:
        script = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        connection.executescript(f"BEGIN IMMEDIATE; {TABLES} {script} COMMIT;")
        return
    if application != APPLICATION:
        raise UsageError(f"{where} is not a store of anomaly-ov", hint="name another --data folder")
    if version == 1:
        connection.executescript(f"BEGIN IMMEDIATE; {FROM_1} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise UsageError(
            f"{where} has format {version}, this version of anomaly-ov reads {VERSION}",
            hint="use the version that wrote it, or another --data folder",
        )
