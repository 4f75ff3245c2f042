"""Cost of a folder's context: ``python benchmarks/context_speed.py``.

Inspects folders of alike pictures twice, without and with their own context, block by block in turns, so that whatever
else the machine does burdens both. ``context`` is what comes on top: making the context (candidates encoded and
chosen) and comparing every picture with it. Memory is the process's peak over the whole run, beyond what it held once
the model was loaded. Writes ``results/context_speed.json``.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
import typer
from PIL import Image

from anomaly_ov.inspector import Inspector, load
from anomaly_ov.records import Finding
from common import report

Result = TypeVar("Result")
SIDE, BLOCK, GREY_LEVELS = 300, 100, 24
MOST_SHARE, MOST_GROWTH, MOST_BYTES = 0.5, 4.4, 2e9
STATM = Path("/proc/self/statm")


@dataclass
class Cost:
    """Seconds by the clock and of processor time, added up."""

    wall: float = 0.0
    processor: float = 0.0

    def of(self, work: Callable[[], Result]) -> Result:
        """Does ``work`` and adds what it took."""
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        return result

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.processor - other.processor)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.processor + other.processor)


def alike_pictures(folder: Path, count: int, seed: int) -> list[Path]:
    """``count`` JPEGs of one scene, each shifted a little and with noise of its own; the same for the same seed."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (9, 9, 3), np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((SIDE + 16, SIDE + 16), Image.Resampling.BICUBIC), np.int16)
    paths = []
    for index in range(count):
        top, left = generator.integers(0, 16, 2)
        noise = generator.integers(-GREY_LEVELS, GREY_LEVELS + 1, (SIDE, SIDE, 1), np.int16)
        shown = (scene[top : top + SIDE, left : left + SIDE] + noise).clip(0, 255).astype(np.uint8)
        path = folder / f"picture{index:05d}.jpg"
        Image.fromarray(shown).save(path, quality=90)
        paths.append(path)
    return paths


def resident_bytes() -> int:
    """Memory that the process holds now; where the system does not say, the most that it ever held."""
    if not STATM.is_file():
        return peak_bytes()
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """Most memory that the process ever held (Linux counts in KiB, macOS in bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def exhaust(findings: Iterable[Finding], stages_ms: Counter[str] | None = None) -> None:
    """Makes all findings and keeps none; adds up what their stages say they took."""
    for finding in findings:
        if finding.error is not None:
            raise RuntimeError(finding.error.message)
        if stages_ms is not None:
            stages_ms.update(finding.timing_ms)


def costs(inspector: Inspector, paths: list[Path], batch_size: int) -> tuple[Cost, Cost, Cost, str]:
    """(without context, making it, with it) for one folder, and ms per picture of the last's stages."""
    without, making, using = Cost(), Cost(), Cost()
    stages_ms: Counter[str] = Counter()
    context = making.of(lambda: inspector.folder_context(paths, batch_size))
    blocks = iter(paths)
    while block := list(islice(blocks, BLOCK)):
        without.of(lambda block=block: exhaust(inspector.stream(block, batch_size)))
        using.of(lambda block=block: exhaust(inspector.stream(block, batch_size, context), stages_ms))
    return without, making, using, ", ".join(f"{name} {ms / len(paths):.1f}" for name, ms in stages_ms.items())


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    pictures: Annotated[int, typer.Option(min=16, help="Of the larger folder; the smaller has a quarter.")] = 2000,
    batch_size: int = 8,
    threads: Annotated[int | None, typer.Option(help="Default: all cores.")] = None,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        paths = alike_pictures(Path(folder), pictures, seed)
        inspector = load(model, device="cpu")
        loaded = resident_bytes()
        exhaust(inspector.stream(paths[:batch_size], batch_size))
        few, many = pictures // 4, pictures
        added: dict[int, Cost] = {}
        rows: dict[str, tuple[float | str, str]] = {}
        for count in (few, many):
            without, making, using, stages = costs(inspector, paths[:count], batch_size)
            added[count] = making + using - without
            share, processor = (getattr(added[count], by) / getattr(without, by) for by in ("wall", "processor"))
            target = f"; target <= {MOST_SHARE}" if count == many else ""
            rows[f"context / forward pass, {count} pictures"] = (
                share,
                f"by processor time {processor:.3f}{target}",
            )
            rows[f"without context, {count} pictures, s"] = (without.wall, f"{SIDE} x {SIDE} JPEG")
            rows[f"making the context, {count} pictures, s"] = (making.wall, "encoding of the candidates included")
            rows[f"with context, {count} pictures, s"] = (using.wall, f"ms per picture: {stages}")
    growth = added[many].wall / added[few].wall
    by_processor = added[many].processor / added[few].processor
    remark = f"by processor time {by_processor:.2f}; target <= {MOST_GROWTH}"
    rows[f"context's time, {many} / {few} pictures"] = (growth, remark)
    beyond = peak_bytes() - loaded
    rows["peak memory beyond the model, MiB"] = (beyond / 2**20, f"target <= {MOST_BYTES / 2**20:.0f}")
    rows["threads"] = (str(torch.get_num_threads()), "")
    rows["model"] = (inspector.info.name, inspector.info.revision)
    report("context_speed", rows, seed, write)


if __name__ == "__main__":
    typer.run(main)
