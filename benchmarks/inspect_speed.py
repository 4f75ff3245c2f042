"""Cost of everything around the encoder: ``python benchmarks/inspect_speed.py``.

Streams JPEG files through an inspector (read, cut, encode, expert, map, regions, record) and, in the same process and
in turns, runs the encoder alone on the same views in the same chunks. The figure is the median of the paired ratios.
Also printed: pictures per second, and the arithmetic of both networks per second as a share of what this machine
reaches in plain float32 matrix products with the same number of threads. Writes ``results/inspect-speed.json``.

(Not called ``inspect.py``: a script's folder comes first on ``sys.path``, and every script here needs Python's own.)
"""

from __future__ import annotations

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
from anomaly_ov.inspector import Inspector, load
from common import make_pictures, report

TARGET = 1.5


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


def operations(inspector: Inspector, views: list[np.ndarray]) -> int:
    """Multiplications and additions of encoder and expert on all pictures."""
    encoder, expert = inspector.encoder, inspector.expert
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        for pixels_NHW3 in views:
            expert(encoder(encoder.normalise(torch.from_numpy(pixels_NHW3))), [len(pixels_NHW3)])
    return int(counter.get_total_flops())


def bare(inspector: Inspector, chunks: list[torch.Tensor]) -> None:
    """The encoder's forward on views that are already normalised tensors."""
    with torch.inference_mode():
        for chunk in chunks:
            inspector.encoder(chunk)


def chunks_of(inspector: Inspector, views: list[np.ndarray], batch_size: int) -> list[torch.Tensor]:
    """The very passes that ``stream`` makes: whole pictures up to the budget of views."""
    groups: list[list[np.ndarray]] = []
    for pixels in views:
        room = groups and sum(map(len, groups[-1])) + len(pixels) <= inspector.views_per_forward
        if room and len(groups[-1]) < batch_size:
            groups[-1].append(pixels)
        else:
            groups.append([pixels])
    tensors = [torch.from_numpy(np.concatenate(group)) for group in groups]
    return [inspector.encoder.normalise(c) for t in tensors for c in t.split(inspector.views_per_forward)]


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    count: Annotated[int, typer.Option(help="Pictures per round.")] = 24,
    width: int = 1024,
    height: int = 768,
    batch_size: int = 8,
    rounds: int = 5,
    threads: Annotated[int | None, typer.Option(help="Default: all cores.")] = None,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    if threads:
        torch.set_num_threads(threads)
    inspector = load(model, device="cpu", dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), count, width, height, seed)
        views = [anyres(read(path).pixels_HW3, inspector.views_config).pixels_NHW3 for path in paths]
        chunks = chunks_of(inspector, views, batch_size)

        def stream() -> None:
            for _ in inspector.stream(paths, batch_size):
                pass

        bare(inspector, chunks)
        stream()
        pairs = [(seconds(stream), seconds(lambda: bare(inspector, chunks))) for _ in range(rounds)]
    whole, alone = (median(times) for times in zip(*pairs, strict=True))
    ratio, rate = median(a / b for a, b in pairs), matrix_rate()
    per_picture = sum(map(len, views)) / count
    achieved = operations(inspector, views) / whole
    report(
        "inspect-speed",
        {
            "stream / bare encoder": (ratio, f"median of {rounds} paired rounds; target <= {TARGET}"),
            "pictures per second": (count / whole, f"{width} x {height} JPEG, {per_picture:.1f} views"),
            "views per second": (per_picture * count / whole, f"{torch.get_num_threads()} thread(s)"),
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
