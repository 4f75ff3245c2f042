"""What is true of a synthetic picture, in words and numbers measured from its pixels and mask; JSON-ready."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import DataError
from anomaly_ov.images.places import place_at

SIZES: tuple[tuple[float, str], ...] = ((0.002, "tiny"), (0.01, "small"), (0.05, "medium-sized"), (1.01, "large"))
SEVERITIES: tuple[tuple[float, str], ...] = ((0.45, "slight"), (0.95, "moderate"), (math.inf, "severe"))


@dataclass(frozen=True)
class DefectFact:
    """One defect as it shows. ``box`` [x0, y0, x1, y1] in pixels, x1 and y1 exclusive; ``area_fraction`` 0..1.

    ``contrast`` is the mean difference from the clean twin inside the mask, largest channel, 0..1.
    """

    kind: str
    place: str
    box: tuple[int, int, int, int]
    area_fraction: float
    contrast: float
    size: str
    severity: str


@dataclass(frozen=True)
class Facts:
    """``surface`` names the material (or "photo"), ``object`` the thing on it if there is one; no defects = normal."""

    seed: int
    surface: str
    object: str | None
    colours: tuple[str, ...]
    defects: tuple[DefectFact, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values (tuples become lists)."""
        values = asdict(self)
        values["colours"] = list(self.colours)
        values["defects"] = [{**asdict(defect), "box": list(defect.box)} for defect in self.defects]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Facts:
        """The inverse of ``to_json``. Raises ``DataError`` on missing or unknown fields."""
        try:
            defects = tuple(DefectFact(**{**d, "box": tuple(d["box"])}) for d in values["defects"])
            return cls(**{**values, "colours": tuple(values["colours"]), "defects": defects})
        except (KeyError, TypeError) as error:
            raise DataError(f"facts record does not fit: {error}", hint="was it written by Facts.to_json?") from None


def describe(kind: str, mask_HW: npt.NDArray[np.bool_], difference_HW: npt.NDArray[np.float32]) -> DefectFact:
    """Measures one defect: place, box, area, contrast, and the words for size and severity."""
    height, width = mask_HW.shape
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    area = float(np.count_nonzero(mask_HW)) / mask_HW.size
    contrast = float(difference_HW[mask_HW].mean(dtype=np.float64))
    counts_y, counts_x = mask_HW.sum(axis=1), mask_HW.sum(axis=0)
    centre_y = float((counts_y * (np.arange(height) + 0.5)).sum() / counts_y.sum()) / height
    centre_x = float((counts_x * (np.arange(width) + 0.5)).sum() / counts_x.sum()) / width
    return DefectFact(
        kind=kind,
        place=place_at(centre_y, centre_x),
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        area_fraction=round(area, 6),
        contrast=round(contrast, 4),
        size=next(word for limit, word in SIZES if area < limit),
        severity=severity(contrast, area),
    )


def severity(contrast: float, area: float) -> str:
    """ "slight", "moderate" or "severe": contrast (0.35 counts 1) plus the root of the area (a fifth counts 0.65)."""
    weight = contrast / 0.35 + 0.65 * math.sqrt(area / 0.2)
    return next(word for limit, word in SEVERITIES if weight < limit)
