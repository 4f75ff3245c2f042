"""Hand-made findings to put into words."""

from __future__ import annotations

from typing import Any

from anomaly_ov.records import ContextInfo, ErrorInfo, Finding, ImageInfo, ModelInfo, Region, Threshold

MODEL = ModelInfo("small", "r1", "cpu", "float32")
LIMIT = Threshold(0.5, "model default")


def region(box: tuple[int, int, int, int], score: float, area: int) -> Region:
    return Region(box, area, score, score / 2, {"size": [480, 640], "counts": [640 * 480]})


def finding(score: float, *regions: Region, **more: Any) -> Finding:
    """Of an image of 640 x 480 pixels with the threshold 0.5."""
    values: dict[str, Any] = {
        "score": score,
        "score_expert": score,
        "threshold": LIMIT,
        "anomalous": score >= LIMIT.value,
        "regions": regions,
    }
    return Finding("part.png", ImageInfo("part.png", 640, 480), MODEL, **values | more)


SCRATCH = region((20, 10, 60, 41), 0.8123, 1000)
DENT = region((300, 430, 340, 450), 0.64, 640)
SPECK = region((600, 220, 604, 223), 0.55, 9)

NORMAL = finding(0.3121)
ONE = finding(0.8123, SCRATCH)
THREE = finding(0.8123, SCRATCH, DENT, SPECK)
GOOD = ContextInfo("references", "parts/good", 24, 0, 3.21)
BESIDE = finding(0.8123, SCRATCH, score_expert=0.61, score_context=0.8123, context=GOOD)
FOLDER = finding(0.3121, score_context=0.3121, context=ContextInfo("folder", "parts", 12, 0, 0.94))
UNLIKE = finding(0.3121, context=ContextInfo(note="the pictures differ too much"))
BROKEN = Finding(
    "part.png",
    ImageInfo("part.png"),
    MODEL,
    error=ErrorInfo("UnreadableImage", "cannot read part.png: it is cut off", "save it again"),
)
