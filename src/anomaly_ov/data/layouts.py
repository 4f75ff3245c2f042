"""From a folder to a ``DataSet``: the layout is told by its structure, never by the folder's name.

| layout    | what a category folder looks like |
|-----------|-----------------------------------|
| `mvtec`   | `test/good`, `test/<defect>`, optional `ground_truth/<defect>/<stem>_mask.png`, `train/good`, `validation/good` |
| `elpv`    | `labels.csv` with lines "image probability type" split by blanks (the ELPV release) |
| `folders` | one folder of normal and one of anomalous pictures (`good ok normal no` / `bad defect abnormal anomaly ng yes` ...), optional `masks` with a mask per anomalous picture |
| `jsonl`   | a file with one object a line: image, and optionally label, mask, category, defect, split, probability |

The root is one category or holds several, up to three levels down. What is odd (a missing mask, an unreadable line, a
link that leads outside) becomes a note and is left out; what makes the labels doubtful is a ``DataError``.
"""  # noqa: E501

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from anomaly_ov.data.samples import DataSet, Sample, Split, read_mask
from anomaly_ov.errors import DataError
from anomaly_ov.images.sources import SUFFIXES, natural_key

NORMAL_NAMES = frozenset({"good", "ok", "normal", "no"})
ANOMALOUS_NAMES = frozenset(
    {"bad", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal", "ng", "yes"}
)
MASK_NAMES = frozenset({"masks", "mask", "ground_truth"})

MAX_LIST_BYTES = 256 * 2**20
_MAX_DEPTH = 3
_SHOWN = 3
_KNOWN = "known layouts: MVTec style, good|bad folders with optional masks, ELPV's labels.csv, a .jsonl list"


class Notes:
    """Collects oddities by kind, so that a thousand missing masks are one line with three examples."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        self._by_kind.setdefault(kind, []).append(example)

    def lines(self) -> tuple[str, ...]:
        """One line per kind: "<kind>: <count> (<first examples>, ...)"."""
        return tuple(f"{kind}: {len(found)} ({_first(found)})" for kind, found in self._by_kind.items())


@dataclass(frozen=True)
class _Folder:
    """A category folder being read: everything in it must stay inside ``root``."""

    path: Path
    category: str
    root: Path
    notes: Notes = field(repr=False)

    def images(self, folder: Path, nested: bool = False) -> list[Path]:
        """Picture files in ``folder`` (with ``nested`` in folders below too), in natural order, those inside root."""
        found = [Path(entry.path) for entry in _files(folder, nested) if self._usable(entry)]
        return sorted(found, key=_natural)

    def subfolders(self, folder: Path) -> list[Path]:
        """Direct sub-folders in natural order, those inside root."""
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        return sorted((path for path in found if self.inside(path)), key=_natural)

    def inside(self, path: Path) -> bool:
        """Whether ``path``, links followed, lies in the root; if not, it is noted."""
        inside = path.resolve().is_relative_to(self.root.resolve())
        if not inside:
            self.notes.add("leads outside the data set's folder, left out", self.name(path))
        return inside

    def locate(self, name: str) -> Path | None:
        """A listed name as a path below root, links and ".." resolved; None (noted) if it leads outside."""
        path = self.path / name
        return self.root / path.resolve().relative_to(self.root.resolve()) if self.inside(path) else None

    def name(self, path: Path) -> str:
        """How notes call a path: relative to root where it can be."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _usable(self, entry: os.DirEntry[str]) -> bool:
        path = Path(entry.path)
        if path.suffix.lower() not in SUFFIXES:
            self.notes.add("not a picture by its name, left out", self.name(path))
            return False
        return not entry.is_symlink() or self.inside(path)


@dataclass(frozen=True)
class Layout:
    """``claims(folder)`` says whether a folder is a category of this layout; ``read`` turns it into samples."""

    claims: Callable[[Path], bool]
    read: Callable[[_Folder], list[Sample]]


def discover(path: str | Path, check_masks: bool = True) -> DataSet:
    """Reads the data set at ``path``: a folder of any known layout, or a ``.jsonl`` list.

    ``check_masks`` opens every mask (about a millisecond each) to note empty ones and those of another shape than
    their picture. Raises ``DataError`` if there is nothing there, no layout fits, or several do.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"no data set at {root}", hint="give the data set's folder or a .jsonl list")
    notes = Notes()
    if root.is_file():
        name, layout, samples = root.stem, "jsonl", _read_jsonl(root, notes)
        root = root.parent
    else:
        name = root.resolve().name
        layout, folders = _find_categories(root, notes)
        samples = [sample for folder in folders for sample in LAYOUTS[layout].read(folder)]
    if not samples:
        raise DataError(f"{path} is laid out as '{layout}' but holds no pictures", hint="; ".join(notes.lines()))
    _refuse_conflicts(samples, root)
    if check_masks:
        samples = _checked_masks(samples, root, notes)
    return DataSet(name=name, layout=layout, root=root, samples=tuple(samples), notes=notes.lines())


def discover_all(path: str | Path, check_masks: bool = True) -> list[DataSet]:
    """``discover``, but a folder whose sub-folders are data sets of different layouts gives one set for each."""
    root = Path(path)
    if not root.is_dir() or len({layout for layout, _ in _claimed(root)}) < 2:
        return [discover(root, check_masks)]
    children = [child for child in sorted(root.iterdir(), key=_natural) if child.is_dir() and any(_claimed(child))]
    return [data_set for child in children for data_set in discover_all(child, check_masks)]


# --- which folders are categories -----------------------------------------------------------------------------------


def _find_categories(root: Path, notes: Notes) -> tuple[str, list[_Folder]]:
    claimed = list(_claimed(root))
    layouts = {layout for layout, _ in claimed}
    if not layouts:
        inside = _first(sorted(entry.name for entry in os.scandir(root))) or "nothing"
        raise DataError(f"{root} is not laid out as any data set we know: it holds {inside}", hint=_KNOWN)
    if len(layouts) > 1:
        found = ", ".join(f"{folder.relative_to(root).as_posix()} ({layout})" for layout, folder in claimed[:6])
        raise DataError(f"{root} holds several data sets: {found}", hint="name one of them")
    folders = [folder for _, folder in claimed]
    for child in _plain_subfolders(root) if folders != [root] else []:
        if not any(folder.is_relative_to(child) for folder in folders) and _holds_images(child):
            notes.add("folder of pictures without labels, left out", child.name)
    return layouts.pop(), [_Folder(folder, _category(folder, root), root, notes) for folder in folders]


def _category(folder: Path, root: Path) -> str:
    return root.resolve().name if folder == root else folder.relative_to(root).as_posix()


def _claimed(folder: Path, depth: int = 0) -> Iterator[tuple[str, Path]]:
    """(layout, category folder) below ``folder``, outermost first; nothing is sought inside a category."""
    for name, layout in LAYOUTS.items():
        if layout.claims(folder):
            yield name, folder
            return
    if depth < _MAX_DEPTH:
        for child in _plain_subfolders(folder):
            yield from _claimed(child, depth + 1)


def _plain_subfolders(folder: Path) -> list[Path]:
    """Sub-folders in natural order, without links: a link could lead in a circle, or out."""
    with os.scandir(folder) as entries:
        found = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    return sorted(found, key=_natural)


def _files(folder: Path, nested: bool) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield entry
            elif nested and entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), nested)


def _holds_images(folder: Path) -> bool:
    return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in _files(folder, nested=True))


# --- mvtec ----------------------------------------------------------------------------------------------------------


def _claims_mvtec(folder: Path) -> bool:
    test = folder / "test"
    return test.is_dir() and ((folder / "ground_truth").is_dir() or any(p.name == "good" for p in test.iterdir()))


def _read_mvtec(folder: _Folder) -> list[Sample]:
    samples: list[Sample] = []
    # The validation goods are normals that a method may look at beforehand, like the training goods.
    sources: tuple[tuple[str, Split], ...] = (("train", "train"), ("validation", "train"), ("test", "test"))
    for part, split in sources:
        for kind in folder.subfolders(folder.path / part):
            normal = kind.name == "good"
            for image in folder.images(kind):
                samples.append(
                    Sample(
                        image=image,
                        label=0 if normal else 1,
                        mask=None if normal else _mvtec_mask(folder, kind.name, image),
                        category=folder.category,
                        defect=None if normal else kind.name,
                        split=split,
                    )
                )
    return samples


def _mvtec_mask(folder: _Folder, kind: str, image: Path) -> Path | None:
    truth = folder.path / "ground_truth"
    if not truth.is_dir():
        return None
    stems = (f"{image.stem}_mask", image.stem)
    return _existing_mask(folder, image, [truth / kind / f"{stem}{suffix}" for stem in stems for suffix in _MASK_TYPES])


# --- folders of good and bad pictures -------------------------------------------------------------------------------


def _claims_folders(folder: Path) -> bool:
    names = {child.name.lower() for child in _plain_subfolders(folder)}
    return bool(names & (NORMAL_NAMES | ANOMALOUS_NAMES))


def _read_folders(folder: _Folder) -> list[Sample]:
    children = folder.subfolders(folder.path)
    masks = next((child for child in children if child.name.lower() in MASK_NAMES), None)
    samples: list[Sample] = []
    for child in children:
        name = child.name.lower()
        if name not in NORMAL_NAMES | ANOMALOUS_NAMES:
            if child != masks and _holds_images(child):
                folder.notes.add("folder of pictures without labels, left out", folder.name(child))
            continue
        label = int(name in ANOMALOUS_NAMES)
        for image in folder.images(child, nested=True):
            mask = _folders_mask(folder, masks, child, image) if masks and label else None
            samples.append(Sample(image=image, label=label, mask=mask, category=folder.category))
    return samples


def _folders_mask(folder: _Folder, masks: Path, child: Path, image: Path) -> Path | None:
    inner = image.relative_to(child).parent
    parents = (masks / inner, masks / child.name / inner)
    stems = (image.stem, f"{image.stem}_mask")
    tried = [parent / f"{stem}{suffix}" for parent in parents for stem in stems for suffix in _MASK_TYPES]
    return _existing_mask(folder, image, tried)


_MASK_TYPES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")


def _existing_mask(folder: _Folder, image: Path, tried: list[Path]) -> Path | None:
    for path in tried:
        if path.is_file():
            return path if folder.inside(path) else None
    folder.notes.add("anomalous picture without a mask", folder.name(image))
    return None


# --- elpv -----------------------------------------------------------------------------------------------------------


def _claims_elpv(folder: Path) -> bool:
    labels = folder / "labels.csv"
    if not labels.is_file():
        return False
    with labels.open(encoding="utf-8", errors="replace") as file:
        return any(_elpv_line(line) is not None for _, line in zip(range(10), file, strict=False))


def _elpv_line(line: str) -> tuple[str, float] | None:
    """(relative path, probability) of a line, or None if it is none; a third field, the cell's type, is not needed."""
    parts = line.split()
    if len(parts) not in (2, 3):
        return None
    try:
        probability = float(parts[1])
    except ValueError:
        return None
    return (parts[0], probability) if 0 <= probability <= 1 else None


def _read_elpv(folder: _Folder) -> list[Sample]:
    """Label 0 where all annotators saw none, 1 where all saw a defect; in between it is unknown, probability kept."""
    samples = []
    for number, line in enumerate(_lines(folder.path / "labels.csv"), start=1):
        parsed = _elpv_line(line)
        if parsed is None:
            folder.notes.add("unreadable line of labels.csv, left out", f"line {number}")
            continue
        name, probability = parsed
        image = folder.locate(name)
        if image is None:
            continue
        if not image.is_file():
            folder.notes.add("listed picture is missing, left out", name)
            continue
        label = int(probability) if probability in (0.0, 1.0) else None
        samples.append(Sample(image=image, label=label, category=folder.category, probability=probability))
    return _without_repeats(samples, folder.notes, folder.root)


# --- jsonl ----------------------------------------------------------------------------------------------------------

_WORDS = dict.fromkeys(NORMAL_NAMES, 0) | dict.fromkeys(ANOMALOUS_NAMES, 1)


def _read_jsonl(path: Path, notes: Notes) -> list[Sample]:
    folder = _Folder(path.parent, path.stem, path.parent, notes)
    samples = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            sample = _jsonl_sample(json.loads(line), folder)
        except (ValueError, RecursionError) as error:
            notes.add("unreadable line of the list, left out", f"line {number}: {' '.join(str(error).split())}")
            continue
        if sample is None:
            continue
        if not sample.image.is_file():
            notes.add("listed picture is missing, left out", folder.name(sample.image))
            continue
        if sample.mask is not None and not sample.mask.is_file():
            notes.add("listed mask is missing", folder.name(sample.mask))
            sample = replace(sample, mask=None)
        samples.append(sample)
    return _without_repeats(samples, notes, path.parent)


def _jsonl_sample(values: Any, folder: _Folder) -> Sample | None:
    """A line's object as a sample, None if it leads outside; ``ValueError`` says what is wrong with the line."""
    if not isinstance(values, dict) or not isinstance(values.get("image"), str) or not values["image"]:
        raise ValueError("needs an object with the text field 'image'")
    texts = {key: values.get(key) for key in ("mask", "category", "defect", "split")}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"'{key}' must be text or null")
    if texts["split"] not in (None, "train", "test"):
        raise ValueError("'split' must be train, test or null")
    label, probability = _jsonl_label(values.get("label")), _jsonl_probability(values.get("probability"))
    image = folder.locate(values["image"])
    if image is None:
        return None
    return Sample(
        image=image,
        label=label,
        mask=folder.locate(texts["mask"]) if texts["mask"] else None,
        category=texts["category"] or folder.category,
        defect=texts["defect"],
        split=values.get("split"),
        probability=probability,
    )


def _jsonl_label(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, (bool, int)) and value in (0, 1):
        return int(value)
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise ValueError(f"'label' must be 0, 1, true, false, null or a word such as normal, anomalous; got {value!r}")


def _jsonl_probability(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1 or math.isnan(value):
        raise ValueError("'probability' must be a number from 0 to 1 or null")
    return float(value)


# --- shared ---------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Layout] = {
    "mvtec": Layout(_claims_mvtec, _read_mvtec),
    "elpv": Layout(_claims_elpv, _read_elpv),
    "folders": Layout(_claims_folders, _read_folders),
}


def _lines(path: Path) -> list[str]:
    """The non-blank lines of a list file of bounded size."""
    size = path.stat().st_size
    if size > MAX_LIST_BYTES:
        raise DataError(f"{path} has {size} bytes, more than {MAX_LIST_BYTES}", hint="is this really a list?")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line for line in text.split("\n") if line.strip()]


def _without_repeats(samples: list[Sample], notes: Notes, root: Path) -> list[Sample]:
    """Drops (and notes) samples listed twice the same way; those listed differently stay for the conflict check."""
    kept = dict.fromkeys(samples)
    if len(kept) < len(samples):
        seen: set[Sample] = set()
        for sample in samples:
            if sample in seen:
                notes.add("listed twice", sample.image.relative_to(root).as_posix())
            seen.add(sample)
    return list(kept)


def _refuse_conflicts(samples: list[Sample], root: Path) -> None:
    first: dict[Path, Sample] = {}
    for sample in samples:
        known = first.setdefault(sample.image, sample)
        if known != sample:
            names = [f.name for f in fields(Sample) if getattr(known, f.name) != getattr(sample, f.name)]
            differ = ", ".join(f"{name} {getattr(known, name)} and {getattr(sample, name)}" for name in names)
            where = sample.image.relative_to(root).as_posix()
            raise DataError(f"{where} in {root} is listed twice, with {differ}", hint="keep one of the lines")


def _checked_masks(samples: list[Sample], root: Path, notes: Notes) -> list[Sample]:
    """Notes empty masks and masks of another shape; a mask that does not decode is dropped, and noted."""
    checked = []
    for sample in samples:
        if sample.mask is not None:
            name = sample.mask.relative_to(root).as_posix()
            try:
                mask_HW = read_mask(sample.mask)
            except DataError:
                notes.add("mask does not decode, taken as missing", name)
                sample = replace(sample, mask=None)
            else:
                if not mask_HW.any():
                    notes.add("mask is empty", name)
                if not _same_shape(sample.image, mask_HW.shape):
                    notes.add("mask has another shape than its picture", name)
        checked.append(sample)
    return checked


def _same_shape(image: Path, mask_hw: tuple[int, ...]) -> bool:
    """Equal aspect within a pixel's rounding, either way up (a picture may carry an EXIF turn)."""
    try:
        with Image.open(image) as picture:
            width, height = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return True  # the picture's own reader will say what is wrong with it
    mask_height, mask_width = mask_hw
    sizes = ((width, height), (height, width))
    return any(abs(w * mask_height - h * mask_width) <= max(w, h, mask_width, mask_height) for w, h in sizes)


def _natural(path: Path) -> Any:
    """Sort key under which numbers in names count as numbers."""
    return natural_key(str(path))


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
