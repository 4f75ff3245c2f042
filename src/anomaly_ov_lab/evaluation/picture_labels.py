"""``labels.jsonl`` of a run's folder: what the data set said of each picture that was measured.

Rows of a run hold scores alone, so that relabelling a set costs no scoring; this file holds the other half, written
anew by each run, so that a run can be compared with another when the data set is no longer at hand.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomaly_ov.errors import DataError
from anomaly_ov.files import write_atomic
from anomaly_ov_lab.data.samples import DataSet

LABELS_NAME = "labels.jsonl"


@dataclass(frozen=True)
class PictureLabel:
    """A picture's id in its data set, its label (0 normal, 1 anomalous, None unknown) and its category."""

    id: str
    label: int | None
    category: str


def write_labels(folder: Path, dataset: DataSet) -> None:
    """Writes the labels of all pictures of ``dataset`` into ``folder``."""
    labels = (PictureLabel(dataset.id_of(sample), sample.label, sample.category) for sample in dataset)
    lines = (json.dumps(asdict(label)) + "\n" for label in labels)
    write_atomic(folder / LABELS_NAME, "".join(lines).encode())


def read_labels(folder: Path) -> dict[str, PictureLabel]:
    """The labels of a run's folder, by id, in the data set's order. Raises ``DataError`` if they are missing or odd."""
    path = folder / LABELS_NAME
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise DataError(
            f"{folder} has no {LABELS_NAME}", hint="measure again into the same folder; its rows are used again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="measure again into the same folder") from None
    found = [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return {label.id: label for label in found}


def _parsed(path: Path, number: int, line: str) -> PictureLabel:
    try:
        values: dict[str, Any] = json.loads(line)
        label = PictureLabel(**values)
        if label.label not in (0, 1, None) or not isinstance(label.id, str) or not isinstance(label.category, str):
            raise ValueError("unknown values")
        return label
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}, line {number}: {error}", hint="measure again into the same folder") from None
