"""The `meta.json` that AnomalyCLIP and its successors read: {"train": {class: [entry]}, "test": {class: [entry]}}.

An entry has img_path, mask_path (empty for none), cls_name, specie_name (the defect's kind) and anomaly (0 or 1); paths
start at the file's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts.folder import Folder
from anomaly_ov_lab.data.layouts.kinds import BAD_ENTRY, NO_MASK
from anomaly_ov_lab.data.layouts.lists import head, json_of, without_repeats
from anomaly_ov_lab.data.samples import Sample, Split

NAME = "meta.json"
_SPLITS: tuple[Split, ...] = ("train", "test")


def claims(folder: Path) -> bool:
    """Whether there is such a ``meta.json``."""
    return is_list(folder / NAME)


def is_list(path: Path) -> bool:
    """Whether the file looks like such a list at its beginning."""
    return '"img_path"' in head(path)


def read(folder: Folder) -> list[Sample]:
    """The pictures of the folder's ``meta.json``."""
    return read_list(folder.path / NAME, folder)


def read_list(path: Path, folder: Folder) -> list[Sample]:
    """The pictures of the list at ``path``; a missing mask is noted only where there are masks at all."""
    samples, unmasked = [], []
    for split, category, where, entry in _entries(path, json_of(path)):
        values = _checked(entry)
        if values is None:
            folder.notes.add(BAD_ENTRY, where)
            continue
        image_name, mask_name, defect, label = values
        image = folder.listed(image_name)
        if image is None:
            continue
        mask = folder.listed_mask(mask_name) if label and mask_name else None
        if label and not mask_name:
            unmasked.append(folder.name(image))
        samples.append(Sample(image, label, mask, category, defect if label else None, split))
    if any(sample.mask for sample in samples):
        for name in unmasked:
            folder.notes.add(NO_MASK, name)
    return without_repeats(samples, folder.notes, folder.root)


def _entries(path: Path, content: Any) -> Iterator[tuple[Split, str, str, Any]]:
    """(split, class, where it stands, entry) of every entry. Raises ``DataError`` if the file has another form."""
    for split in _SPLITS:
        classes = content.get(split, {}) if isinstance(content, dict) else None
        if not isinstance(classes, dict) or not all(isinstance(entries, list) for entries in classes.values()):
            raise DataError(
                f"{path} has no classes with lists of entries under '{split}'",
                hint='expected {"train": {class: [entry, ...]}, "test": {class: [entry, ...]}}',
            )
        for category, entries in classes.items():
            for index, entry in enumerate(entries):
                yield split, category, f"{split}/{category}/{index}", entry


def _checked(entry: Any) -> tuple[str, str, str | None, int] | None:
    """(picture, mask or "", kind of defect, label) of an entry, None if something is not as it must be."""
    if not isinstance(entry, dict):
        return None
    image, mask, kind = entry.get("img_path"), entry.get("mask_path") or "", entry.get("specie_name") or None
    label = {"0": 0, "1": 1, "false": 0, "true": 1}.get(str(entry.get("anomaly")).lower())
    if not isinstance(image, str) or not image or not isinstance(mask, str) or label is None:
        return None
    return image, mask, kind if isinstance(kind, str) else None, label
