"""``discover``: which layout a folder has, which folders are its categories, and their samples as a ``DataSet``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts import (
    aitex,
    coco,
    elpv,
    good_bad,
    headct,
    jsonl,
    kolektor,
    meta,
    mtd,
    mvtec,
    mvtec3d,
    realiad,
    visa,
)
from anomaly_ov_lab.data.layouts.checks import checked_masks, refuse_conflicts
from anomaly_ov_lab.data.layouts.folder import Folder, Notes, first, holds_images, natural, plain_subfolders
from anomaly_ov_lab.data.layouts.kinds import UNLABELLED
from anomaly_ov_lab.data.samples import DataSet, Sample

_MAX_DEPTH = 3
_KNOWN = (
    "known layouts: MVTec, BTAD or MVTec 3D-AD style, good|bad folders with optional masks, VisA, AITEX, ELPV, HeadCT, "
    "Real-IAD, KolektorSDD, MTD, COCO, meta.json, a .jsonl list"
)


@dataclass(frozen=True)
class Layout:
    """``claims(folder)`` says whether a folder is a category of this layout; ``read`` turns it into samples."""

    claims: Callable[[Path], bool]
    read: Callable[[Folder], list[Sample]]


# The first that claims a folder reads it: a set's own list before the general ones, lists before folders' names.
LAYOUTS: dict[str, Layout] = {
    "visa": Layout(visa.claims, visa.read),
    "realiad": Layout(realiad.claims, realiad.read),
    "aitex": Layout(aitex.claims, aitex.read),
    "headct": Layout(headct.claims, headct.read),
    "elpv": Layout(elpv.claims, elpv.read),
    "mtd": Layout(mtd.claims, mtd.read),
    "kolektor": Layout(kolektor.claims, kolektor.read),
    "meta": Layout(meta.claims, meta.read),
    "coco": Layout(coco.claims, coco.read),
    "mvtec3d": Layout(mvtec3d.claims, mvtec3d.read),
    "mvtec": Layout(mvtec.claims, mvtec.read),
    "folders": Layout(good_bad.claims, good_bad.read),
}


def discover(path: str | Path, check_masks: bool = True) -> DataSet:
    """Reads the data set at ``path``: a folder of any known layout, or a list (.jsonl, COCO, ``meta.json``, VisA CSV).

    ``check_masks`` opens every mask (about a millisecond each) to note empty ones and those of another shape than
    their picture. Raises ``DataError`` if there is nothing there, no layout fits, or several do.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"no data set at {root}", hint="give the data set's folder or its list")
    notes = Notes()
    if root.is_file():
        name = root.stem
        layout, root, samples = _read_file(root, notes)
    else:
        name = root.resolve().name
        layout, folders = _find_categories(root, notes)
        samples = [sample for folder in folders for sample in LAYOUTS[layout].read(folder)]
    if not samples:
        raise DataError(
            f"{path} is laid out as '{layout}' but holds no pictures", hint="; ".join(map(str, notes.all()))
        )
    refuse_conflicts(samples, root)
    if check_masks:
        samples = checked_masks(samples, root, notes)
    return DataSet(name=name, layout=layout, root=root, samples=tuple(samples), noted=notes.all())


def discover_all(path: str | Path, check_masks: bool = True) -> list[DataSet]:
    """``discover``, but a folder whose sub-folders are data sets of different layouts gives one set for each."""
    root = Path(path)
    if not root.is_dir() or len({layout for layout, _ in _claimed(root)}) < 2:
        return [discover(root, check_masks)]
    children = [child for child in sorted(root.iterdir(), key=natural) if child.is_dir() and any(_claimed(child))]
    return [data_set for child in children for data_set in discover_all(child, check_masks)]


def category_folders(root: Path) -> list[Path]:
    """The folders that ``discover`` reads of the set at ``root``, each by its layout."""
    return [folder for _, folder in _claimed(root)]


def _read_file(path: Path, notes: Notes) -> tuple[str, Path, list[Sample]]:
    """(layout, root, samples) of a list given by itself."""
    suffix = path.suffix.lower()
    if suffix == ".csv" and visa.is_list(path):
        root = path.parent.parent if path.parent.name == visa.SPLIT_FOLDER else path.parent
        return "visa", root, visa.read_list(path, Folder(root, path.stem, root, notes))
    if suffix == ".json" and meta.is_list(path):
        return "meta", path.parent, meta.read_list(path, Folder(path.parent, path.stem, path.parent, notes))
    if suffix == ".json" and coco.is_list(path):
        root = coco.root_of(path)
        return "coco", root, coco.read_lists([path], Folder(root, path.stem, root, notes))
    if suffix in (".json", ".csv"):
        raise DataError(
            f"{path} is no list that we know", hint="known lists: .jsonl, COCO's .json, a meta.json, VisA's split .csv"
        )
    return "jsonl", path.parent, jsonl.read(path, notes)


def _find_categories(root: Path, notes: Notes) -> tuple[str, list[Folder]]:
    claimed = list(_claimed(root))
    layouts = {layout for layout, _ in claimed}
    if not layouts:
        inside = first(sorted(entry.name for entry in os.scandir(root))) or "nothing"
        listed = sorted(root.glob("*.jsonl"))
        hint = f"give the list itself: {listed[0]}" if listed else _KNOWN
        raise DataError(f"{root} is not laid out as any data set we know: it holds {inside}", hint=hint)
    if len(layouts) > 1:
        found = ", ".join(f"{folder.relative_to(root).as_posix()} ({layout})" for layout, folder in claimed[:6])
        raise DataError(f"{root} holds several data sets: {found}", hint="name one of them")
    folders = [folder for _, folder in claimed]
    for child in plain_subfolders(root) if folders != [root] else []:
        if not any(folder.is_relative_to(child) for folder in folders) and holds_images(child):
            notes.add(UNLABELLED, child.name)
    return layouts.pop(), [Folder(folder, _category(folder, root), root, notes) for folder in folders]


def _category(folder: Path, root: Path) -> str:
    return root.resolve().name if folder == root else folder.relative_to(root).as_posix()


def _claimed(folder: Path, depth: int = 0) -> Iterator[tuple[str, Path]]:
    """(layout, category folder) below ``folder``, outermost first; nothing is sought inside a category."""
    for name, layout in LAYOUTS.items():
        if layout.claims(folder):
            yield name, folder
            return
    if depth < _MAX_DEPTH:
        for child in plain_subfolders(folder):
            yield from _claimed(child, depth + 1)
