"""The one training loop: optimiser, schedule, precision, checkpoints, log and progress; what is learnt is a ``Task``.

Reproducible by construction: the sample with global index ``i`` depends on (seed, i) alone and the learning rate on
the step alone, so that a killed run which resumes from its last checkpoint repeats the identical loss curve.
"""

from __future__ import annotations

import math
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from anomaly_ov.errors import AnomalyOVError
from anomaly_ov.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anomaly_ov.training.tracker import Tracker


@dataclass(frozen=True)
class LoopConfig:
    """Length, optimiser and bookkeeping of one run.

    ``schedule``: ``cosine`` to zero; ``cosine-restarts`` with period ``restart_steps`` (stage 1 of the paper: half an
    epoch); ``constant``. ``precision``: ``bf16`` is autocast with float32 weights. ``ema``: decay of the averaged
    weights that are exported, 0 exports the last ones. ``checkpoint_seconds``: wall time between checkpoints.
    """

    steps: int = 1000
    batch: int = 32
    learning_rate: float = 1e-3
    encoder_rate: float = 1.0
    weight_decay: float = 0.01
    warmup_steps: int = 100
    schedule: Literal["cosine", "cosine-restarts", "constant"] = "cosine"
    restart_steps: int = 0
    clip_norm: float = 1.0
    precision: Literal["f32", "bf16"] = "f32"
    ema: float = 0.0
    seed: int = 0
    workers: int = 1
    threads: int = 0
    log_every: int = 20
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError("steps and batch must be >= 1")
        if self.log_every < 1 or min(self.workers, self.threads, self.seed) < 0:
            raise ValueError("log_every must be >= 1, workers, threads and seed >= 0")
        if self.schedule == "cosine-restarts" and self.restart_steps < 1:
            raise ValueError("schedule 'cosine-restarts' needs restart_steps >= 1")
        if not 0 <= self.ema < 1:
            raise ValueError("ema must lie in [0, 1)")


class Task(Protocol):
    """What a run learns."""

    module: nn.Module
    """Everything that is saved; parameters with ``requires_grad`` are trained."""

    def samples(self) -> Dataset[Any]:
        """Map-style and endless: item ``i`` depends on (seed, i) only."""
        ...

    def collate(self, items: list[Any]) -> Any:
        """Items of one batch, stacked."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars to log; ``"loss"`` is minimised."""
        ...


class DivergedError(AnomalyOVError):
    """The loss is no longer a number."""


def learning_rate(config: LoopConfig, step: int) -> float:
    """Rate at ``step`` (0-based): linear warm-up, then the schedule."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        return config.learning_rate * warm
    if config.schedule == "cosine":
        position = step / config.steps
    else:
        position = (step % config.restart_steps) / config.restart_steps
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * position))


def run(task: Task, config: LoopConfig, out: Path, provenance: dict[str, Any]) -> nn.Module:
    """Trains ``task.module`` for ``config.steps`` steps into folder ``out``; resumes from its checkpoint if there.

    Returns the module with its final (averaged, if ``ema``) weights. Ctrl-C ends the step, saves, then passes on; a
    second one does not wait. Raises ``DivergedError`` when the loss is not finite.
    """
    _seed_everything(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = next(task.module.parameters()).device
    average = _averaged(task.module, config.ema)
    optimiser = torch.optim.AdamW(_groups(task.module, config), lr=config.learning_rate)
    checkpoint = load_checkpoint(out)
    start, window = 0, None
    if checkpoint is not None:
        checkpoint.restore(task.module, average, optimiser, provenance, out)
        start, window = checkpoint.step, checkpoint.window
    tracker = Tracker(out, total=config.steps, start=start, batch=config.batch, every=config.log_every, window=window)
    saved_at, step = time.monotonic(), start

    with tracker, _finish_the_step_first() as interrupted:
        for batch in _batches(task, config, start):
            losses = _step(task, batch, optimiser, config, step, device)
            if average is not None:
                average.update_parameters(task.module)
            tracker.log(step + 1, losses, learning_rate(config, step))
            step += 1
            due = time.monotonic() - saved_at > config.checkpoint_seconds
            if due or interrupted or step == config.steps:
                state = Checkpoint.capture(step, task.module, average, optimiser, tracker.window, provenance)
                save_checkpoint(out, state)
                saved_at = time.monotonic()
            if interrupted:
                tracker.say(f"stopped after step {step} of {config.steps}; the same command resumes from {out}")
                raise KeyboardInterrupt
    return task.module if average is None else average.module


@contextmanager
def _finish_the_step_first() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM let the running step end, so that what is saved is the state after a whole step."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:  # asked twice: the last checkpoint has to do
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _step(
    task: Task, batch: Any, optimiser: torch.optim.Optimizer, config: LoopConfig, step: int, device: torch.device
) -> dict[str, Tensor]:
    rate = learning_rate(config, step)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    with torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext():
        losses = task.losses(batch)
    loss = losses["loss"]
    if not torch.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss.item()} at step {step}", hint="lower learning_rate or use precision: f32"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if config.clip_norm > 0:
        nn.utils.clip_grad_norm_(task.module.parameters(), config.clip_norm)
    optimiser.step()
    return {name: value.detach().float() for name, value in losses.items()}


def _groups(module: nn.Module, config: LoopConfig) -> list[dict[str, Any]]:
    """Matrices decay, vectors (biases, norms) do not; parameters under ``encoder.`` learn at their own rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim > 1, name.startswith("encoder.")), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "scale": config.encoder_rate if of_encoder else 1.0,
        }
        for (decays, of_encoder), parameters in groups.items()
    ]


def _averaged(module: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel | None:
    if decay == 0:
        return None
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=average, use_buffers=True)


def _batches(task: Task, config: LoopConfig, start: int) -> Iterator[Any]:
    indices = range(start * config.batch, config.steps * config.batch)
    loader = DataLoader(
        task.samples(),
        batch_size=config.batch,
        sampler=indices,
        collate_fn=task.collate,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=_quiet_worker,
        generator=torch.Generator(),  # its own, so that opening a loader leaves the model's random state alone
        drop_last=True,
    )
    return iter(loader)


def _quiet_worker(worker: int) -> None:
    """A loader process uses one thread and leaves Ctrl-C to the main process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
