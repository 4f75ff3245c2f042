"""The ELPV release: `labels.csv` with lines "image probability type", split by blanks."""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import Folder
from anomaly_ov_lab.data.layouts.kinds import BAD_LINE
from anomaly_ov_lab.data.layouts.lists import lines, without_repeats
from anomaly_ov_lab.data.samples import Sample


def claims(folder: Path) -> bool:
    """Whether one of the first ten lines of ``labels.csv`` is such a line."""
    labels = folder / "labels.csv"
    if not labels.is_file():
        return False
    with labels.open(encoding="utf-8", errors="replace") as file:
        return any(_parsed(line) is not None for _, line in zip(range(10), file, strict=False))


def _parsed(line: str) -> tuple[str, float] | None:
    """(relative path, probability) of a line, or None if it is none; a third field, the cell's type, is not needed."""
    parts = line.split()
    if len(parts) not in (2, 3):
        return None
    try:
        probability = float(parts[1])
    except ValueError:
        return None
    return (parts[0], probability) if 0 <= probability <= 1 else None


def read(folder: Folder) -> list[Sample]:
    """Label 0 where all annotators saw none, 1 where all saw a defect; in between it is unknown, probability kept."""
    samples = []
    for number, line in enumerate(lines(folder.path / "labels.csv"), start=1):
        parsed = _parsed(line)
        if parsed is None:
            folder.notes.add(BAD_LINE, f"line {number}")
            continue
        name, probability = parsed
        image = folder.listed(name)
        if image is None:
            continue
        label = int(probability) if probability in (0.0, 1.0) else None
        samples.append(Sample(image=image, label=label, category=folder.category, probability=probability))
    return without_repeats(samples, folder.notes, folder.root)
