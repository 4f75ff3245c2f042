"""Folders as ``eval detect --out`` leaves them, made without a model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from anomaly_ov.records import ModelInfo
from anomaly_ov_lab.evaluation.run_folder import LABELS_NAME, ROW_SCHEMA, PictureLabel, Row

Pictures = dict[str, tuple[str, int | None, float | None]]
"""By id: category, label and score."""


def write_run(
    folder: Path,
    pictures: Pictures,
    name: str = "model",
    dataset: str = "set",
    threshold: float | None = 0.5,
    bytes_of: dict[str, str] | None = None,
    **metrics: Any,
) -> Path:
    """A finished run over ``pictures``; ``bytes_of``: digests that are not those of the id."""
    folder.mkdir(parents=True, exist_ok=True)
    model = ModelInfo(name, "1", "cpu", "float32")
    rows = [
        Row(id_, (bytes_of or {}).get(id_, f"sha of {id_}"), model, score=score, score_raw=score, threshold=threshold)
        for id_, (_, _, score) in pictures.items()
    ]
    rows = [replace(row, error="UnreadableImage: broken") if row.score is None else row for row in rows]
    write_lines(folder / "per_image.jsonl", [{"schema": ROW_SCHEMA} | asdict(row) for row in rows])
    labels = [asdict(PictureLabel(id_, label, category)) for id_, (category, label, _) in pictures.items()]
    write_lines(folder / LABELS_NAME, labels)
    values = {
        "schema": "anomaly-ov.detection/1",
        "dataset": dataset,
        "model": asdict(model),
        "threshold_source": f"fitted for {name}",
        "context": None,
        "main": {"pixels": None},
    }
    (folder / "metrics.json").write_text(json.dumps(values | metrics))
    return folder


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
