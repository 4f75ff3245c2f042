"""Cost of everything around the networks: ``python benchmarks/inspect_speed.py``.

Streams JPEG files through an inspector (read, cut, look, map, regions, record) and, in the same process and in turns,
has the bare engine encode the same views in the same chunks. The figure is the median of the paired ratios. Also
printed: pictures per second, and the arithmetic of both networks per second as a share of what this machine reaches in
plain float32 matrix products with the same number of threads. Writes ``results/inspect-speed.json``.

(Not called ``inspect.py``: a script's folder comes first on ``sys.path``, and every script here needs Python's own.)
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from anomaly_ov.images.read import read
from anomaly_ov.images.views import anyres
from anomaly_ov.inspector import load
from anomaly_ov.models.engines.interface import THREADS_VARIABLE, Engine
from anomaly_ov.models.hub import resolve
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.streaming import cores
from common import make_pictures, report

TARGET = 1.2


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def matrix_rate(side: int = 1536, rounds: int = 5) -> float:
    """Floating-point operations per second of the best of some square float32 products."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    torch.mm(a, b)
    return 2 * side**3 / min(seconds(lambda: torch.mm(a, b)) for _ in range(rounds))


def operations(folder: Path, views: list[np.ndarray]) -> int:
    """Multiplications and additions of encoder and expert on all pictures, counted on the model in torch."""
    model = AnomalyModel.from_pretrained(folder)
    of_views: dict[int, int] = {}
    for count in {len(pixels) for pixels in views}:
        side = model.config.views.base_size
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(torch.zeros(count, side, side, 3, dtype=torch.uint8), [count])
        of_views[count] = int(counter.get_total_flops())
    return sum(of_views[len(pixels)] for pixels in views)


def chunks_of(engine: Engine, views: list[np.ndarray], batch_size: int) -> list[np.ndarray]:
    """The very passes that ``stream`` makes: whole pictures up to the budget of views."""
    groups: list[list[np.ndarray]] = []
    for pixels in views:
        room = groups and sum(map(len, groups[-1])) + len(pixels) <= engine.views_per_forward
        if room and len(groups[-1]) < batch_size:
            groups[-1].append(pixels)
        else:
            groups.append([pixels])
    return [np.concatenate(group) for group in groups]


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    count: Annotated[int, typer.Option(help="Pictures per round.")] = 24,
    width: int = 1024,
    height: int = 768,
    batch_size: int = 8,
    rounds: int = 5,
    engine: Annotated[str, typer.Option(help="auto, onnx or torch.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Default: all cores.")] = None,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    torch.set_num_threads(threads or cores())
    os.environ[THREADS_VARIABLE] = str(threads or cores())
    folder = resolve(model)
    inspector = load(str(folder), device="cpu", dtype="float32", engine=engine)
    with tempfile.TemporaryDirectory() as made:
        paths = make_pictures(Path(made), count, width, height, seed)
        views = [anyres(read(path).pixels_HW3, inspector.views_config).pixels_NHW3 for path in paths]
        chunks = chunks_of(inspector.engine, views, batch_size)

        def stream() -> None:
            for _ in inspector.stream(paths, batch_size):
                pass

        def bare() -> None:
            for chunk in chunks:
                inspector.engine.encode(chunk)

        bare()
        stream()
        pairs = [(seconds(stream), seconds(bare)) for _ in range(rounds)]
    whole, alone = (median(times) for times in zip(*pairs, strict=True))
    ratio, rate = median(a / b for a, b in pairs), matrix_rate()
    per_picture = sum(map(len, views)) / count
    achieved = operations(folder, views) / whole
    report(
        "inspect-speed",
        {
            "stream / bare encoder": (ratio, f"median of {rounds} paired rounds; target <= {TARGET}"),
            "pictures per second": (count / whole, f"{width} x {height} JPEG, {per_picture:.1f} views"),
            "views per second": (
                per_picture * count / whole,
                f"{torch.get_num_threads()} thread(s), engine {inspector.engine.name}",
            ),
            "bare encoder, views per second": (per_picture * count / alone, ""),
            "GFLOP/s of the networks in stream": (achieved / 1e9, ""),
            "GFLOP/s of matrix products": (rate / 1e9, "float32, 1536 x 1536"),
            "share of the matrix-product rate": (achieved / rate, ""),
            "model": (inspector.info.name, inspector.info.revision),
        },
        seed,
        write,
    )


if __name__ == "__main__":
    typer.run(main)
