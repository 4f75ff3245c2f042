"""``Sample`` and ``DataSet``: what any folder layout is read into, and how a ground-truth mask is read.

Labels are 0 normal, 1 anomalous, None unknown. A mask of None means *no mask*: of a normal sample that reads as
"nothing to find", of an anomalous one as "where is unknown", and such a sample takes no part in pixel metrics.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import DataError

Split = Literal["train", "test"]

MAX_MASK_PIXELS = 200_000_000
_LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class Sample:
    """One picture of a data set.

    ``label``: 0 normal, 1 anomalous, None unknown or uncertain. ``probability``: the annotators' own 0..1, where a set
    has one. ``category``: the kind of object, the unit that metrics are averaged over. ``defect``: name of the
    defect's kind. ``split``: None where the set knows no split.
    """

    image: Path
    label: int | None = None
    mask: Path | None = None
    category: str = ""
    defect: str | None = None
    split: Split | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Note:
    """``count`` cases of something odd or left out, the first few in ``examples``; as text, one line."""

    kind: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.kind}: {self.count}" + (f" ({', '.join(self.examples)}{more})" if self.examples else "")


@dataclass(frozen=True)
class DataSet:
    """The samples under ``root``, in natural order, with what was odd or left out."""

    name: str
    layout: str
    root: Path
    samples: tuple[Sample, ...]
    noted: tuple[Note, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """One line per thing that was odd or left out."""
        return tuple(map(str, self.noted))

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def categories(self) -> tuple[str, ...]:
        """Category names in order of first appearance."""
        return tuple(dict.fromkeys(sample.category for sample in self.samples))

    @property
    def counts(self) -> dict[str, int]:
        """How many samples are ``normal``, ``anomalous`` and ``unknown``, and how many have a mask (``masks``)."""
        labels = Counter(sample.label for sample in self.samples)
        masks = sum(sample.mask is not None for sample in self.samples)
        return {"normal": labels[0], "anomalous": labels[1], "unknown": labels[None], "masks": masks}

    def id_of(self, sample: Sample) -> str:
        """The sample's path relative to ``root``, with forward slashes: stable across machines."""
        return sample.image.relative_to(self.root).as_posix()

    def keep(self, samples: Iterable[Sample]) -> DataSet:
        """The same set with only ``samples``."""
        return replace(self, samples=tuple(samples))

    def labelled(self) -> DataSet:
        """Only the samples whose label is known."""
        return self.keep(sample for sample in self.samples if sample.label is not None)

    def of_split(self, split: Split) -> DataSet:
        """The samples of one split; samples of no split belong to both."""
        return self.keep(sample for sample in self.samples if sample.split in (split, None))

    def uncertain_as_anomalous(self) -> DataSet:
        """Relabels every sample that has a probability: anomalous if it is above 0, else normal."""
        return self.keep(
            sample if sample.probability is None else replace(sample, label=int(sample.probability > 0))
            for sample in self.samples
        )


def read_mask(path: Path, max_pixels: int = MAX_MASK_PIXELS) -> npt.NDArray[np.bool_]:
    """A ground-truth mask as (H, W) booleans, True on the defect, at the file's own resolution.

    Any non-zero value of any colour channel counts as defect (sets number their defect kinds 1, 2, ...); in a JPEG,
    whose compression smears zeros, values of 128 and up. Alpha is ignored. Raises ``DataError`` if it does not decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > max_pixels:
                    raise DataError(
                        f"mask {path} has {picture.width} x {picture.height} pixels, more than {max_pixels}",
                        hint="is this really a mask?",
                    )
                values = np.asarray(picture)
                has_alpha = picture.mode in ("LA", "PA", "RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"mask {path} does not decode: {reason}", hint="replace or remove the file") from None
    if has_alpha:
        values = values[..., :-1]
    defect = values >= 128 if path.suffix.lower() in _LOSSY_SUFFIXES else values != 0
    return np.asarray(defect.any(axis=-1) if defect.ndim == 3 else defect)
