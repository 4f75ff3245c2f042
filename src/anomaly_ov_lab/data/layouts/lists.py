"""What layouts that list their pictures in a file share: bounded reading of lines, CSV and JSON; pictures listed twice.

A list may come from anyone: its size is checked before it is parsed, and what does not parse is a ``DataError``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts.folder import Notes
from anomaly_ov_lab.data.layouts.kinds import TWICE
from anomaly_ov_lab.data.samples import Sample

MAX_LIST_BYTES = 256 * 2**20
MAX_JSON_BYTES = 64 * 2**20
"""Parsed JSON takes some ten times its bytes of memory; the lists of the known sets have a few MB."""
HEAD_BYTES = 64 * 1024


def lines(path: Path) -> list[str]:
    """The non-blank lines of a list file of bounded size."""
    return [line for line in _text(path, MAX_LIST_BYTES).split("\n") if line.strip()]


def rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row by column name) of a CSV file with a header; names and values without surrounding blanks.

    Raises ``DataError`` if it is too large or no CSV.
    """
    reader = csv.reader(_text(path, MAX_LIST_BYTES).splitlines())
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        for values in reader:
            if values:
                yield reader.line_num, dict(zip(names, (value.strip() for value in values), strict=False))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV list: {error}", hint="look at the file's quotes and line ends") from None


def json_of(path: Path) -> Any:
    """The content of a JSON file of bounded size. Raises ``DataError`` if it is too large or does not parse."""
    text = _text(path, MAX_JSON_BYTES)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON list: {' '.join(str(error).split())}", hint="is it cut short?") from None


def head(path: Path) -> str:
    """The first 64 KiB of a file, a character a byte, to tell what it is without reading it all; else empty."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES).decode("latin-1")
    except OSError:
        return ""


def without_repeats(samples: list[Sample], notes: Notes, root: Path) -> list[Sample]:
    """Drops (and notes) samples listed twice the same way; those listed differently stay for the conflict check."""
    kept = dict.fromkeys(samples)
    if len(kept) < len(samples):
        seen: set[Sample] = set()
        for sample in samples:
            if sample in seen:
                notes.add(TWICE, sample.image.relative_to(root).as_posix())
            seen.add(sample)
    return list(kept)


def _text(path: Path, limit: int) -> str:
    size = path.stat().st_size
    if size > limit:
        raise DataError(f"{path} has {size} bytes, more than {limit}", hint="is this really a list of pictures?")
    return path.read_text(encoding="utf-8-sig", errors="replace")
