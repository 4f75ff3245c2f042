"""What ``eval detect`` costs beside the model: ``python benchmarks/eval_overhead.py FOLDER``.

Measures a labelled set with ``evaluate_detection`` as the command line does (reading, views, networks, maps, regions,
rows, figures with intervals), and in the very same run adds up the time inside the engine, which starts from views in
8 bits: encoder, of mirror images too, and expert. The figure is everything else as a share of that. Processor seconds
of one thread, which other work on the machine changes little; wall seconds beside them. Loading the model is
left out. Writes ``results/eval-overhead.json``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ANOMALY_OV_THREADS", "1")

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from anomaly_ov.inspector import Inspector
from anomaly_ov.models.engines.opening import open_engine
from anomaly_ov.models.hub import resolve
from anomaly_ov.records import Finding, ModelInfo
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.data.samples import DataSet
from anomaly_ov_lab.evaluation.detect import evaluate_detection
from common import report

TARGET = 0.10


class Clock:
    """Wall and processor seconds, added up over what it is wrapped around."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self._since = (0.0, 0.0)

    def start(self) -> None:
        self._since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall += time.perf_counter() - self._since[0]
        self.cpu += time.process_time() - self._since[1]


def on_clock(clock: Clock, work: Callable[..., Any]) -> Callable[..., Any]:
    """``work``, timed."""

    def timed(*arguments: Any) -> Any:
        clock.start()
        try:
            return work(*arguments)
        finally:
            clock.stop()

    return timed


class Timed:
    """A detector whose whole stream is timed; satisfies ``records.Detector``."""

    def __init__(self, inspector: Inspector, clock: Clock) -> None:
        self._inspector, self._clock = inspector, clock

    @property
    def info(self) -> ModelInfo:
        return self._inspector.info

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        findings = self._inspector.stream(sources, batch_size)
        while True:
            self._clock.start()
            finding = next(findings, None)
            self._clock.stop()
            if finding is None:
                return
            yield finding


def spread(dataset: DataSet, count: int) -> DataSet:
    """``count`` labelled pictures of each label's own share, evenly over the set."""
    samples = sorted(dataset.labelled(), key=lambda sample: sample.label or 0)
    step = max(1.0, len(samples) / count)
    return dataset.keep(samples[int(index * step)] for index in range(min(count, len(samples))))


def main(
    folder: Annotated[Path, typer.Argument(help="A labelled set.")],
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    count: Annotated[int, typer.Option(help="Pictures measured, evenly over the set.")] = 200,
    wanted: Annotated[str, typer.Option("--engine", help="auto, onnx or torch.")] = "auto",
    batch_size: int = 8,
    rounds: int = 3,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    dataset = spread(discover(folder), count)
    networks = [Clock(), Clock()]
    engine = open_engine(resolve(model), engine=wanted, device="cpu", dtype="float32")
    engine.encode = on_clock(networks[0], engine.encode)  # type: ignore[method-assign]
    engine.expert = on_clock(networks[1], engine.expert)  # type: ignore[method-assign]
    inspector = Inspector(engine)
    evaluate_detection(inspector, spread(dataset, 2 * batch_size), None, batch_size)
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        for clock in networks:
            clock.wall = clock.cpu = 0.0
        whole, stream = Clock(), Clock()
        with tempfile.TemporaryDirectory() as out:
            whole.start()
            evaluate_detection(Timed(inspector, stream), dataset, Path(out), batch_size)
            whole.stop()
        own = {kind: sum(getattr(clock, kind) for clock in networks) for kind in ("wall", "cpu")}
        found.append(
            {
                "overhead": whole.cpu / own["cpu"] - 1,
                "overhead_wall": whole.wall / own["wall"] - 1,
                "inspecting": (stream.cpu - own["cpu"]) / own["cpu"],
                "evaluating": (whole.cpu - stream.cpu) / own["cpu"],
                "rate": len(dataset) / whole.wall,
                "forward_ms": 1000 * own["cpu"] / len(dataset),
            }
        )

    def of(name: str) -> float:
        return median(one[name] for one in found)

    report(
        "eval-overhead",
        {
            "beside the forward passes / forward passes": (
                of("overhead"),
                f"processor seconds, median of {rounds} rounds; target <= {TARGET}; wall {of('overhead_wall'):.3f}",
            ),
            "of it inspecting": (of("inspecting"), "reading, views, maps, regions, findings"),
            "of it evaluating": (of("evaluating"), "digests, rows, figures with intervals"),
            "forward passes, ms per picture": (
                of("forward_ms"),
                f"encoder and expert, engine {engine.name}, one thread",
            ),
            "pictures per second": (of("rate"), f"wall, {len(dataset)} pictures of {dataset.name}"),
            "model": (inspector.info.name, inspector.info.revision),
        },
        None,
        write,
    )


if __name__ == "__main__":
    typer.run(main)
