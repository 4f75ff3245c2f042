"""Rows of a run as JSON lines, kept as they come, so that a run that was stopped can go on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self, TypeVar

from pydantic import TypeAdapter

from anomaly_ov.files import write_atomic

R = TypeVar("R")


@contextmanager
def folder_or_temporary(out: Path | None) -> Iterator[Path]:
    """``out``, or a folder that is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="anomaly-ov-eval-") as folder:
        yield Path(folder)


class RowFile(Generic[R]):
    """Rows of the dataclass ``cls`` in the file at ``path``. Use as a context manager; one process at a time.

    ``schema``: written with each row, None = none; what is of another schema, or cut short by a kill, is no row.
    """

    def __init__(self, path: Path, cls: type[R], schema: str | None) -> None:
        self.path = path
        self._adapter, self._schema = TypeAdapter(cls), schema
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def read(self) -> list[R]:
        """All rows; none where there is no file."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return [row for row in map(self._parsed, lines) if row is not None]

    def replace(self, rows: Iterable[R]) -> None:
        """The file with these rows and no others, atomically."""
        write_atomic(self.path, "".join(map(self._line, rows)).encode())

    def append(self, row: R) -> None:
        """Adds a row and hands it to the operating system at once; never behind a line that was cut short."""
        if self._file is None:
            torn = self.path.is_file() and self.path.read_bytes()[-1:] not in (b"\n", b"")
            self._file = self.path.open("a", encoding="utf-8")
            self._file.write("\n" if torn else "")
        self._file.write(self._line(row))
        self._file.flush()

    def _line(self, row: Any) -> str:
        return json.dumps(({"schema": self._schema} if self._schema else {}) | asdict(row)) + "\n"

    def _parsed(self, line: str) -> R | None:
        try:
            same = json.loads(line).get("schema") == self._schema
            return self._adapter.validate_json(line, strict=True) if same else None
        except (ValueError, AttributeError):
            return None
