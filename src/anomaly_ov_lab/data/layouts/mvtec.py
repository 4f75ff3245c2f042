"""MVTec style: `test/good`, `test/<defect>`, optional `ground_truth/<defect>`, `train/good`, `validation/good`.

Names count in any case. BTAD calls the good ones `ok` and the others `ko`, others say `normal`. MVTec AD 2 has several
tests (`test_public`, ...), each with a `ground_truth` of its own.
"""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import (
    MASK_TYPES,
    Folder,
    existing_mask,
    plain_subfolders,
    split_of,
    split_word,
)
from anomaly_ov_lab.data.samples import Sample, Split

NORMAL_NAMES = frozenset({"good", "ok", "normal"})
TRUTH = "ground_truth"


def claims(folder: Path) -> bool:
    """Whether there is a test and, in it ``good``, ``ok`` or ``normal``, or in it or beside it ``ground_truth``."""
    tests = [part for part, split in parts(folder) if split == "test"]
    inside = {child.name.lower() for test in tests for child in plain_subfolders(test)}
    return bool(tests) and bool(inside & NORMAL_NAMES or TRUTH in inside or _truth(folder))


def parts(folder: Path) -> list[tuple[Path, Split]]:
    """The sub-folders of the splits: training, validation, tests. Validation goods are normals that a method may look
    at beforehand, like the training goods.
    """
    found = [(child, split_word(child.name)) for child in plain_subfolders(folder)]
    ordered = [(child, word) for wanted in ("train", "val", "test") for child, word in found if word == wanted]
    return [(child, split) for child, word in ordered if (split := split_of(word, has_test=True)) is not None]


def read(folder: Folder) -> list[Sample]:
    """All pictures; a missing mask is noted only where there are masks at all."""
    samples: list[Sample] = []
    for part, split in parts(folder.path):
        truth = _truth(part) or _truth(folder.path)
        for kind in folder.subfolders(part):
            if kind.name.lower() == TRUTH:
                continue
            normal = kind.name.lower() in NORMAL_NAMES
            for image in folder.images(kind):
                samples.append(
                    Sample(
                        image=image,
                        label=0 if normal else 1,
                        mask=None if normal or truth is None else _mask(folder, truth / kind.name, image),
                        category=folder.category,
                        defect=None if normal else kind.name,
                        split=split,
                    )
                )
    return samples


def _truth(folder: Path) -> Path | None:
    return next((child for child in plain_subfolders(folder) if child.name.lower() == TRUTH), None)


def _mask(folder: Folder, masks: Path, image: Path) -> Path | None:
    stems = (f"{image.stem}_mask", image.stem)
    return existing_mask(folder, image, [masks / f"{stem}{suffix}" for stem in stems for suffix in MASK_TYPES])
