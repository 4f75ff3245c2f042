"""Rows under the thresholds chosen for an export: the same scores and maps, judged anew as the page does it.

Maps are stored with 8 bits, so a region's border may lie a pixel off the one found when the picture was scored.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.regions import regions
from anomaly_ov.serving.exports.about import CHOSEN
from anomaly_ov.serving.reviewed import Reviewed


def stored_map(path: Path | None) -> npt.NDArray[np.float32] | None:
    """(H, W) float32 in 0..1 from a stored grey PNG; None where there is none or it cannot be read any more."""
    if path is None:
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.asarray(image.convert("L"), np.float32) / np.float32(255)
    except (OSError, Image.DecompressionBombError):
        return None


def rejudged(row: Reviewed, threshold: float | None, map_threshold: float | None) -> Reviewed:
    """The row with ``anomalous`` after ``threshold`` and regions after ``map_threshold``, where given (0..1).

    Rows without a score stay as they are. Raises ``UsageError`` where regions are wanted and the map is gone.
    """
    if row.record is None or row.record["score"] is None:
        return row
    changed: dict[str, Any] = {}
    if threshold is not None:
        changed["threshold"] = {"value": threshold, "source": CHOSEN}
        changed["anomalous"] = row.record["score"] >= threshold
    if map_threshold is not None:
        changed["regions"] = _regions(row, row.record["image"], map_threshold)
    return replace(row, record=row.record | changed)


def _regions(row: Reviewed, image: dict[str, Any], map_threshold: float) -> list[dict[str, Any]]:
    map_HW = stored_map(row.map_path)
    if map_HW is None:
        raise UsageError(
            f"the map of {row.name} is gone, so its regions cannot be found anew",
            hint="export without map_threshold, or send the picture again",
        )
    found = regions(map_HW, map_threshold, (image["width"], image["height"]))
    return [asdict(region) | {"box": list(region.box)} for region in found]
