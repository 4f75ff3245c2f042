"""Cost of a first answer: ``python benchmarks/cold_start.py``.

Fresh processes in turns: ``anomaly-ov inspect one.png --json``; a bare script that opens the model's graphs in ONNX
Runtime and makes one forward pass on as many views; and ``import onnxruntime`` alone. The figures are medians over the
rounds of the paired ratios. Writes ``results/cold-start.json``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from anomaly_ov.images.views import anyres
from anomaly_ov.models.folder import read_config
from anomaly_ov.models.hub import ENCODER_GRAPH, EXPERT_GRAPH, resolve
from common import report

TARGET = 1.3
SIDE = 512
BARE = """
import sys
import numpy as np
import onnxruntime
encoder, expert = (onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in sys.argv[1:3])
views, side = int(sys.argv[3]), int(sys.argv[4])
pixels = np.zeros((views, side, side, 3), np.uint8)
features = encoder.run(None, {encoder.get_inputs()[0].name: pixels})
expert.run(None, {one.name: values for one, values in zip(expert.get_inputs(), features)})
"""


def seconds(command: list[str]) -> float:
    """Wall time of one process; its failure is ours."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def bare_arguments(folder: Path) -> list[str]:
    """Of ``BARE``: the graphs, how many views the picture has with this model, and their side."""
    views = read_config(folder).views
    count = len(anyres(np.zeros((SIDE, SIDE, 3), np.uint8), views))
    return [*(str(folder / name) for name in (ENCODER_GRAPH, EXPERT_GRAPH)), str(count), str(views.base_size)]


def main(
    model: Annotated[str, typer.Option(help="Name or folder.")] = "tiny",
    rounds: int = 9,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "one.png"
        Image.linear_gradient("L").resize((SIDE, SIDE)).save(picture)
        cli = [sys.executable, "-m", "anomaly_ov.cli.main", "inspect", str(picture), "--json", "--model", model]
        commands = {
            "inspect": cli,
            "bare": [sys.executable, "-c", BARE, *bare_arguments(resolve(model))],
            "runtime": [sys.executable, "-c", "import onnxruntime"],
        }
        for command in commands.values():
            seconds(command)
        times = {name: [0.0] * rounds for name in commands}
        for turn in range(rounds):
            for name, command in commands.items():
                times[name][turn] = seconds(command)
    to_bare = median(a / b for a, b in zip(times["inspect"], times["bare"], strict=True))
    to_runtime = median(a / b for a, b in zip(times["inspect"], times["runtime"], strict=True))
    report(
        "cold-start",
        {
            "inspect / bare script": (to_bare, f"median of {rounds} paired rounds; target <= {TARGET}"),
            "inspect / import onnxruntime": (to_runtime, ""),
            "inspect one.png, s": (median(times["inspect"]), f"fastest {min(times['inspect']):.2f}"),
            "bare script, s": (median(times["bare"]), f"fastest {min(times['bare']):.2f}"),
            "import onnxruntime, s": (median(times["runtime"]), f"fastest {min(times['runtime']):.2f}"),
            "model": (model, ""),
        },
        None,
        write,
    )


if __name__ == "__main__":
    typer.run(main)
