"""A category folder being read: its pictures, sub-folders and masks, and notes on what was odd or left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anomaly_ov.images.messages import printable
from anomaly_ov.images.sources import SUFFIXES, natural_key
from anomaly_ov_lab.data.layouts.kinds import (
    BAD_PATH,
    MASK_MISSING,
    NO_MASK,
    NOT_A_PICTURE,
    OUTSIDE,
    PICTURE_MISSING,
)
from anomaly_ov_lab.data.samples import Note, Split

MASK_TYPES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
_SHOWN = 3
_SPLIT_WORDS = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}
_WORD = re.compile(r"[a-z]+")


class Notes:
    """Collects oddities by kind, so that a thousand missing masks are one line with three examples."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        """One more of ``kind``, met at ``example``."""
        self._by_kind.setdefault(kind, []).append(printable(example))

    def all(self) -> tuple[Note, ...]:
        """One note per kind."""
        return tuple(Note(kind, len(found), tuple(found[:_SHOWN])) for kind, found in self._by_kind.items())


@dataclass(frozen=True)
class Folder:
    """A category folder being read: everything in it must stay inside ``root``."""

    path: Path
    category: str
    root: Path
    notes: Notes = field(repr=False)

    def images(self, folder: Path, nested: bool = False) -> list[Path]:
        """Picture files in ``folder`` (with ``nested`` in folders below too), in natural order, those inside root."""
        found = [Path(entry.path) for entry in files_in(folder, nested) if self._usable(entry)]
        return sorted(found, key=natural)

    def subfolders(self, folder: Path) -> list[Path]:
        """Direct sub-folders in natural order, those inside root."""
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        return sorted((path for path in found if self.inside(path)), key=natural)

    def inside(self, path: Path) -> bool:
        """Whether ``path``, links followed, lies in the root; if not, it is noted."""
        inside = path.resolve().is_relative_to(self.root.resolve())
        if not inside:
            self.notes.add(OUTSIDE, self.name(path))
        return inside

    def locate(self, name: str) -> Path | None:
        """A listed name as a path below root, links and ".." resolved; None (noted) if it leads outside."""
        path = self.path / name
        return self.root / path.resolve().relative_to(self.root.resolve()) if self.inside(path) else None

    def listed(self, name: str, start: Path | None = None) -> Path | None:
        """The picture that a list calls ``name``, relative to ``start`` or the category; None (noted) if it is none."""
        return self._listed(name, start, PICTURE_MISSING)

    def listed_mask(self, name: str, start: Path | None = None) -> Path | None:
        """The mask that a list calls ``name``; None (noted) if there is none or it leads outside."""
        return self._listed(name, start, MASK_MISSING)

    def _listed(self, name: str, start: Path | None, missing: str) -> Path | None:
        try:
            path = replace(self, path=start or self.path).locate(name)
            if path is None or path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # a zero byte, a name too long, links in a circle
            self.notes.add(BAD_PATH, name[:80])
            return None
        self.notes.add(missing, self.name(path))
        return None

    def name(self, path: Path) -> str:
        """How notes call a path: relative to root where it can be."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _usable(self, entry: os.DirEntry[str]) -> bool:
        path = Path(entry.path)
        if path.suffix.lower() not in SUFFIXES:
            self.notes.add(NOT_A_PICTURE, self.name(path))
            return False
        return not entry.is_symlink() or self.inside(path)


def existing_mask(folder: Folder, image: Path, tried: list[Path]) -> Path | None:
    """The first of ``tried`` that is a file; None (noted) if there is none, or if it leads outside."""
    for path in tried:
        if path.is_file():
            return path if folder.inside(path) else None
    folder.notes.add(NO_MASK, folder.name(image))
    return None


def split_word(name: str) -> str | None:
    """``train``, ``val`` or ``test`` where a name has that word and no other of them, in any case: ``train2017``,
    ``test_public`` and ``Validation``, but not ``drivetrain``.
    """
    words = set(_WORD.findall(name.lower()))
    found = [part for part, spellings in _SPLIT_WORDS.items() if words & spellings]
    return found[0] if len(found) == 1 else None


def split_of(word: str | None, has_test: bool) -> Split | None:
    """What a ``split_word`` stands for: validation pictures are the test where there is no other."""
    if word is None:
        return None
    return "train" if word == "train" or (word == "val" and has_test) else "test"


def plain_subfolders(folder: Path) -> list[Path]:
    """Sub-folders in natural order, without links: a link could lead in a circle, or out."""
    with os.scandir(folder) as entries:
        found = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    return sorted(found, key=natural)


def files_in(folder: Path, nested: bool) -> Iterator[os.DirEntry[str]]:
    """Files in ``folder`` (with ``nested`` in folders below too, links not followed) but hidden ones, in any order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield entry
            elif nested and entry.is_dir(follow_symlinks=False):
                yield from files_in(Path(entry.path), nested)


def holds_images(folder: Path) -> bool:
    """Whether there is a picture, by its name, in ``folder`` or below."""
    return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in files_in(folder, nested=True))


def natural(path: Path) -> Any:
    """Sort key under which numbers in names count as numbers."""
    return natural_key(str(path))


def first(names: list[str]) -> str:
    """The first few of ``names`` in one line."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
