"""Everything of a batch as one zip, written as it is sent: neither the zip nor the batch is ever whole in memory.

``findings.jsonl``, ``decisions.csv``, ``coco.json``, ``report.html``; ``maps/`` (grey PNG, 0..255 for 0..1) and
``overlays/`` (JPEG) of each scored picture, under its name and position. Larger than 4 GB it goes on as ZIP64.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import PurePath

from anomaly_ov_server.exports.about import About
from anomaly_ov_server.exports.coco import coco
from anomaly_ov_server.exports.csv_table import csv_table
from anomaly_ov_server.exports.jsonl import jsonl_line
from anomaly_ov_server.exports.report import report
from anomaly_ov_server.exports.sheet import sheet
from anomaly_ov_server.reviewed import Reviewed

QUALITY = 88
MAX_STEM = 80


class _Sink(io.RawIOBase):
    """Takes what the zip writes, once and in order, until it is taken away."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._pieces.append(piece)
        return len(piece)

    def taken(self) -> bytes:
        """What came since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def archive(rows: Sequence[Reviewed], about: About) -> Iterator[bytes]:
    """The zip, piece by piece."""
    sink = _Sink()
    written = datetime.fromisoformat(about.exported_at)

    def member(name: str, pieces: Iterable[bytes], method: int) -> Iterator[bytes]:
        # A zip's clock begins in 1980 and knows no zone.
        info = zipfile.ZipInfo(name, max(written.timetuple()[:6], (1980, 1, 1, 0, 0, 0)))
        info.compress_type = method
        info.external_attr = 0o644 << 16
        with file.open(info, "w", force_zip64=True) as target:
            for piece in pieces:
                target.write(piece)
                yield sink.taken()

    with zipfile.ZipFile(sink, "w", allowZip64=True) as file:
        for name, pieces in _tables(rows, about).items():
            yield from member(name, pieces(), zipfile.ZIP_DEFLATED)
        for row in rows:
            for name, data in _pictures(row):
                yield from member(name, [data], zipfile.ZIP_STORED)
    yield sink.taken()


def stem_of(row: Reviewed) -> str:
    """A file's name within the zip that every system can write and none takes for a path; unlike any other row's."""
    stem = re.sub(r"[^\w.+ -]", "_", PurePath(row.name.replace("\\", "/")).stem).strip(". ")[:MAX_STEM]
    return f"{row.position + 1:05d}-{stem.encode(errors='replace').decode() or 'picture'}"


def map_name(row: Reviewed) -> str | None:
    """Where the row's map lies within the zip."""
    if row.map_path is None or not row.map_path.is_file():
        return None
    return f"maps/{stem_of(row)}.png"


def _tables(rows: Sequence[Reviewed], about: About) -> dict[str, Callable[[], Iterable[bytes]]]:
    return {
        "report.html": lambda: report(rows, about),
        "decisions.csv": lambda: csv_table(rows, about),
        "findings.jsonl": lambda: (jsonl_line(row, about, map_name(row)) for row in rows),
        "coco.json": lambda: coco(rows, about),
    }


def _pictures(row: Reviewed) -> Iterator[tuple[str, bytes]]:
    name = map_name(row)
    if name is not None and row.map_path is not None:
        # The batch may be deleted while it is sent: what is gone is left out.
        with contextlib.suppress(OSError):
            yield name, row.map_path.read_bytes()
    drawn = sheet(row)
    if drawn is not None:
        buffer = io.BytesIO()
        drawn.save(buffer, "JPEG", quality=QUALITY)
        yield f"overlays/{stem_of(row)}.jpg", buffer.getvalue()
