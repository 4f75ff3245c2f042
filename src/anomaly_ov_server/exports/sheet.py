"""The overlay of one row: picture beside map, regions, legend and a caption that says what was found and decided."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from anomaly_ov.images.messages import printable
from anomaly_ov.images.overlay import overlay
from anomaly_ov.images.score_lines import score_lines
from anomaly_ov_server.exports.rejudged import labelled, regions_of, stored_map
from anomaly_ov_server.reviewed import Reviewed

MAX_NOTE = 300


def sheet(row: Reviewed, threshold: float | None = None) -> Image.Image | None:
    """RGB image, at most 1600 pixels on its long side; None without a score, a map or a preview.

    ``threshold``: what it is judged by, 0..1, in place of its record's own. Regions are found at the map's own size.
    """
    map_HW = stored_map(row.map_path)
    if map_HW is None or row.preview is None or row.record is None or row.record["score"] is None:
        return None
    record = row.record if threshold is None else labelled(row.record, threshold)
    try:
        with Image.open(row.preview, formats=("WEBP",)) as preview:
            pixels = preview.convert("RGB").resize(map_HW.shape[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
    except OSError:
        return None
    shown = regions_of(record, map_HW, pixels.size)
    return overlay(np.asarray(pixels), map_HW, shown, record["threshold"]["value"], _caption(row, record))


def _caption(row: Reviewed, record: dict[str, Any]) -> list[str]:
    lines = [printable(row.name), *score_lines(record)]
    if row.decision is not None:
        note = " ".join(row.decision.note.split())[:MAX_NOTE]
        lines.append(f"decided: {row.decision.verdict}{f' ({note})' if note else ''}")
    return lines
