"""One of the processes that ``training/test_stage2_parallel.py`` starts by ``torchrun``: trains in several ways.

argv: the recipe, data and model, then the folder of the runs.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from anomaly_ov.cli.main import leave
from anomaly_ov_lab.training import stage2_run
from anomaly_ov_lab.training.parallel import Parallel
from anomaly_ov_lab.training.recipe import Stage2Recipe, read_recipe
from anomaly_ov_lab.training.stage2 import Stage2


class Watched(Stage2):
    """Checks before each pass that the parameters are shards; may stop itself, in the second process only."""

    interrupt_at: int | None = None

    def weigh(self, batch: Any) -> float:
        for name, parameter in self.module.named_parameters():
            assert isinstance(parameter, DTensor), name
            assert parameter.to_local().numel() < parameter.numel(), name
        self.passes = getattr(self, "passes", 0) + 1
        if self.passes == self.interrupt_at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)
        return super().weigh(batch)


def train(parallel: Parallel, name: str, interrupt_at: int | None = None, **stage2: Any) -> None:
    recipe, data, model, out = (Path(argument) for argument in sys.argv[1:5])
    plan = read_recipe(Stage2Recipe, recipe, {"loop.parallel": parallel})
    plan = replace(plan, stage2=replace(plan.stage2, **stage2))
    Watched.interrupt_at = interrupt_at
    stage2_run.Stage2 = Watched if parallel == "fsdp" else Stage2  # type: ignore[misc]
    try:
        stage2_run.train_stage2(plan, data, model, out / name)
    except KeyboardInterrupt:
        assert interrupt_at is not None


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=240))
    train("ddp", "ddp")
    train("fsdp", "saving", gradient_checkpointing=True)
    for how in ("lora", "projector"):
        train("fsdp", how, train=how, lora_rank=2)
    for name in ("again", "alone"):
        train("fsdp", name, interrupt_at=3)  # in its second step
    train("fsdp", "again")
    torch.distributed.destroy_process_group()
    leave(0)
