"""COCO: every picture an image, every region an annotation with box, area, run-length mask, score and category.

Categories are what the picture counts as: a region of a picture that a person called normal is of category ``normal``.
So the file reads as a labelled set (a picture with an
``anomalous`` annotation is anomalous), and filtered by ``score`` as detections. Masks are uncompressed run lengths
(``iscrowd`` 0: each is one area). What COCO has no field for stands with each image: score, threshold, state, decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from anomaly_ov_server.exports.about import About, result_of, state_of
from anomaly_ov_server.reviewed import Reviewed

NORMAL, ANOMALOUS = 1, 2
CATEGORIES = (
    {"id": NORMAL, "name": "normal", "supercategory": "region"},
    {"id": ANOMALOUS, "name": "anomalous", "supercategory": "region"},
)


def coco(rows: Iterable[Reviewed], about: About) -> Iterator[bytes]:
    """One JSON object. ``rows`` is gone through twice, so it must be a list or the like."""
    yield b'{"info": ' + _json(_info(about)) + b',\n"licenses": [],\n"categories": ' + _json(CATEGORIES)
    yield b',\n"images": ['
    yield from _joined(_image(row) for row in rows)
    yield b'],\n"annotations": ['
    yield from _joined(_annotations(rows))
    yield b"]}\n"


def _info(about: About) -> dict[str, Any]:
    return {
        "description": about.name,
        "version": "1.0",
        "year": int(about.exported_at[:4]),
        "date_created": about.exported_at,
        "contributor": "Anomaly-OV",
        "batch": about.batch_id,
        "model": asdict(about.model),
        "threshold": asdict(about.threshold),
        "map_threshold": asdict(about.threshold),
        "context": about.context,
        "note": "scores and regions come from a model and may be wrong",
    }


def _image(row: Reviewed) -> dict[str, Any]:
    record = row.record or {}
    image = record.get("image") or {}
    return {
        "id": row.position + 1,
        "file_name": row.name,
        "width": image.get("width"),
        "height": image.get("height"),
        "sha256": row.sha256,
        "state": state_of(row),
        "score": record.get("score"),
        "anomalous": record.get("anomalous"),
        "threshold": record.get("threshold"),
        "decision": None if row.decision is None else asdict(row.decision),
    }


def _annotations(rows: Iterable[Reviewed]) -> Iterator[dict[str, Any]]:
    number = 0
    for row in rows:
        category = ANOMALOUS if _counts_as_anomalous(row) else NORMAL
        for region in (row.record or {}).get("regions") or ():
            number += 1
            x0, y0, x1, y1 = region["box"]
            yield {
                "id": number,
                "image_id": row.position + 1,
                "category_id": category,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": region["area"],
                "segmentation": region["rle"],
                "iscrowd": 0,
                "score": region["score"],
                "decision": None if row.decision is None else row.decision.verdict,
            }


def _counts_as_anomalous(row: Reviewed) -> bool:
    """Where a person is unsure, the threshold decides."""
    result = result_of(row)
    return bool((row.record or {}).get("anomalous")) if result == "unsure" else result == "anomalous"


def _joined(values: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    separator = b"\n"
    for value in values:
        yield separator + _json(value)
        separator = b",\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
