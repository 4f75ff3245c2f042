"""What layouts that list their pictures in a file share: its lines, and pictures listed twice."""

from __future__ import annotations

from pathlib import Path

from anomaly_ov.data.layouts.folder import Notes
from anomaly_ov.data.samples import Sample
from anomaly_ov.errors import DataError

MAX_LIST_BYTES = 256 * 2**20


def lines(path: Path) -> list[str]:
    """The non-blank lines of a list file of bounded size."""
    size = path.stat().st_size
    if size > MAX_LIST_BYTES:
        raise DataError(f"{path} has {size} bytes, more than {MAX_LIST_BYTES}", hint="is this really a list?")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line for line in text.split("\n") if line.strip()]


def without_repeats(samples: list[Sample], notes: Notes, root: Path) -> list[Sample]:
    """Drops (and notes) samples listed twice the same way; those listed differently stay for the conflict check."""
    kept = dict.fromkeys(samples)
    if len(kept) < len(samples):
        seen: set[Sample] = set()
        for sample in samples:
            if sample in seen:
                notes.add("listed twice", sample.image.relative_to(root).as_posix())
            seen.add(sample)
    return list(kept)
