"""Any data set as an MVTec-style tree: pictures copied or cut into tiles, outlines drawn, masks in pieces joined.

`<category>/{train,test}/{good,<defect>}` and `<category>/ground_truth/<defect>/<stem>_mask.png`, which this project and
most others read. Without tiles a picture's file is copied as it is. Tiles are squares; the last of a row or column is
moved inwards to end with the picture, so that every pixel is in one (4096 x 256 strips give 16 tiles of 256). A tile is
anomalous if its piece of the mask has a defect; tiles of one colour (padding) are left out. Pictures whose label is
unknown, and of tiles those whose anomaly has no mask of the picture's size, are left out and noted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import DataError, ImageError, UsageError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.read import read
from anomaly_ov_lab.data.layouts import aitex, coco, discover
from anomaly_ov_lab.data.layouts.discovery import category_folders
from anomaly_ov_lab.data.layouts.folder import Notes
from anomaly_ov_lab.data.samples import DataSet, Sample, read_mask

MIN_TILE = 16
_UNSAFE = re.compile(r"[^\w.+-]+")

Mask = npt.NDArray[np.bool_]
MaskOf = Callable[[Sample], Mask | None]


@dataclass(frozen=True)
class Converted:
    """What was written, and one line per thing that was left out."""

    pictures: int
    masks: int
    notes: tuple[str, ...]


def convert(
    source: str | Path, out: str | Path, tile: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Converted:
    """Writes the set at ``source`` to the new folder ``out``; ``tile``: the side of the tiles in pixels.

    ``progress`` is told (done, of how many) pictures. Raises ``DataError`` for what is no data set or has no label,
    ``UsageError`` where ``out`` is not empty or lies inside ``source``.
    """
    if tile is not None and tile < MIN_TILE:
        raise UsageError(f"tiles of {tile} pixels", hint=f"give a side of {MIN_TILE} or more")
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already", hint="name a new or an empty folder")
    if Path(source).is_dir() and target.resolve().is_relative_to(Path(source).resolve()):
        raise UsageError(f"{target} lies inside {source}", hint="name a folder outside of what is converted")
    data = discover(source)
    if not any(sample.label is not None for sample in data):
        raise DataError(f"none of the {len(data)} pictures of {source} has a label", hint="give a set with labels")
    notes, pictures, masks = Notes(), 0, 0
    mask_of = _masks(Path(source), data, notes)
    folders = _folders(data.categories, notes)
    for category in data.categories:  # by this folder, empty or not, a category is known
        (target / folders[category] / "test" / "good").mkdir(parents=True, exist_ok=True)
    for index, sample in enumerate(data):
        name = data.id_of(sample)
        try:
            mask_HW = mask_of(sample) if sample.label == 1 else None
        except DataError as error:
            notes.add("mask cannot be drawn, taken as missing", f"{name}: {error.message}")
            mask_HW = None
        for piece in _pieces(sample, mask_HW, tile, name, notes):
            folder = target / folders[sample.category]
            stem = f"{index:06d}-{_safe(sample.image.stem)[:80]}{piece.place}"
            part = f"{sample.split or 'test'}/{piece.kind}"
            _write(folder / part / f"{stem}{piece.suffix}", piece.data)
            pictures += 1
            if piece.mask_HW is not None and piece.kind != "good":
                _write(folder / "ground_truth" / piece.kind / f"{stem}_mask.png", _png(piece.mask_HW * np.uint8(255)))
                masks += 1
        if progress is not None:
            progress(index + 1, len(data))
    return Converted(pictures, masks, tuple(map(str, notes.all())))


@dataclass(frozen=True)
class _Piece:
    """A file to write: the whole picture or a tile of it; ``place`` is appended to its name."""

    data: bytes
    suffix: str
    kind: str
    mask_HW: Mask | None
    place: str = ""


def _folders(categories: Sequence[str], notes: Notes) -> dict[str, str]:
    """A folder of its own for each category, however alike their names are."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for category in categories:
        name, number = _safe(category), 1
        while (folder := name if number == 1 else f"{name}-{number}").casefold() in taken:
            number += 1
        taken.add(folder.casefold())
        found[category] = folder
        if number > 1:
            notes.add("category written under another name, its own is taken", f"{category!r} as {folder}")
    return found


def _masks(source: Path, data: DataSet, notes: Notes) -> MaskOf:
    """How the masks of a set's layout come to be."""
    if data.layout == "coco":
        drawn = coco.drawn_masks([source] if source.is_file() else category_folders(source), data.root, notes)
        return lambda sample: drawn(sample.image)
    if data.layout == "aitex":
        return lambda sample: _joined(aitex.mask_files(sample.image))
    return lambda sample: None if sample.mask is None else read_mask(sample.mask)


def _joined(pieces: list[Path]) -> Mask | None:
    masks = [read_mask(path) for path in pieces]
    if len({mask.shape for mask in masks}) > 1:
        raise DataError(f"the masks of {pieces[0].name} are of several sizes", hint="they cannot be joined")
    return np.logical_or.reduce(masks) if masks else None


def _pieces(sample: Sample, mask_HW: Mask | None, tile: int | None, name: str, notes: Notes) -> Iterator[_Piece]:
    if sample.label is None:
        notes.add("label unknown, left out", name)
        return
    kind = "good" if sample.label == 0 else _safe(sample.defect or "defect")
    kind = "defect" if sample.label and kind in ("good", "ok") else kind
    if tile is None:
        yield _Piece(sample.image.read_bytes(), sample.image.suffix.lower(), kind, mask_HW)
        return
    if sample.label and mask_HW is None:
        notes.add("anomalous without a mask, no tiles of it", name)
        return
    try:
        pixels_HW3 = read(sample.image).pixels_HW3
    except ImageError as error:
        notes.add("picture cannot be read, left out", error.message)
        return
    if mask_HW is not None and mask_HW.shape != pixels_HW3.shape[:2]:
        notes.add("mask of another size, no tiles of it", name)
        return
    yield from _tiles(pixels_HW3, mask_HW, tile, kind, name, notes)


def _tiles(
    pixels_HW3: npt.NDArray[np.uint8], mask_HW: Mask | None, tile: int, kind: str, name: str, notes: Notes
) -> Iterator[_Piece]:
    height, width = pixels_HW3.shape[:2]
    for y in _starts(height, tile):
        for x in _starts(width, tile):
            cut = (slice(y, y + tile), slice(x, x + tile))
            part_HW3 = pixels_HW3[cut]
            part_HW = None if mask_HW is None else mask_HW[cut]
            anomalous = part_HW is not None and bool(part_HW.any())
            if not anomalous and (part_HW3 == part_HW3[0, 0]).all():
                notes.add("tile of one colour, left out", f"{name} at {x},{y}")
                continue
            yield _Piece(_png(part_HW3), ".png", kind if anomalous else "good", part_HW, f"-{x}-{y}")


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin: one after the other, the last moved back to end with the picture."""
    return [*range(0, length - tile, tile), max(0, length - tile)]


def _safe(name: str) -> str:
    """A name from a list as one of a single folder or file: no separators, no dots at its ends, never empty."""
    return _UNSAFE.sub("_", name).strip("._")[:120] or "_"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
