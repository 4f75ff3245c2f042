"""From what a person names to an ordered list of pictures to read: files, patterns, folders, "-", arrays, images.

Nothing is decoded here and nothing about a single file raises: a file that is missing or damaged becomes a `Source`
whose reading raises, so that a long run goes on and its record shows the error. Only a request that selects nothing
(a folder without pictures, a pattern without matches) is a `UsageError`.

* files: taken as given, whatever their suffix. A multi-page TIFF becomes one source per page.
* patterns (``*``, ``?``, ``[...]``, ``**`` for any depth): for when the shell did not expand them. Only files with a
  picture's suffix, unless the pattern itself ends in another one ("*.dat"); matching folders are searched.
* folders: searched to any depth for files with a picture's suffix, in natural order (img2 before img10).
  Links are followed, each real folder is entered once.
* hidden files and folders (".name") are skipped in folders, and in patterns that do not ask for them.
* "-": standard input. Either the bytes of one picture, or text in UTF-8: one path per line, no patterns.
* a file that was already selected is not selected again.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.messages import printable
from anomaly_ov.images.read import (
    DEFAULT_LIMITS,
    Limits,
    Picture,
    Readable,
    is_picture,
    open_regular,
    read,
    read_bounded,
)

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".webp", ".gif"}
    | {".pbm", ".pgm", ".ppm", ".pnm"}
)
_MAGIC = re.compile(r"[*?\[]")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, eq=False)
class Source:
    """One picture to read. ``item``: what ``read`` takes. ``page``: of a multi-page TIFF, from 0.

    ``id``: unique in its list and stable: the path as given (below a folder: joined to it), with ``#page=1`` for the
    first page of several, ``-`` for a picture on standard input, ``array-0``, ``array-1``, ... for what has no path.
    """

    item: Readable
    id: str
    page: int = 0

    def read(self, limits: Limits = DEFAULT_LIMITS) -> Picture:
        """The picture itself; raises ``UnreadableImage`` or ``ImageTooLarge``."""
        return read(self.item, limits, self.page, name=self.id)


def expand(
    inputs: Iterable[Readable] | Readable, limits: Limits = DEFAULT_LIMITS, stdin: BinaryIO | None = None
) -> list[Source]:
    """The pictures that ``inputs`` select, in the order given; each file and page once.

    A single input may stand for itself. ``stdin`` replaces standard input. Raises ``UsageError`` where an input
    selects nothing or is of a type that cannot be read.
    """
    sources = _Sources(limits, stdin)
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "US":  # names in an array
        inputs = inputs.ravel().tolist()
    single = isinstance(inputs, (str, os.PathLike)) or _is_in_memory(inputs)
    for item in cast("Iterable[Readable]", [inputs] if single else inputs):
        sources.add(item)
    return sources.found


def sources_of(items: Any) -> Iterator[Source]:
    """As ``expand``, but the sources of a generator one by one, so that it may be long or endless.

    Sources among the items are taken as they are.
    """
    if isinstance(items, Iterator) and not hasattr(items, "read"):
        return _one_by_one(items)
    if isinstance(items, (list, tuple)) and any(isinstance(item, Source) for item in items):
        return _one_by_one(iter(items))
    return iter(expand(items))


def _one_by_one(items: Iterator[Any]) -> Iterator[Source]:
    unnamed = 0
    for item in items:
        for source in [item] if isinstance(item, Source) else expand([item]):
            if source is item or isinstance(source.item, (str, Path)):
                yield source
            else:  # numbered from 0 by each call of expand
                yield Source(source.item, f"array-{unnamed}", source.page)
                unnamed += 1


def page_digest(sha256: str, page: int) -> str:
    """SHA-256 that tells pages apart, 64 hex digits: the file's own for its first page, another for any other."""
    return sha256 if not page else hashlib.sha256(f"{sha256}#{page}".encode()).hexdigest()


def page_count(path: str | Path, limit: int) -> int:
    """Pages of a TIFF, by following its chain of directories: a few bytes each, ``limit`` at most; 1 for all else.

    A file whose suffix is that of another format is not opened. Never raises for a damaged file: its chain counts as
    far as it can be followed. A directory is a count, that many entries and the offset of the next one (TIFF 6.0,
    section 2; BigTIFF with wider fields).
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES and suffix not in (".tif", ".tiff"):
        return 1
    try:
        with open_regular(path) as file:
            return max(1, _count_directories(file, limit))
    except (OSError, ValueError):
        return 1


def natural_key(path: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Sort key under which numbers within names count as numbers, folder by folder, and case comes last."""
    folded = [_DIGITS.split(part.casefold()) for part in Path(path).parts]
    return tuple(tuple(int(t) if i % 2 else t for i, t in enumerate(part)) for part in folded), path


class _Sources:
    """The list under construction: what was found so far, and which files and names are taken."""

    def __init__(self, limits: Limits, stdin: BinaryIO | None) -> None:
        self.found: list[Source] = []
        self._limits = limits
        self._stdin = stdin
        self._stdin_used = False
        self._files: set[str] = set()
        self._ids: set[str] = set()
        self._arrays = 0

    def add(self, item: Readable) -> None:
        """Everything that one input selects."""
        if isinstance(item, str) and item == "-":
            self._add_stdin()
        elif isinstance(item, (str, os.PathLike)):
            self._add_path(os.fsdecode(item), patterns=True)
        elif _is_in_memory(item):
            self._append(item, f"array-{self._arrays}")
            self._arrays += 1
        else:
            hint = "give paths, patterns, folders, '-', arrays, Pillow images, bytes or binary streams"
            raise UsageError(f"cannot take a picture from a {type(item).__name__}", hint=hint)

    def _add_stdin(self) -> None:
        if self._stdin_used:
            return
        self._stdin_used = True
        data = _read_stdin(self._stdin, self._limits)
        paths = _paths_in(data)
        if paths is None:
            self._append(data, "-")
            return
        if not paths:
            raise UsageError("standard input is empty", hint="pipe in a picture, or one path per line")
        for path in paths:
            self._add_path(path, patterns=False)

    def _add_path(self, path: str, patterns: bool) -> None:
        if os.path.isdir(path):
            self._add_all(list(_pictures_below([path])), f"there is no picture in folder {printable(path)}")
        elif patterns and _MAGIC.search(path) and not os.path.lexists(path):
            self._add_all(_matches(path), f"nothing matches {printable(path)}")
        else:
            self._add_file(path)

    def _add_all(self, paths: list[str], nothing: str) -> None:
        if not paths:
            raise UsageError(nothing, hint="looked for " + " ".join(sorted(SUFFIXES)))
        for path in sorted(paths, key=natural_key):
            self._add_file(path)

    def _add_file(self, path: str) -> None:
        place = _place(path)
        if place in self._files:
            return
        self._files.add(place)
        # One past the limit, so that reading the last one says that the file holds too many.
        pages = page_count(path, self._limits.max_pages + 1)
        for page in range(pages):
            self._append(path, f"{path}#page={page + 1}" if pages > 1 else path, page)

    def _append(self, item: Readable, wanted: str, page: int = 0) -> None:
        name, copies = wanted, 1
        while name in self._ids:
            copies += 1
            name = f"{wanted}~{copies}"
        self._ids.add(name)
        self.found.append(Source(item, name, page))


def _is_in_memory(item: object) -> bool:
    return isinstance(item, (bytes, bytearray, memoryview, np.ndarray, Image.Image)) or hasattr(item, "read")


def _read_stdin(stdin: BinaryIO | None, limits: Limits) -> bytes:
    """All of standard input, cut just past the limit: reading that as a picture says that it is too large."""
    stream = stdin or getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise UsageError("there is no standard input", hint="name files or folders")
    try:
        return read_bounded(stream, limits)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read standard input: {error}", hint="name files or folders") from None


def _paths_in(data: bytes) -> list[str] | None:
    """The lines of a list of paths, blank ones left out; None where ``data`` is no text."""
    if is_picture(data[:16]) or b"\x00" in data:
        return None
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        return None
    return [line.rstrip("\r") for line in lines if line.strip()]


def _place(path: str) -> str:
    """Where ``path`` is, however it is written. A link is a place of its own, not the file it leads to."""
    return path if "\x00" in path else os.path.normcase(os.path.abspath(path))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name != ".."


def _is_picture_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _pictures_below(folders: list[str]) -> Iterator[str]:
    """Paths of pictures below ``folders``, and of folders that may not be listed: reading those tells why.

    Links to folders come after all real ones, so that a folder that can be reached both ways keeps its own name.
    """
    entered: set[tuple[int, int]] = set()
    pending, links = list(folders), list[str]()
    while pending or links:
        folder = pending.pop() if pending else links.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted((entry for entry in found if not _is_hidden(entry.name)), key=lambda e: e.name)
        except OSError:
            yield folder
            continue
        for entry in reversed(entries):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(entry.path)
            elif _is_picture_name(entry.name):
                yield entry.path


def _matches(pattern: str) -> list[str]:
    """Files that ``pattern`` selects, pictures below the folders that it selects, in no order."""
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    root, rest = Path(*parts[:fixed]), parts[fixed:]
    suffix = os.path.splitext(rest[-1])[1]
    any_suffix = len(suffix) > 1 and not _MAGIC.search(suffix)
    hidden_too = any(_is_hidden(part) for part in rest)
    try:  # pathlib does not follow links under **, so that loops of links end
        matches = sorted(root.glob(os.path.join(*rest)))
    except (OSError, ValueError, NotImplementedError) as error:
        hint = "** stands alone between slashes"
        raise UsageError(f"cannot follow the pattern {printable(pattern)}: {error}", hint=hint) from None
    if not hidden_too:
        matches = [match for match in matches if not any(map(_is_hidden, match.relative_to(root).parts))]
    folders = [str(match) for match in matches if match.is_dir()]
    files = {str(match) for match in matches if any_suffix or _is_picture_name(match.name)} - set(folders)
    return list(files.union(_pictures_below(folders)))


def _count_directories(file: BinaryIO, limit: int) -> int:
    size = os.fstat(file.fileno()).st_size
    head = file.read(16)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    if head[:4] in (b"II*\x00", b"MM\x00*"):
        offset, count_bytes, entry_bytes, offset_bytes = int.from_bytes(head[4:8], order), 2, 12, 4
    elif head[:4] in (b"II+\x00", b"MM\x00+"):
        offset, count_bytes, entry_bytes, offset_bytes = int.from_bytes(head[8:16], order), 8, 20, 8
    else:
        return 0
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < limit:
        seen.add(offset)  # also where the directory lies past the end: reading that page shows the damage
        if offset + count_bytes > size:
            break
        file.seek(offset)
        behind = offset + count_bytes + entry_bytes * int.from_bytes(file.read(count_bytes), order)
        if behind + offset_bytes > size:
            break
        file.seek(behind)
        offset = int.from_bytes(file.read(offset_bytes), order)
    return len(seen)


def named_sources(pictures: Any) -> tuple[list[Source], str]:
    """The pictures as a list, and a name for where they came from."""
    sources = list(sources_of(pictures))
    if isinstance(pictures, (str, Path)):
        return sources, str(pictures)
    folders = {str(Path(source.item).parent) if isinstance(source.item, str) else "" for source in sources}
    return sources, (folders.pop() if len(folders) == 1 else "") or f"{len(sources)} pictures"
