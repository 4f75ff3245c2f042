"""Peak memory of a long stream: ``python benchmarks/memory.py``.

Streams 500 pictures of 4000 x 3000 (a handful of JPEG files, over and over) and compares the process's peak resident
memory after the first 20 with that after the last. Writes ``results/memory.json``.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from anomaly_ov.inspector import load
from common import make_pictures, report

WARM_UP, TARGET = 20, 0.05


def peak_bytes() -> int:
    """Highest resident set of this process so far (Linux counts in KiB, macOS in bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    count: int = 500,
    width: int = 4000,
    height: int = 3000,
    batch_size: int = 8,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    if count <= WARM_UP:
        raise typer.BadParameter(f"count must exceed {WARM_UP}")
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(Path(folder), 4, width, height, seed)
        inspector = load(model, device="cpu")
        before, after_warm_up, started = peak_bytes(), 0, time.perf_counter()
        stream = inspector.stream((pictures[index % len(pictures)] for index in range(count)), batch_size)
        for done, finding in enumerate(stream, 1):
            if finding.error is not None:
                raise RuntimeError(finding.error.message)
            if done == WARM_UP:
                after_warm_up = peak_bytes()
        growth, elapsed = peak_bytes() / after_warm_up - 1, time.perf_counter() - started
    report(
        "memory",
        {
            "growth of the peak": (growth, f"from picture {WARM_UP} to {count}; target <= {TARGET}"),
            f"peak after {WARM_UP}, MiB": (after_warm_up / 2**20, ""),
            f"peak after {count}, MiB": (peak_bytes() / 2**20, ""),
            "before the first, MiB": (before / 2**20, "model loaded"),
            "pictures per second": (count / elapsed, f"{width} x {height} JPEG"),
            "model": (inspector.info.name, inspector.info.revision),
        },
        seed,
        write,
    )


if __name__ == "__main__":
    typer.run(main)
