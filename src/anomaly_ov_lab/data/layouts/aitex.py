"""AITEX fabric images as released: `Defect_images`, `Mask_images/<stem>_mask.png`, `NODefect_images/<fabric>`.

The pictures are strips of 4096 x 256 pixels, 105 with a defect and 140 without, read here as they are; what others
measure, tiles of 256 x 256, is made by ``data.convert``. Names are number_defect_fabric; there is no split. A strip
whose mask comes in several files (`_mask1`, `_mask2`) has no single one until it is converted.
"""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import MASK_TYPES, Folder
from anomaly_ov_lab.data.layouts.kinds import MASK_PIECES, NO_MASK
from anomaly_ov_lab.data.samples import Sample

_DEFECTIVE, _MASKS, _GOOD = "Defect_images", "Mask_images", "NODefect_images"
# The defect codes of the data set's page.
_NAMES = {
    "002": "broken end",
    "006": "broken yarn",
    "010": "broken pick",
    "016": "weft curling",
    "019": "fuzzyball",
    "022": "cut selvage",
    "023": "crease",
    "025": "warp ball",
    "027": "knots",
    "029": "contamination",
    "030": "nep",
    "036": "weft crack",
}


def claims(folder: Path) -> bool:
    """Whether there is ``Defect_images`` and, beside it, one of the other two."""
    return (folder / _DEFECTIVE).is_dir() and any((folder / name).is_dir() for name in (_MASKS, _GOOD))


def read(folder: Folder) -> list[Sample]:
    """All strips; the fabrics are one category, as in the published figures."""
    samples = [Sample(image, 0, category=folder.category) for image in folder.images(folder.path / _GOOD, nested=True)]
    for image in folder.images(folder.path / _DEFECTIVE):
        pieces = mask_files(image)
        if len(pieces) != 1:
            folder.notes.add(MASK_PIECES if pieces else NO_MASK, folder.name(image))
        mask = pieces[0] if len(pieces) == 1 else None
        code = [*image.stem.split("_"), ""][1]
        samples.append(Sample(image, 1, mask, folder.category, _NAMES.get(code, code or None)))
    return samples


def mask_files(image: Path) -> list[Path]:
    """The files that together are a strip's mask, links not followed; empty if there is none."""
    folder = image.parent.parent / _MASKS
    for endings in (("_mask",), tuple(f"_mask{number}" for number in range(1, 10))):
        tried = [folder / f"{image.stem}{ending}{suffix}" for ending in endings for suffix in MASK_TYPES]
        found = [path for path in tried if path.is_file() and not path.is_symlink()]
        if found:
            return found
    return []
