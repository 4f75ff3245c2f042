"""Cost of a first answer: ``python benchmarks/cold_start.py``.

Fresh processes in turns: ``anomaly-ov inspect one.png --json``; a bare script that loads the same weights and makes
one forward pass on as many views; and ``import torch`` alone. The figures are medians over the rounds of the paired
ratios. Writes ``results/cold-start.json``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from PIL import Image

from common import report

TARGET = 1.3
SIDE = 512
BARE = """
import sys, torch
from anomaly_ov.models.hub import resolve
from anomaly_ov.models.model import AnomalyModel
model = AnomalyModel.from_pretrained(resolve(sys.argv[1]))
side = model.config.views.base_size
with torch.inference_mode():
    model(torch.zeros(int(sys.argv[2]), side, side, 3, dtype=torch.uint8), [int(sys.argv[2])])
"""


def seconds(command: list[str]) -> float:
    """Wall time of one process; its failure is ours."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def views_of(model: str) -> int:
    """How many views the picture has with this model."""
    import numpy as np

    from anomaly_ov.images.views import anyres
    from anomaly_ov.models.folder import read_config
    from anomaly_ov.models.hub import resolve

    return len(anyres(np.zeros((SIDE, SIDE, 3), np.uint8), read_config(resolve(model)).views))


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
            "bare": [sys.executable, "-c", BARE, model, str(views_of(model))],
            "torch": [sys.executable, "-c", "import torch"],
        }
        for command in commands.values():
            seconds(command)
        times = {name: [0.0] * rounds for name in commands}
        for turn in range(rounds):
            for name, command in commands.items():
                times[name][turn] = seconds(command)
    to_bare = median(a / b for a, b in zip(times["inspect"], times["bare"], strict=True))
    to_torch = median(a / b for a, b in zip(times["inspect"], times["torch"], strict=True))
    report(
        "cold-start",
        {
            "inspect / bare script": (to_bare, f"median of {rounds} paired rounds; target <= {TARGET}"),
            "inspect / import torch": (to_torch, ""),
            "inspect one.png, s": (median(times["inspect"]), f"fastest {min(times['inspect']):.2f}"),
            "bare script, s": (median(times["bare"]), f"fastest {min(times['bare']):.2f}"),
            "import torch, s": (median(times["torch"]), f"fastest {min(times['torch']):.2f}"),
            "model": (model, ""),
        },
        None,
        write,
    )


if __name__ == "__main__":
    typer.run(main)
