"""VisA as released: `split_csv/1cls.csv` with the columns object, split, label, image, mask; paths start at the root.

The masks number the defects 1, 2, ...; the released split has 8,659 normal pictures for training, and 962 normal and
1,200 anomalous ones for testing. Any CSV of these columns can be read instead, as `split_csv/2cls_highshot.csv`.
"""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import Folder
from anomaly_ov_lab.data.layouts.kinds import BAD_ENTRY, NO_MASK
from anomaly_ov_lab.data.layouts.lists import head, rows, without_repeats
from anomaly_ov_lab.data.samples import Sample, Split

SPLIT_FOLDER = "split_csv"
_COLUMNS = frozenset({"object", "split", "label", "image"})
_LABELS = {"normal": 0, "anomaly": 1}
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}


def claims(folder: Path) -> bool:
    """Whether there is ``split_csv/1cls.csv`` with these columns."""
    return is_list(folder / SPLIT_FOLDER / "1cls.csv")


def is_list(path: Path) -> bool:
    """Whether the file's first line names these columns."""
    names = head(path).removeprefix("ï»¿").split("\n", 1)[0].split(",")  # without UTF-8's byte order mark
    return {name.strip().lower() for name in names} >= _COLUMNS


def read(folder: Folder) -> list[Sample]:
    """The pictures of the official one-class split."""
    return read_list(folder.path / SPLIT_FOLDER / "1cls.csv", folder)


def read_list(path: Path, folder: Folder) -> list[Sample]:
    """The pictures of any split file, whose paths start at ``folder``."""
    samples = []
    for number, row in rows(path):
        label, split = _LABELS.get(row.get("label", "").lower()), _SPLITS.get(row.get("split", "").lower())
        if label is None or split is None or not row.get("image"):
            folder.notes.add(BAD_ENTRY, f"line {number}")
            continue
        image = folder.listed(row["image"])
        if image is None:
            continue
        named = row.get("mask") if label else None
        if label and not named:
            folder.notes.add(NO_MASK, folder.name(image))
        mask = folder.listed_mask(named) if named else None
        samples.append(Sample(image, label, mask, row.get("object") or folder.category, split=split))
    return without_repeats(samples, folder.notes, folder.root)
