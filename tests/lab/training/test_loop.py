"""The loop repeats itself: a run that stops and resumes gives the same curve and the same weights."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint
from anomaly_ov_lab.training.checkpoint import CHECKPOINT, load_checkpoint
from anomaly_ov_lab.training.loop import DivergedError, LoopConfig, learning_rate, run
from anomaly_ov_lab.training.tracker import METRICS

RUN: dict[str, Any] = {"recipe": {"name": "test"}, "data": {}}


class Points(Dataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(3, generator=torch.Generator().manual_seed(index))


class Regression:
    """Learns the sum of three numbers, with dropout so that the random state matters; may stop itself at a step."""

    def __init__(self, interrupt_at: int | None = None, scale: float = 1.0) -> None:
        torch.manual_seed(5)
        self.module: nn.Module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.samples, self.collate = Points(), torch.stack
        self._interrupt_at, self._scale, self._steps = interrupt_at, scale, 0

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        self._steps += 1
        if self._steps == self._interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        error = self.module(batch)[:, 0] - batch.sum(1)
        return {"loss": error.square().mean() * self._scale}


def config(**changes: Any) -> LoopConfig:
    values: dict[str, Any] = {"steps": 23, "batch": 4, "workers": 0, "log_every": 5, "ema": 0.9, "warmup_steps": 3}
    return LoopConfig(**(values | changes))


def weights(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


@pytest.mark.parametrize("stop", [1, 7, 22])
def test_an_interrupted_run_resumes_to_the_identical_curve(tmp_path: Path, stop: int) -> None:
    whole = weights(run(Regression(), config(), tmp_path / "whole", RUN))
    with pytest.raises(KeyboardInterrupt):
        run(Regression(interrupt_at=stop), config(), tmp_path / "parts", RUN)
    checkpoint = load_checkpoint(tmp_path / "parts")
    assert checkpoint is not None
    assert checkpoint.step == stop
    resumed = weights(run(Regression(), config(), tmp_path / "parts", RUN))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert (tmp_path / "whole" / METRICS).read_text() == (tmp_path / "parts" / METRICS).read_text()


def test_a_kill_between_checkpoints_repeats_the_lost_steps(tmp_path: Path) -> None:
    whole = weights(run(Regression(), config(), tmp_path / "whole", RUN))
    with pytest.raises(KeyboardInterrupt):
        run(Regression(interrupt_at=8), config(), tmp_path / "parts", RUN)
    # What a killed process had logged after its last checkpoint, its last line cut short.
    with (tmp_path / "parts" / METRICS).open("a") as file:
        file.write(json.dumps({"step": 10, "lr": 0, "loss": -1}) + "\n" + '{"step": 15, "lo')
    resumed = weights(run(Regression(), config(), tmp_path / "parts", RUN))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert (tmp_path / "whole" / METRICS).read_text() == (tmp_path / "parts" / METRICS).read_text()


class Impatient(Regression):
    """Asked twice to stop while its third step is under way."""

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        if self._steps == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return super().losses(batch)


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)  # a job in the background is started without one
    with pytest.raises(KeyboardInterrupt):
        run(Impatient(), config(checkpoint_seconds=0.0), tmp_path, RUN)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    alone = weights(run(Regression(), config(), tmp_path / "alone", RUN))
    helped = weights(run(Regression(), config(workers=2), tmp_path / "helped", RUN))
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_the_loss_falls(tmp_path: Path) -> None:
    run(Regression(), config(steps=300, batch=16, learning_rate=1e-2, log_every=50), tmp_path, RUN)
    rows = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [50, 100, 150, 200, 250, 300]
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    run(Regression(), config(steps=2), tmp_path, RUN)
    with pytest.raises(CheckpointMismatch, match="another recipe"):
        run(Regression(), config(steps=2), tmp_path, RUN | {"recipe": {"name": "other"}})


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(Regression(), config(steps=2), tmp_path, RUN)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnsafeCheckpoint, match="checkpoint"):
        run(Regression(), config(steps=2), tmp_path, RUN)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="at step 0"):
        run(Regression(scale=float("nan")), config(), tmp_path, RUN)


def test_schedules() -> None:
    cosine = config(steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(cosine, 0) == pytest.approx(0.1)
    assert learning_rate(cosine, 50) == pytest.approx(0.5)
    assert learning_rate(cosine, 99) < 0.001
    restarts = config(steps=100, warmup_steps=1, learning_rate=1.0, schedule="cosine-restarts", restart_steps=25)
    assert learning_rate(restarts, 24) < 0.01
    assert learning_rate(restarts, 25) == 1.0
    assert learning_rate(config(schedule="constant", learning_rate=1.0), 20) == 1.0


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="restart_steps"):
        config(schedule="cosine-restarts")
    with pytest.raises(ValueError, match="ema"):
        config(ema=1.0)
    for name, value in (("log_every", 0), ("workers", -1), ("seed", -1)):
        with pytest.raises(ValueError, match=name):
            config(**{name: value})


def test_a_rate_of_zero_for_the_encoder_leaves_it_alone(tmp_path: Path) -> None:
    task = Regression()
    task.module = nn.Sequential()
    task.module.add_module("encoder", nn.Linear(3, 4))
    task.module.add_module("head", nn.Linear(4, 1))
    before = weights(task.module)
    after = weights(run(task, config(steps=2, ema=0.0, encoder_rate=0.0, log_every=1), tmp_path, RUN))
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, False]
