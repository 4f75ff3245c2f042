"""MVTec 3D-AD as released: `test/<defect>/rgb` and `test/<defect>/gt`, `train/good/rgb`, `validation/good/rgb`.

The masks in `gt` carry their picture's name; those of `good` are empty and not used. Depth (`xyz`) is not read.
"""

from __future__ import annotations

from pathlib import Path

from anomaly_ov_lab.data.layouts.folder import MASK_TYPES, Folder, existing_mask, plain_subfolders
from anomaly_ov_lab.data.layouts.mvtec import parts
from anomaly_ov_lab.data.samples import Sample


def claims(folder: Path) -> bool:
    """Whether a folder of ``test/`` holds ``rgb``."""
    test = folder / "test"
    return test.is_dir() and any((kind / "rgb").is_dir() for kind in plain_subfolders(test))


def read(folder: Folder) -> list[Sample]:
    """The pictures of all ``rgb`` folders."""
    samples: list[Sample] = []
    for part, split in parts(folder.path):
        for kind in folder.subfolders(part):
            defect = None if kind.name == "good" else kind.name
            for rgb in (child for child in folder.subfolders(kind) if child.name == "rgb"):
                for image in folder.images(rgb):
                    tried = [kind / "gt" / f"{image.stem}{suffix}" for suffix in MASK_TYPES]
                    mask = existing_mask(folder, image, tried) if defect else None
                    samples.append(Sample(image, int(defect is not None), mask, folder.category, defect, split))
    return samples
