"""What the benchmarks share: pictures to work on, a small table, and the result file with its provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from anomaly_ov.files import write_atomic
from anomaly_ov.provenance import provenance

RESULTS = Path(__file__).resolve().parents[1] / "results"


def make_pictures(folder: Path, count: int, width: int, height: int, seed: int) -> list[Path]:
    """``count`` JPEGs with the mix of smooth and rough areas that a camera gives; the same for the same seed."""
    generator = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        coarse = generator.integers(0, 256, (9, 12, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noise = generator.integers(-8, 9, (height, width, 1), np.int16)
        path = folder / f"picture{index:03d}.jpg"
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def report(name: str, rows: dict[str, tuple[float | str, str]], seed: int | None, write: bool) -> None:
    """Prints ``rows`` (what -> value, remark) and writes them to ``results/<name>.json`` unless ``write`` is false."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, (value, remark) in rows.items():
        table.add_row(what, f"{value:.3f}" if isinstance(value, float) else str(value), remark)
    Console().print(table)
    if not write:
        return
    measured: dict[str, Any] = {what: {"value": value, "remark": remark} for what, (value, remark) in rows.items()}
    record = {"benchmark": name, "measured": measured, "provenance": provenance(seed)}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_atomic(path, (json.dumps(record, indent=2) + "\n").encode())
    Console(stderr=True).print(f"written to {path}")
