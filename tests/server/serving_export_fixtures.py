"""A batch as the store hands it out, with real maps and pictures and one picture of every state."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_ov.records import ErrorInfo, Finding, ImageInfo, MapInfo, ModelInfo, Threshold, level_beside
from anomaly_ov.scoring.regions import regions
from anomaly_ov_server.exports.about import About
from anomaly_ov_server.reviewed import Decision, Reviewed

MODEL = ModelInfo("tiny", "abc123", "cpu", "float32")
THRESHOLD = Threshold(0.5, "fitted on a set of ours")
WH = (160, 120)
AT = "2026-11-22T07:30:00+00:00"


def about(**changes: Any) -> About:
    values: dict[str, Any] = {
        "batch_id": "b_1",
        "name": "Line 3",
        "created": AT,
        "model": MODEL,
        "threshold": THRESHOLD,
        "context": {"kind": "none", "source": None, "references": None},
        "exported_at": "2026-11-22T08:01:02+00:00",
    }
    return About(**values | changes)


def scored(
    folder: Path, position: int, name: str, score: float, decision: Decision | None = None, peaks: int = 2
) -> Reviewed:
    """A picture of ``WH`` whose map, half as large, has ``peaks`` blobs, each lower than the one before; without any
    it is flat. Its highest value is the score.
    """
    map_HW = np.full((WH[1] // 2, WH[0] // 2), score if not peaks else min(0.1, score), np.float32)
    for peak in range(peaks):
        map_HW[8 + 14 * peak : 18 + 14 * peak, 10 + position : 24 + position] = score * (1 - 0.25 * peak)
        map_HW[10 + 14 * peak, 24 + position] = score / 2
    stored = np.rint(map_HW * 255).astype(np.uint8)
    map_path = folder / f"{position}.png"
    Image.fromarray(stored).save(map_path)
    picture = Image.fromarray(np.random.default_rng(position).integers(0, 255, (WH[1], WH[0], 3), np.uint8))
    picture.save(folder / f"{position}.webp", "WEBP", quality=60)
    sha256 = hashlib.sha256(name.encode(errors="replace")).hexdigest()
    finding = Finding(
        id=name,
        image=ImageInfo(f"/secret/place/{position}", *WH, sha256),
        model=MODEL,
        score_raw=score,
        score=score,
        score_map=score,
        score_expert=score,
        threshold=THRESHOLD,
        anomalous=score >= THRESHOLD.value,
        level=level_beside(score, THRESHOLD.value),
        map=MapInfo("/secret/place/map.png", (27, 27)),
        regions=regions(stored.astype(np.float32) / np.float32(255), THRESHOLD.value, WH),
    )
    webp = folder / f"{position}.webp"
    return Reviewed(
        f"i_{position}", position, name, sha256, finding.to_json(), decision, folder / name[:1], map_path, webp, webp
    )


def failed(position: int, name: str) -> Reviewed:
    error = ErrorInfo("UnreadableImage", "cannot read it: it ends in the middle", "send it again")
    record = Finding(name, ImageInfo(name, sha256="f" * 64), MODEL, error=error).to_json()
    return Reviewed(f"i_{position}", position, name, "f" * 64, record, None, Path("gone"), None, None, None)


def pending(position: int, name: str) -> Reviewed:
    return Reviewed(f"i_{position}", position, name, "e" * 64, None, None, Path("gone"), None, None, None)


def batch(folder: Path) -> list[Reviewed]:
    """Decided anomalous, normal, normal against the threshold, not at all, unsure; unreadable; pending."""
    return [
        scored(folder, 0, "scratch.png", 0.9, Decision("anomalous", "12 mm, return it", AT)),
        scored(folder, 1, "fine.png", 0.3, Decision("normal", "", AT), peaks=0),
        scored(folder, 2, "dust.png", 0.7, Decision("normal", "only dust", AT)),
        scored(folder, 3, "undecided.png", 0.2, peaks=1),
        scored(folder, 4, "glare.png", 0.6, Decision("unsure", "", AT)),
        failed(5, "broken.tif"),
        pending(6, "waiting.png"),
    ]


def record_of(row: Reviewed) -> dict[str, Any]:
    assert row.record is not None
    return row.record


def as_json(found: Any) -> list[dict[str, Any]]:
    """Regions as they stand in a record."""
    return [asdict(region) | {"box": list(region.box)} for region in found]
