"""One folder of normal and one of anomalous pictures, told by their names, and optionally one of masks."""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import MASK_TYPES, Folder, existing_mask, holds_images, plain_subfolders
from anomaly_ov_lab.data.layouts.kinds import UNLABELLED
from anomaly_ov_lab.data.samples import Sample

NORMAL_NAMES = frozenset({"good", "ok", "normal", "no"})
ANOMALOUS_NAMES = frozenset(
    {
        "bad",
        "defect",
        "defects",
        "defective",
        "anomaly",
        "anomalies",
        "anomalous",
        "abnormal",
        "ng",
        "ko",
        "nok",
        "ungood",
        "yes",
    }
)
MASK_NAMES = frozenset({"masks", "mask", "ground_truth"})


def claims(folder: Path) -> bool:
    """Whether a sub-folder has one of the known names, in any case."""
    names = {child.name.lower() for child in plain_subfolders(folder)}
    return bool(names & (NORMAL_NAMES | ANOMALOUS_NAMES))


def read(folder: Folder) -> list[Sample]:
    """Everything below the folders with known names; other folders that hold pictures are noted."""
    children = folder.subfolders(folder.path)
    masks = next((child for child in children if child.name.lower() in MASK_NAMES), None)
    samples: list[Sample] = []
    for child in children:
        name = child.name.lower()
        if name not in NORMAL_NAMES | ANOMALOUS_NAMES:
            if child != masks and holds_images(child):
                folder.notes.add(UNLABELLED, folder.name(child))
            continue
        label = int(name in ANOMALOUS_NAMES)
        for image in folder.images(child, nested=True):
            mask = _mask(folder, masks, child, image) if masks and label else None
            samples.append(Sample(image=image, label=label, mask=mask, category=folder.category))
    return samples


def _mask(folder: Folder, masks: Path, child: Path, image: Path) -> Path | None:
    inner = image.relative_to(child).parent
    parents = (masks / inner, masks / child.name / inner)
    stems = (image.stem, f"{image.stem}_mask")
    tried = [parent / f"{stem}{suffix}" for parent in parents for stem in stems for suffix in MASK_TYPES]
    return existing_mask(folder, image, tried)
