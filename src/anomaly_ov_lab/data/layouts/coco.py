"""COCO: a JSON file with images, annotations and categories; a picture with an annotation is anomalous.

Read as a file, in `annotations/`, or as `_annotations.coco.json` in `train`, `valid` and `test`. Annotations of a
category called normal, good, ... do not count. Split: the word "train" in the name of the file or its folder means
train, "test" test; "val", "valid" and "validation" are test unless there is a test list too. Pictures are sought beside
the list, in `images/`, and in the folder that bears the split's name. Outlines are no mask files: ``drawn_masks`` draws
them, for ``data.convert``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import DataError, ImageError
from anomaly_ov.images.read import read as read_image
from anomaly_ov_lab.data.layouts.folder import Folder, Notes, natural, split_of, split_word
from anomaly_ov_lab.data.layouts.good_bad import NORMAL_NAMES
from anomaly_ov_lab.data.layouts.kinds import BAD_ENTRY, NO_MASK, OUTLINES
from anomaly_ov_lab.data.layouts.lists import HEAD_BYTES, head, json_of, without_repeats
from anomaly_ov_lab.data.layouts.outlines import draw
from anomaly_ov_lab.data.samples import Sample, Split

ANNOTATIONS = "annotations"
_PARTS = ("train", "valid", "val", "test")
_START = re.compile(r'"(images|annotations)"\s*:\s*\[')
_NORMAL = NORMAL_NAMES | {"none", "background"}

Drawn = Callable[[Path], npt.NDArray[np.bool_] | None]


@dataclass(frozen=True)
class _Entry:
    """A listed picture that exists, with its size as listed and the outlines and kinds of its defects."""

    image: Path
    wh: tuple[int, int] | None
    outlines: tuple[Any, ...]
    kinds: tuple[str, ...]
    split: Split | None


def claims(folder: Path) -> bool:
    """Whether there is such a list in the folder, its ``annotations`` or its ``train``, ``valid``, ``test``."""
    return bool(_lists(folder))


def is_list(path: Path) -> bool:
    """Whether the file looks like a COCO list at its beginning; one that is read whole there must have both lists."""
    text = head(path)
    found = set(_START.findall(text))
    return len(found) == 2 or (bool(found) and len(text) >= HEAD_BYTES)


def root_of(path: Path) -> Path:
    """The folder at which the paths of a list start."""
    return path.parent.parent if path.parent.name == ANNOTATIONS else path.parent


def read(folder: Folder) -> list[Sample]:
    """The pictures of all lists of the folder."""
    return read_lists(_lists(folder.path), folder)


def read_lists(lists: Sequence[Path], folder: Folder) -> list[Sample]:
    """The pictures of ``lists``, without masks. Raises ``DataError`` where a file has another form."""
    samples = []
    for entry in _entries(lists, folder):
        kinds = "+".join(sorted(set(entry.kinds))) or None
        samples.append(Sample(entry.image, int(bool(entry.kinds)), None, folder.category, kinds, entry.split))
        if entry.kinds:
            folder.notes.add(OUTLINES if entry.outlines else NO_MASK, folder.name(entry.image))
    return without_repeats(samples, folder.notes, folder.root)


def drawn_masks(places: Sequence[Path], root: Path, notes: Notes) -> Drawn:
    """A function from a picture to its mask (H, W), None where there is no outline.

    ``places``: lists, or folders that ``claims`` is true of, below ``root``. Outlines that cannot be drawn are noted in
    ``notes``; a list that states no size is drawn in the picture's own.
    """
    entries: dict[Path, _Entry] = {}
    for place in places:
        lists, start = ([place], root_of(place)) if place.is_file() else (_lists(place), place)
        entries |= {entry.image: entry for entry in _entries(lists, Folder(start, "", root, Notes()))}

    def drawn(image: Path) -> npt.NDArray[np.bool_] | None:
        entry = entries.get(image)
        if entry is None or not entry.outlines:
            return None
        name = image.relative_to(root).as_posix() if image.is_relative_to(root) else str(image)
        wh = entry.wh or _own_size(image)
        return draw(entry.outlines, wh, lambda what: notes.add("outline left out", f"{name}: {what}"))

    return drawn


def _lists(folder: Path) -> list[Path]:
    places = [folder, folder / ANNOTATIONS, *(folder / part for part in _PARTS)]
    files = [path for place in places if place.is_dir() for path in place.glob("*.json")]
    return sorted((path for path in files if path.is_file() and is_list(path)), key=natural)


def _entries(lists: Sequence[Path], folder: Folder) -> list[_Entry]:
    parts = [_part(path) for path in lists]
    return [e for path, part in zip(lists, parts, strict=True) for e in _of_list(path, part, folder, "test" in parts)]


def _part(path: Path) -> str | None:
    """``train``, ``val`` or ``test``, a word of the file's name or else of its folder's ("drivetrain" is another)."""
    return split_word(path.stem) or split_word(path.parent.name)


def _own_size(image: Path) -> tuple[int, int]:
    try:
        picture = read_image(image)
    except ImageError as error:
        raise DataError(error.message, hint=error.hint) from None
    height, width = picture.pixels_HW3.shape[:2]
    return width, height


def _of_list(path: Path, part: str | None, folder: Folder, has_test: bool) -> list[_Entry]:
    content = json_of(path)
    tables = {key: content.get(key, []) for key in ("images", "annotations", "categories")} if _is(content) else {}
    if not tables or not all(isinstance(table, list) and all(map(_is, table)) for table in tables.values()):
        raise DataError(f"{path} is no COCO list", hint="expected lists of objects: images, annotations, categories")
    names = {str(c.get("id")): str(c.get("name") or "") for c in tables["categories"]}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for index, annotation in enumerate(tables["annotations"]):
        if annotation.get("image_id") is None:
            folder.notes.add(BAD_ENTRY, f"{path.name}: annotation {index}")
        elif names.get(str(annotation.get("category_id")), "").lower() not in _NORMAL:
            found[str(annotation["image_id"])].append(annotation)
    split = split_of(part, has_test)
    places = _places(path, folder.path)
    entries = []
    for index, listed in enumerate(tables["images"]):
        name = listed.get("file_name")
        if not isinstance(name, str) or not name or listed.get("id") is None:
            folder.notes.add(BAD_ENTRY, f"{path.name}: image {index}")
            continue
        image = _picture(name, places, folder)
        if image is not None:
            marks = found.get(str(listed["id"]), [])
            kinds = tuple(names.get(str(mark.get("category_id"))) or "defect" for mark in marks)
            outlines = tuple(mark["segmentation"] for mark in marks if mark.get("segmentation"))
            entries.append(_Entry(image, _size(listed), outlines, kinds, split))
    return entries


def _is(value: Any) -> bool:
    return isinstance(value, dict)


def _size(listed: dict[str, Any]) -> tuple[int, int] | None:
    width, height = listed.get("width"), listed.get("height")
    if not all(isinstance(side, (int, float)) and side > 0 and side == side // 1 for side in (width, height)):
        return None
    return int(width or 0), int(height or 0)


def _places(path: Path, root: Path) -> list[Path]:
    """Folders in which a list's pictures may lie, the likeliest first."""
    named = path.stem.removeprefix("instances_")
    near = [path.parent, path.parent / "images", root, root / "images", root / named, root / "images" / named]
    return list(dict.fromkeys(near))


def _picture(name: str, places: Sequence[Path], folder: Folder) -> Path | None:
    """The picture in the first place that has it; None (noted) if none does or the name leads outside."""
    try:
        place = next((place for place in places if (place / name).is_file()), folder.path)
    except (OSError, ValueError):  # no usable name; ``listed`` notes it
        place = folder.path
    return folder.listed(name, place)
