"""A contact sheet of the generator: one row per kind with the masks outlined, then rows of normal pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from anomaly_ov_lab.data.synthetic.camera import Pixels
from anomaly_ov_lab.data.synthetic.defects import KINDS
from anomaly_ov_lab.data.synthetic.generator import Mask, generate, normal

OUTLINE = (255, 0, 200)


def contact_sheet(
    seed: int = 0, columns: int = 8, size: int = 192, kinds: tuple[str, ...] = KINDS, normal_rows: int = 3
) -> Image.Image:
    """A picture of ``(len(kinds) + normal_rows) x columns`` samples of ``size`` pixels, in the order of ``kinds``."""
    rows = []
    for r, kind in enumerate(kinds):
        samples = [generate(seed + r * columns + c, size, kind=kind) for c in range(columns)]
        rows.append([_outlined(sample.image_HW3, sample.mask_HW) for sample in samples])
    start = seed + len(kinds) * columns
    rows += [[normal(start + r * columns + c, size).image_HW3 for c in range(columns)] for r in range(normal_rows)]
    cells = [np.concatenate([np.pad(cell, ((1, 1), (1, 1), (0, 0))) for cell in row], axis=1) for row in rows]
    return Image.fromarray(np.concatenate(cells, axis=0))


def _outlined(image_HW3: Pixels, mask_HW: Mask) -> Pixels:
    near = ndimage.binary_dilation(mask_HW, iterations=3)
    picture = image_HW3.copy()
    picture[ndimage.binary_dilation(near) & ~near] = OUTLINE
    return picture
