"""KolektorSDD: pictures with their masks beside them, `kos01/Part0.jpg` and `kos01/Part0_label.bmp`.

Every picture has a mask; it is anomalous if any pixel of it is set. KolektorSDD2 (`train/10000.png`,
`train/10000_GT.png`, `test/...`) is read in the same way; folders called train and test are its splits.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts.folder import MASK_TYPES, Folder, files_in, plain_subfolders
from anomaly_ov_lab.data.layouts.kinds import MASK_BROKEN, MASK_MISSING
from anomaly_ov_lab.data.samples import Sample, Split, read_mask

_ENDINGS = ("_label", "_GT")
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
_SEEN = 64


def claims(folder: Path) -> bool:
    """Whether the folder or one in it holds masks so named; half of such a folder's files are masks, so a few do."""
    return any(_holds_masks(child) for child in (folder, *plain_subfolders(folder)))


def read(folder: Folder) -> list[Sample]:
    """All pictures of the folder and of those in it, labelled by their masks; without a mask the label is unknown."""
    samples = []
    for child in (folder.path, *folder.subfolders(folder.path)):
        for image in folder.images(child):
            if not image.stem.endswith(_ENDINGS):
                label, mask = _labelled(folder, image)
                split = _SPLITS.get(child.name) if child != folder.path else None
                samples.append(Sample(image, label, mask, folder.category, split=split))
    return samples


def _labelled(folder: Folder, image: Path) -> tuple[int | None, Path | None]:
    tried = [image.with_name(f"{image.stem}{ending}{suffix}") for ending in _ENDINGS for suffix in MASK_TYPES]
    mask = next((path for path in tried if path.is_file()), None)
    if mask is None:
        folder.notes.add(MASK_MISSING, folder.name(image))
        return None, None
    if not folder.inside(mask):
        return None, None
    try:
        anomalous = bool(read_mask(mask).any())
    except DataError:
        folder.notes.add(MASK_BROKEN, folder.name(mask))
        return None, None
    return int(anomalous), mask if anomalous else None


def _holds_masks(folder: Path) -> bool:
    names = (Path(entry.name) for entry in islice(files_in(folder, nested=False), _SEEN))
    return any(name.stem.endswith(_ENDINGS) and name.suffix.lower() in MASK_TYPES for name in names)
