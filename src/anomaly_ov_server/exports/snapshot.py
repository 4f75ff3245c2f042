"""A batch as it was at one moment, on disk beside memory: read several times and in any order, always the same.

Decisions may go on while a long export runs; what the files of one zip say agrees nevertheless.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import overload

from anomaly_ov_server.reviewed import Decision, Reviewed

IN_MEMORY = 8 * 2**20
_PATHS = frozenset({"picture", "map_path", "preview", "thumbnail"})


class Snapshot(Sequence[Reviewed]):
    """The rows given, in their order. Use in ``with``, or ``close`` it: the file is removed then."""

    def __init__(self, rows: Iterable[Reviewed]) -> None:
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._lock = Lock()
        self._starts = [0]
        try:
            for row in rows:
                self._file.write(_to_line(row))
                self._starts.append(self._file.tell())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Reviewed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Reviewed]: ...
    def __getitem__(self, index: int | slice) -> Reviewed | list[Reviewed]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        with self._lock:
            self._file.seek(self._starts[at])
            return _from_line(self._file.read(self._starts[at + 1] - self._starts[at]))

    def __iter__(self) -> Iterator[Reviewed]:
        return (self[index] for index in range(len(self)))


def _to_line(row: Reviewed) -> bytes:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    values |= {name: None if values[name] is None else str(values[name]) for name in _PATHS}
    values["decision"] = None if row.decision is None else asdict(row.decision)
    # ASCII, so that a name which is no Unicode survives.
    return json.dumps(values).encode() + b"\n"


def _from_line(line: bytes) -> Reviewed:
    values = json.loads(line)
    values |= {name: None if values[name] is None else Path(values[name]) for name in _PATHS}
    values["decision"] = None if values["decision"] is None else Decision(**values["decision"])
    return Reviewed(**values)


LEAST = 2**16


def in_blocks(pieces: Iterable[bytes], least: int = LEAST) -> Iterator[bytes]:
    """The same bytes in pieces of at least ``least``, but for the last: each costs its own way to the network."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= least:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
