"""What every layout's samples must pass: no picture with two labels, masks that decode and fit."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from pathlib import Path

from PIL import Image

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts.folder import Notes
from anomaly_ov_lab.data.layouts.kinds import MASK_BROKEN, MASK_EMPTY, MASK_SHAPE
from anomaly_ov_lab.data.samples import Sample, read_mask


def refuse_conflicts(samples: list[Sample], root: Path) -> None:
    """Raises ``DataError`` when a picture is listed twice with anything that differs."""
    first: dict[Path, Sample] = {}
    for sample in samples:
        known = first.setdefault(sample.image, sample)
        if known != sample:
            names = [f.name for f in fields(Sample) if getattr(known, f.name) != getattr(sample, f.name)]
            differ = ", ".join(f"{name} {getattr(known, name)} and {getattr(sample, name)}" for name in names)
            where = sample.image.relative_to(root).as_posix()
            raise DataError(f"{where} in {root} is listed twice, with {differ}", hint="keep one of the lines")


def checked_masks(samples: list[Sample], root: Path, notes: Notes) -> list[Sample]:
    """Notes masks of another shape and empty ones, but of normal pictures; one that does not decode is dropped too."""
    checked = []
    for sample in samples:
        if sample.mask is not None:
            name = sample.mask.relative_to(root).as_posix()
            try:
                mask_HW = read_mask(sample.mask)
            except DataError:
                notes.add(MASK_BROKEN, name)
                sample = replace(sample, mask=None)
            else:
                if sample.label != 0 and not mask_HW.any():
                    notes.add(MASK_EMPTY, name)
                if not same_shape(sample.image, mask_HW.shape):
                    notes.add(MASK_SHAPE, name)
        checked.append(sample)
    return checked


def same_shape(image: Path, mask_hw: tuple[int, ...]) -> bool:
    """Equal aspect within a pixel's rounding, either way up (a picture may carry an EXIF turn)."""
    size = size_of(image)
    if size is None:
        return True  # the picture's own reader will say what is wrong with it
    width, height = size
    mask_height, mask_width = mask_hw
    sizes = ((width, height), (height, width))
    return any(abs(w * mask_height - h * mask_width) <= max(w, h, mask_width, mask_height) for w, h in sizes)


def size_of(picture: Path) -> tuple[int, int] | None:
    """(width, height) from the file's header; None if it does not open."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(picture) as opened:
                return opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
