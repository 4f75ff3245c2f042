"""MTD, the magnetic tile set as released: `MT_<Defect>/Imgs/<stem>.jpg` with the mask `<stem>.png` beside it.

`MT_Free` holds the tiles without a defect, whose masks are empty and not used.
"""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import Folder, existing_mask, plain_subfolders
from anomaly_ov_lab.data.samples import Sample

_PREFIX, _PICTURES, _NORMAL = "MT_", "Imgs", "free"


def claims(folder: Path) -> bool:
    """Whether there is an ``MT_*/Imgs``."""
    return any(child.name.startswith(_PREFIX) and (child / _PICTURES).is_dir() for child in plain_subfolders(folder))


def read(folder: Folder) -> list[Sample]:
    """All tiles; the defect's kind is its folder's name."""
    samples = []
    for child in folder.subfolders(folder.path):
        if not child.name.startswith(_PREFIX) or not (child / _PICTURES).is_dir():
            continue
        kind = child.name.removeprefix(_PREFIX).lower()
        for image in folder.images(child / _PICTURES):
            if image.suffix.lower() == ".png":
                continue
            normal = kind == _NORMAL
            mask = None if normal else existing_mask(folder, image, [image.with_suffix(".png")])
            samples.append(Sample(image, int(not normal), mask, folder.category, None if normal else kind))
    return samples
