"""Real-IAD: one JSON file per class with meta, train and test; pictures in `realiad_<side>/<prefix>`.

An entry has category, anomaly_class (that of `meta.normal_class`, "OK", is normal), image_path and mask_path (or
null), which start at `<pictures>/<meta.prefix>`. As released, `realiad_jsons/realiad_jsons` holds the files of the
plain split, its neighbours those of other protocols, which are left alone. Of several resolutions the largest is read.
The label is the view's own: a faulty part seen from where the fault is hidden counts as normal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts.folder import Folder, natural, plain_subfolders
from anomaly_ov_lab.data.layouts.kinds import BAD_ENTRY, NO_MASK, OTHERS
from anomaly_ov_lab.data.layouts.lists import head, json_of, without_repeats
from anomaly_ov_lab.data.samples import Sample, Split

_SPLITS: tuple[Split, ...] = ("train", "test")


def claims(folder: Path) -> bool:
    """Whether there are such files in the folder or up to two below it."""
    return bool(_splits(folder))


def is_list(path: Path) -> bool:
    """Whether the file looks like a class's list at its beginning."""
    start = head(path)
    return '"normal_class"' in start and '"meta"' in start


def read(folder: Folder) -> list[Sample]:
    """The pictures of all classes."""
    (_, lists), *others = _splits(folder.path)
    for other, _ in others:
        folder.notes.add(OTHERS, folder.name(other))
    samples = [sample for path in lists for sample in read_list(path, folder)]
    return without_repeats(samples, folder.notes, folder.root)


def read_list(path: Path, folder: Folder) -> list[Sample]:
    """The pictures of one class's file. Raises ``DataError`` if the file has another form."""
    content = json_of(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    if not isinstance(meta, dict) or not all(isinstance(content.get(split), list) for split in _SPLITS):
        raise DataError(f"{path} is no list of Real-IAD", hint="expected an object with meta, train and test")
    normal = str(meta.get("normal_class"))
    pictures = _pictures(folder, str(meta.get("prefix") or ""), content)
    samples = []
    for split in _SPLITS:
        for index, entry in enumerate(content[split]):
            checked = _checked(entry)
            if checked is None:
                folder.notes.add(BAD_ENTRY, f"{path.name}: {split}/{index}")
                continue
            name, kind, masked = checked
            image = folder.listed(name, pictures)
            if image is None:
                continue
            label = int(kind != normal)
            if label and not masked:
                folder.notes.add(NO_MASK, folder.name(image))
            mask = folder.listed_mask(masked, pictures) if label and masked else None
            samples.append(Sample(image, label, mask, path.stem, kind if label else None, split))
    return samples


def _checked(entry: Any) -> tuple[str, str, str | None] | None:
    """(picture, class, mask) of an entry; None if something is not as it must be."""
    if not isinstance(entry, dict):
        return None
    name, kind, masked = entry.get("image_path"), entry.get("anomaly_class"), entry.get("mask_path")
    if not isinstance(name, str) or not name or not isinstance(kind, str) or not isinstance(masked, (str, type(None))):
        return None
    return name, kind, masked


def _pictures(folder: Folder, prefix: str, content: Any) -> Path:
    """Where the class's pictures start: the first of the candidates that has its first picture."""
    entries = [entry for split in _SPLITS for entry in content[split] if isinstance(entry, dict)]
    name = str(entries[0].get("image_path") or "") if entries else ""
    resolutions = [child for child in plain_subfolders(folder.path) if child.name.startswith("realiad_")]
    candidates = [*sorted(resolutions, key=natural, reverse=True), folder.path]
    try:
        holding = [child for child in candidates if (child / prefix / name).is_file()]
    except (OSError, ValueError):
        holding = []
    for other in holding[1:]:
        folder.notes.add(OTHERS, folder.name(other / prefix))
    return (holding or candidates)[0] / prefix


def _splits(folder: Path) -> list[tuple[Path, list[Path]]]:
    """(folder, the classes' files in it) on the first level that has any, in natural order."""
    for level in _levels(folder):
        found = [(child, _class_files(child)) for child in level]
        if any(files for _, files in found):
            return [(child, files) for child, files in found if files]
    return []


def _levels(folder: Path) -> list[list[Path]]:
    """The folder; the folders in it called something with "json"; and those in these."""
    below = [child for child in plain_subfolders(folder) if "json" in child.name.lower()]
    return [[folder], below, [inner for child in below for inner in plain_subfolders(child)]]


def _class_files(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*.json") if path.is_file() and is_list(path)), key=natural)
