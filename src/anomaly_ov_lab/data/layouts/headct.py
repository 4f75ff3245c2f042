"""HeadCT (Kaggle, "Head CT - hemorrhage"): `labels.csv` with lines "id, hemorrhage" and pictures `000.png`, ...

The pictures lie beside the list or in folders below it (`head_ct/head_ct` as released); all are 0 or 1, without masks.
"""

from __future__ import annotations

import re
from pathlib import Path

from anomaly_ov.images.sources import SUFFIXES
from anomaly_ov_lab.data.layouts.folder import Folder, files_in, natural
from anomaly_ov_lab.data.layouts.kinds import BAD_LINE, PICTURE_MISSING, TWICE
from anomaly_ov_lab.data.layouts.lists import head, lines, without_repeats
from anomaly_ov_lab.data.samples import Sample

_LINE = re.compile(r"\s*(\d{1,9})\s*,\s*([01])\s*")


def claims(folder: Path) -> bool:
    """Whether one of the first ten lines of ``labels.csv`` is "number, 0 or 1"."""
    return any(_LINE.fullmatch(line) for line in head(folder / "labels.csv").splitlines()[:10])


def read(folder: Folder) -> list[Sample]:
    """Each listed number's picture; a header line is no fault."""
    pictures = _by_number(folder)
    samples = []
    for number, line in enumerate(lines(folder.path / "labels.csv"), start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            if number > 1:
                folder.notes.add(BAD_LINE, f"line {number}")
            continue
        image = pictures.get(int(found[1]))
        if image is None:
            folder.notes.add(PICTURE_MISSING, f"number {found[1]}")
            continue
        samples.append(Sample(image, int(found[2]), category=folder.category))
    return without_repeats(samples, folder.notes, folder.root)


def _by_number(folder: Folder) -> dict[int, Path]:
    found = [Path(entry.path) for entry in files_in(folder.path, nested=True)]
    pictures: dict[int, Path] = {}
    for image in sorted((p for p in found if p.stem.isdecimal() and p.suffix.lower() in SUFFIXES), key=natural):
        if folder.inside(image) and pictures.setdefault(int(image.stem), image) != image:
            folder.notes.add(TWICE, folder.name(image))
    return pictures
