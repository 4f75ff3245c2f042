"""Rows under a threshold chosen for an export: the same scores and maps, judged anew as the page does it.

Maps are stored with 8 bits, so a region's border may lie a pixel off the one found when the picture was scored; the
label goes by the score itself, and there are regions exactly where it is anomalous.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.records import Region, level_beside
from anomaly_ov.scoring.regions import regions
from anomaly_ov_server.exports.about import CHOSEN
from anomaly_ov_server.reviewed import Reviewed

Map = npt.NDArray[np.float32]


def stored_map(path: Path | None) -> Map | None:
    """(H, W) float32 in 0..1 from a stored grey PNG; None where there is none or it cannot be read any more."""
    if path is None:
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.asarray(image.convert("L"), np.float32) / np.float32(255)
    except (OSError, Image.DecompressionBombError):
        return None


def rejudged(row: Reviewed, threshold: float | None) -> Reviewed:
    """The row with label, level and regions after ``threshold`` (0..1), where one is given.

    Rows without a score stay as they are. Raises ``UsageError`` where the map is gone.
    """
    if threshold is None or row.record is None or row.record["score"] is None:
        return row
    map_HW = stored_map(row.map_path)
    if map_HW is None:
        raise UsageError(
            f"the map of {row.name} is gone, so its regions cannot be found anew",
            hint="export without a threshold, or send the picture again",
        )
    record = labelled(row.record, threshold)
    found = regions_of(record, map_HW, (record["image"]["width"], record["image"]["height"]))
    listed = [asdict(region) | {"box": list(region.box)} for region in found]
    return replace(row, record=record | {"regions": listed})


def labelled(record: dict[str, Any], threshold: float) -> dict[str, Any]:
    """The record of a picture with a score, with label and level after ``threshold``; its regions are not touched."""
    return record | {
        "threshold": {"value": threshold, "source": CHOSEN},
        "anomalous": record["score"] >= threshold,
        "level": level_beside(record["score"], threshold),
    }


def regions_of(record: dict[str, Any], map_HW: Map, image_wh: tuple[int, int]) -> tuple[Region, ...]:
    """The regions of the stored map that go with the record's label.

    What is anomalous by less than a step of 8 bits has its highest place for a region, what is not has none.
    """
    if not record["anomalous"]:
        return ()
    return regions(map_HW, min(record["threshold"]["value"], float(map_HW.max())), image_wh)
