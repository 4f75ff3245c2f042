"""JSON lines: the published record of each picture, plus what the batch knows of it.

Beside the record's own fields: ``item``, ``state`` (pending, failed, done), ``map_threshold`` {value, source} (the
threshold again) and ``decision`` {verdict, note, at} or null. Paths of the server's disk are not among them:
``image.path`` is the name that the picture was sent under. A pending picture has a record of nulls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from anomaly_ov.records import Finding, ImageInfo
from anomaly_ov_server.exports.about import About, state_of, threshold_of
from anomaly_ov_server.reviewed import Reviewed


def jsonl(rows: Iterable[Reviewed], about: About) -> Iterator[bytes]:
    """One line a picture, UTF-8."""
    return (jsonl_line(row, about) for row in rows)


def jsonl_line(row: Reviewed, about: About, map_name: str | None = None) -> bytes:
    """One line, its end included. ``map_name``: where the map lies beside the file, None where it does not."""
    line = json.dumps(_values(row, about, map_name), ensure_ascii=False, allow_nan=False)
    # A name need not be Unicode; half a surrogate pair is written as its code.
    return line.encode(errors="backslashreplace") + b"\n"


def _values(row: Reviewed, about: About, map_name: str | None) -> dict[str, Any]:
    record = row.record
    if record is None:
        record = Finding(row.name, ImageInfo(row.name, sha256=row.sha256), about.model).to_json()
    return record | {
        "id": row.name,
        "image": record["image"] | {"path": row.name},
        "map": None if record["map"] is None else record["map"] | {"path": map_name},
        "item": row.id,
        "state": state_of(row),
        "map_threshold": threshold_of(row, about),
        "decision": None if row.decision is None else asdict(row.decision),
    }
