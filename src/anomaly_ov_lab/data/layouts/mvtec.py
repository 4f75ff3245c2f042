"""MVTec style: `test/good`, `test/<defect>`, optional `ground_truth/<defect>`, `train/good`, `validation/good`.

BTAD calls the good ones `ok` and the others `ko`.
"""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import MASK_TYPES, Folder, existing_mask
from anomaly_ov_lab.data.samples import Sample, Split

NORMAL_NAMES = frozenset({"good", "ok"})
# The validation goods are normals that a method may look at beforehand, like the training goods.
SPLITS: tuple[tuple[str, Split], ...] = (("train", "train"), ("validation", "train"), ("test", "test"))


def claims(folder: Path) -> bool:
    """Whether there is ``test/`` and, in it ``good`` or ``ok``, or beside it ``ground_truth``."""
    test = folder / "test"
    return test.is_dir() and ((folder / "ground_truth").is_dir() or any(p.name in NORMAL_NAMES for p in test.iterdir()))


def read(folder: Folder) -> list[Sample]:
    """All pictures; a missing mask is noted only where there are masks at all."""
    samples: list[Sample] = []
    for part, split in SPLITS:
        for kind in folder.subfolders(folder.path / part):
            normal = kind.name in NORMAL_NAMES
            for image in folder.images(kind):
                samples.append(
                    Sample(
                        image=image,
                        label=0 if normal else 1,
                        mask=None if normal else _mask(folder, kind.name, image),
                        category=folder.category,
                        defect=None if normal else kind.name,
                        split=split,
                    )
                )
    return samples


def _mask(folder: Folder, kind: str, image: Path) -> Path | None:
    truth = folder.path / "ground_truth"
    if not truth.is_dir():
        return None
    stems = (f"{image.stem}_mask", image.stem)
    return existing_mask(folder, image, [truth / kind / f"{stem}{suffix}" for stem in stems for suffix in MASK_TYPES])
