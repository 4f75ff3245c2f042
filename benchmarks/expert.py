"""Speed of the expert's arrangement against the plain one: ``python benchmarks/expert.py``.

Both get the same weights and the same tokens of the released shape and run in turns, one forward each, in one process
on one thread; the figure is the median of the paired ratios. Both have passed the same golden outputs
(``tests/library/models/test_expert.py``, ``tests/project/benchmarks/test_plain_expert.py``). Writes
``results/expert-speed.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from anomaly_ov.files import write_atomic
from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.features import Features
from anomaly_ov.provenance import provenance
from plain_expert import PlainExpert

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv", "aten::dot"}
COMPARED = ("map_Nhw", "local_NQD", "global_BD", "score_B")
RESULT = Path(__file__).resolve().parents[1] / "results" / "expert-speed.json"
TARGET = 1.6

Forward = Callable[[], Any]


def prepare(views: int, seed: int) -> dict[str, Forward]:
    """The two forwards, on the same seeded weights and tokens."""
    torch.manual_seed(seed)
    config = ExpertConfig()
    ours, plain = Expert(config).eval(), PlainExpert().eval()
    plain.load_state_dict(ours.state_dict())
    patches = config.grid_hw[0] * config.grid_hw[1]
    final, *levels = (torch.randn(views, patches, config.width) for _ in range(1 + config.levels))
    features = Features(final, tuple(levels), config.grid_hw)
    return {"ours": lambda: ours(features, [views]), "plain": lambda: plain(features, [views])}


def alternate(forwards: dict[str, Forward], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and processor seconds of each forward, A B A B, after two rounds of warming up."""
    wall: dict[str, list[float]] = {name: [] for name in forwards}
    processor: dict[str, list[float]] = {name: [] for name in forwards}
    for turn in range(rounds + 2):
        for name, forward in forwards.items():
            start, start_processor = time.perf_counter(), time.process_time()
            forward()
            if turn >= 2:
                wall[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - start_processor)
    return wall, processor


def paired_ratios(seconds: dict[str, list[float]]) -> list[float]:
    """How much longer plain took than ours in the same round, ascending."""
    return sorted(plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True))


def product_share(forward: Forward) -> float:
    """Share of the operators' own time that is spent in matrix products, over three forwards."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            forward()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return sum(t for name, t in times.items() if name in PRODUCTS) / sum(times.values())


def measure(views: int, rounds: int, threads: int, seed: int) -> dict[str, Any]:
    """The result as written to JSON."""
    torch.set_num_threads(threads)
    forwards = prepare(views, seed)
    with torch.inference_mode():
        outputs = {name: forward() for name, forward in forwards.items()}
        wall, processor = alternate(forwards, rounds)
        shares = {name: product_share(forward) for name, forward in forwards.items()}
    differences = {
        name: (getattr(outputs["ours"], name) - getattr(outputs["plain"], name)).abs().max().item() for name in COMPARED
    }
    ratios = paired_ratios(wall)
    return {
        "what": "seconds of one expert forward, float32, ours and plain in turns",
        "views": views,
        "rounds": rounds,
        "median_s": {name: median(values) for name, values in wall.items()},
        "best_s": {name: min(values) for name, values in wall.items()},
        "ratio": median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "processor_time_ratio": median(paired_ratios(processor)),
        "target_ratio": TARGET,
        "matrix_product_share": shares,
        "max_difference": differences,
        "provenance": provenance(seed),
    }


def show(result: dict[str, Any]) -> None:
    """The result as a table on stdout."""
    table = Table(title=f"Expert, {result['views']} views, {result['provenance']['threads']} thread(s), float32")
    for column in ("arrangement", "median s", "best s", "in matrix products"):
        table.add_column(column, justify="left" if column == "arrangement" else "right")
    for name in ("plain", "ours"):
        cells = (f"{result[key][name]:.3f}" for key in ("median_s", "best_s"))
        table.add_row(name, *cells, f"{result['matrix_product_share'][name]:.0%}")
    low, high = result["ratio_quartiles"]
    console = Console()
    console.print(table)
    console.print(f"ours is {result['ratio']:.2f} times faster (quartiles {low:.2f} to {high:.2f}; target {TARGET})")
    console.print(
        f"by processor time, which other work on the machine disturbs less: {result['processor_time_ratio']:.2f}"
    )
    console.print(f"largest difference: {max(result['max_difference'].values()):.1e}")


def main(
    views: Annotated[int, typer.Option(min=1)] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="paired measurements")] = 30,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="where the JSON goes")] = RESULT,
) -> None:
    """Measures, prints a table and writes the result as JSON."""
    result = measure(views, rounds, threads, seed)
    show(result)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
