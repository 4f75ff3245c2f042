"""Conversations in LLaVA's JSON layout as a source of samples, by number, from a file that may not fit in memory.

The files are read once, sample by sample (``instruct.llava_json``), and their usable samples written as lines of
``conversations-HASH.jsonl`` in the run's folder, whose offsets are kept; a resumed run finds that file again, so sample
``k`` stays what it was. A sample whose pictures turn out not to decode is replaced by the next. Whatever is not used is
named, once, in ``skipped.jsonl``.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image

from anomaly_ov.errors import DataError, ImageError, UnreadableImage, UsageError
from anomaly_ov.files import replacing, utf8, write_atomic
from anomaly_ov.reasoning.processor import Message, released_turns
from anomaly_ov_lab.instruct import llava_json

SKIPPED = "skipped.jsonl"
TRIES = 100
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height

T = TypeVar("T")
Size = tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """One usable sample: where it came from, its pictures, and its messages with a marker for each picture."""

    file: str
    index: int
    id: str
    images: tuple[Path, ...]
    messages: tuple[Message, ...]


class SkipLog:
    """``skipped.jsonl``: one line per sample that was not used. Any process may add to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted: set[tuple[str, int]] = set()

    def note(self, file: str, index: int, id: str, reason: str) -> None:
        """Adds a line, unless this process has added one for the same sample."""
        if (file, index) in self._noted:
            return
        self._noted.add((file, index))
        line = json.dumps({"file": file, "index": index, "id": id, "reason": reason[:500]}) + "\n"
        # One short write to the end of the file: whole lines, whichever process is first.
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def settle(self) -> str:
        """Puts the lines in order, one per sample, and says in one line how many there are and why."""
        rows = [json.loads(line) for line in _lines_of(self._path)]
        once = {(row["file"], row["index"]): row for row in reversed(rows)}
        kept = [once[key] for key in sorted(once)]
        write_atomic(self._path, "".join(f"{json.dumps(row)}\n" for row in kept).encode())
        reasons = Counter(str(row["reason"]).split(":")[0] for row in kept)
        said = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        return f"{len(kept)} skipped ({said}; see {self._path})" if kept else "none skipped"


class JsonTalk:
    """The usable samples of an index file, by number. Made by ``index_conversations``."""

    def __init__(self, index: Path, images: Path, skips: SkipLog) -> None:
        self._path, self._images, self._skips = index, images, skips
        lengths = [len(line) for line in _raw_lines(index)]
        self._offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def entry(self, k: int) -> Entry:
        """Sample ``k``."""
        with self._path.open("rb") as file:
            file.seek(int(self._offsets[k]))
            row = json.loads(file.readline())
        images = tuple(self._images / name for name in row["images"])
        messages = tuple((str(role), str(text)) for role, text in row["messages"])
        return Entry(row["file"], row["index"], row["id"], images, messages)

    def choose(self, rng: np.random.Generator) -> int:
        """Number of any sample, each equally often."""
        return int(rng.integers(len(self)))

    def first_good(self, k: int, use: Callable[[Entry], T]) -> T:
        """``use`` of sample ``k``, or of the first one behind it for which it raises no error about picture or text.

        Those before it are named in the log. Raises ``DataError`` when none of the next ``TRIES`` is good.
        """
        for further in range(min(TRIES, len(self))):
            entry = self.entry((k + further) % len(self))
            try:
                return use(entry)
            except ImageError as error:
                self._skips.note(entry.file, entry.index, entry.id, f"image unreadable: {error.message}")
            except UsageError as error:
                self._skips.note(entry.file, entry.index, entry.id, f"not encodable: {error.message}")
        raise DataError(
            f"none of {min(TRIES, len(self))} samples in a row, from sample {k}, can be used",
            hint=f"see {SKIPPED} in the run's folder; check the recipe's images folder",
        )

    def pictures(self) -> Iterator[Path]:
        """Every picture of every sample, in order."""
        for k in range(len(self)):
            yield from self.entry(k).images


def index_conversations(files: Sequence[Path], images: Path, folder: Path, key: str) -> tuple[JsonTalk, str]:
    """Indexes ``files``, whose image paths are relative to ``images``, in ``folder``; and a line that says the outcome.

    ``key``: names the files' content; an index of the same key is used as it is. Raises ``DataError`` when a file is
    missing or broken, and when no sample is usable.
    """
    if not images.is_dir():
        raise DataError(f"no folder of images at {images}", hint="check --data and the recipe's images")
    path, skips = folder / f"conversations-{key}.jsonl", SkipLog(folder / SKIPPED)
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SKIPPED).unlink(missing_ok=True)
        with replacing(path) as file:
            for row in _usable(files, images, skips):
                file.write(utf8(json.dumps(row, ensure_ascii=False)) + b"\n")
    talk = JsonTalk(path, images, skips)
    said = f"{len(talk)} conversations in {', '.join(file.name for file in files)}, {skips.settle()}"
    if not len(talk):
        raise DataError(said, hint="check the recipe's conversations and images")
    return talk, said


def size_wh(path: Path) -> Size:
    """Width and height of a picture as it will be read, turned as EXIF says; nothing is decoded.

    Raises ``UnreadableImage`` when the header cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            turned = picture.getexif().get(ExifTags.Base.Orientation) in TURNED
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"cannot read the header of {path}: {error}", hint="replace the file") from None
    return (height, width) if turned else (width, height)


def _usable(files: Iterable[Path], images: Path, skips: SkipLog) -> Iterator[dict[str, Any]]:
    root = images.resolve()
    for file in files:
        for index, item in enumerate(llava_json.read(file, images)):
            if isinstance(item, llava_json.Skipped):
                skips.note(file.name, item.index, item.id, item.reason)
                continue
            names = [path.relative_to(root).as_posix() for path in item.images]
            messages = released_turns(item.turns)
            yield {"file": file.name, "index": index, "id": item.id, "images": names, "messages": messages}


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
