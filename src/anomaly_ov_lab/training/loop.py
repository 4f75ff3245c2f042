"""The one training loop: optimiser, schedule, precision, checkpoints, log and progress; a ``TrainingTask`` says what.

Reproducible by construction: the sample with global index ``i`` depends on (seed, i) alone and the learning rate on
the step alone, so that a killed run which resumes from its last checkpoint repeats the identical loss curve.

A step is ``batch`` x ``accumulate`` samples, however many processes share them (``parallel``). The loss of a
``Weighed`` task is the mean over everything that its passes learn from, not the mean of the passes' means, so the curve
depends neither on how a step is cut into passes nor on the number of processes.
"""

from __future__ import annotations

import math
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from anomaly_ov.errors import AnomalyOVError, ConfigError
from anomaly_ov_lab.training.checkpoint import RunCheckpoint, load_checkpoint, save_checkpoint
from anomaly_ov_lab.training.parallel import Losses, Parallel, World, held_back, spread
from anomaly_ov_lab.training.passes import Measured, Passes
from anomaly_ov_lab.training.tracker import Quiet, Tracker

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class LoopConfig:
    """Length, optimiser and bookkeeping of one run.

    ``schedule``: ``cosine`` to zero; ``cosine-restarts`` with period ``restart_steps`` (stage 1 of the paper: half an
    epoch); ``constant``. ``precision``: ``bf16`` is autocast with float32 weights (a rate of 1e-5 is lost in the
    rounding of bfloat16 ones). ``ema``: decay of the averaged weights that are exported, 0 exports the last ones.
    ``checkpoint_seconds``: wall time between checkpoints.

    ``batch``: samples of one pass; ``accumulate``: passes of one step. ``parallel``: how several processes share the
    samples of a step. ``group_by_length``: a step's samples of like length share a pass. ``warmup_ratio``: > 0 = so
    large a share of the steps warms up, instead of ``warmup_steps``, and the cosine runs over the rest, as in
    transformers' ``Trainer``.
    """

    steps: int = 1000
    batch: int = 32
    learning_rate: float = 1e-3
    encoder_rate: float = 1.0
    weight_decay: float = 0.01
    warmup_steps: int = 100
    warmup_ratio: float = 0.0
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
    accumulate: int = 1
    parallel: Parallel = "none"
    group_by_length: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.accumulate) < 1:
            raise ValueError("steps, batch and accumulate must be >= 1")
        if self.log_every < 1 or min(self.workers, self.threads, self.seed) < 0:
            raise ValueError("log_every must be >= 1, workers, threads and seed >= 0")
        if self.schedule == "cosine-restarts" and self.restart_steps < 1:
            raise ValueError("schedule 'cosine-restarts' needs restart_steps >= 1")
        if not 0 <= self.ema < 1:
            raise ValueError("ema must lie in [0, 1)")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError("warmup_ratio must lie in [0, 1)")
        if self.ema and self.parallel == "fsdp":
            raise ValueError("ema needs parallel: none or ddp, since it keeps a whole copy of the weights")

    @property
    def samples_per_step(self) -> int:
        """Over all passes and processes."""
        return self.batch * self.accumulate


class TrainingTask(Protocol[M]):
    """What a run learns.

    ``module``: everything that is saved; parameters with ``requires_grad`` are trained. ``samples``: map-style and
    endless, item ``i`` depends on (seed, i) only.
    """

    module: M
    samples: Dataset[Any]

    def collate(self, items: list[Any], /) -> Any:
        """Items of one batch, stacked."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars to log; ``"loss"`` is minimised."""
        ...


@runtime_checkable
class Weighed(Protocol):
    """A task whose passes count by what they hold. Only such a task runs in several processes.

    Every parameter that is trained must get a gradient in every pass.
    """

    def weigh(self, batch: Any) -> float:
        """What the batch's ``"loss"`` is the mean over, for example its number of answer tokens; may be 0."""
        ...

    def blocks(self) -> Sequence[nn.Module]:
        """Parts of the module that ``fsdp`` gathers one at a time."""
        ...


class DivergedError(AnomalyOVError):
    """The loss is no longer a number."""


def learning_rate(config: LoopConfig, step: int) -> float:
    """Rate at ``step`` (0-based): linear warm-up, then the schedule."""
    warming = math.ceil(config.warmup_ratio * config.steps) or config.warmup_steps
    warm = min(1.0, (step + 1) / max(1, warming))
    if config.schedule == "constant":
        return config.learning_rate * warm
    if config.schedule == "cosine" and config.warmup_ratio > 0:
        position = max(0, step - warming) / max(1, config.steps - warming)
    elif config.schedule == "cosine":
        position = step / config.steps
    else:
        position = (step % config.restart_steps) / config.restart_steps
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * position))


def run(
    task: TrainingTask[M], config: LoopConfig, out: Path, provenance: dict[str, Any], world: World | None = None
) -> M:
    """Trains ``task.module`` for ``config.steps`` steps into folder ``out``; resumes from its checkpoint if there.

    Returns the module with its final (averaged, if ``ema``) weights, which are shards under ``fsdp``. Ctrl-C ends the
    step, saves, then passes on; a second one does not wait. Raises ``DivergedError`` when the loss is not finite.
    ``world``: of ``parallel.joined``; all its processes call this alike, and may be another number on resuming.
    """
    world = world or World()
    _seed_everything(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    average = _averaged(task.module, config.ema)
    losses = _spread(task, config, world)
    optimiser = torch.optim.AdamW(_groups(task.module, config), lr=config.learning_rate)
    checkpoint = load_checkpoint(out, lazily=config.parallel == "fsdp")
    start, window = 0, None
    if checkpoint is not None:
        checkpoint.restore(task.module, average, optimiser, provenance, out)
        start, window = checkpoint.step, checkpoint.window
        del checkpoint
    batch = config.samples_per_step
    tracker = (
        Tracker(out, total=config.steps, start=start, batch=batch, every=config.log_every, window=window)
        if world.first
        else Quiet()
    )
    saved_at, step = time.monotonic(), start

    with tracker, _finish_the_step_first() as interrupted:
        for passes in _steps(task, config, start, world):
            found = _step(task, losses, passes, optimiser, config, step, world)
            if average is not None:
                average.update_parameters(task.module)
            tracker.log(step + 1, found, learning_rate(config, step))
            step += 1
            due = world.first and time.monotonic() - saved_at > config.checkpoint_seconds
            # One process's clock, and any process's signal, count for all.
            is_due, is_over = (value > 0 for value in world.sums([float(due), float(bool(interrupted))]))
            if is_due or is_over or step == config.steps:
                state = RunCheckpoint.capture(
                    step, task.module, average, optimiser, tracker.window, provenance, keep=world.first
                )
                if world.first:
                    save_checkpoint(out, state)
                saved_at = time.monotonic()
            if is_over:
                tracker.say(f"stopped after step {step} of {config.steps}; the same command resumes from {out}")
                raise KeyboardInterrupt
    return task.module if average is None else cast(M, average.module)


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


def _spread(task: TrainingTask[Any], config: LoopConfig, world: World) -> Losses:
    if config.parallel == "none":
        return task.losses
    if not isinstance(task, Weighed):
        raise ConfigError(f"this training runs in one process, not with parallel: {config.parallel}", hint="use none")
    bf16 = config.precision == "bf16"
    return spread(task.module, task.losses, task.blocks(), config.parallel, world, bf16)


def _step(
    task: TrainingTask[Any],
    losses: Losses,
    passes: Sequence[Any],
    optimiser: torch.optim.Optimizer,
    config: LoopConfig,
    step: int,
    world: World,
) -> dict[str, Tensor]:
    """One step of the optimiser; returns each loss, its mean over all passes of all processes."""
    rate = learning_rate(config, step)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    weights = [task.weigh(batch) if isinstance(task, Weighed) else 1.0 for batch in passes]
    (total,) = world.sums([sum(weights)])
    optimiser.zero_grad(set_to_none=True)
    found: dict[str, Tensor] = {}
    device = next(task.module.parameters()).device
    for index, (batch, weight) in enumerate(zip(passes, weights, strict=True)):
        share = weight / total if total else 0.0
        with held_back(losses, last=index == len(passes) - 1):
            with torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext():
                parts = losses(batch)
            # The processes' gradients are averaged, but it is their sum that is wanted.
            (parts["loss"] * (share * world.size)).backward()  # type: ignore[no-untyped-call]
        for name, value in parts.items():
            found[name] = found.get(name, torch.zeros(())) + share * value.detach().float().cpu()
    if world.size > 1:
        found = dict(zip(found, torch.tensor(world.sums([float(value) for value in found.values()])), strict=True))
    if not torch.isfinite(found["loss"]):
        raise DivergedError(
            f"the loss is {found['loss'].item()} at step {step}", hint="lower learning_rate or use precision: f32"
        )
    if config.clip_norm > 0:
        nn.utils.clip_grad_norm_(task.module.parameters(), config.clip_norm)
    optimiser.step()
    return found


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


def _steps(task: TrainingTask[Any], config: LoopConfig, start: int, world: World) -> Iterator[list[Any]]:
    """This process's batches of each step."""
    samples = task.samples
    measured = samples if config.group_by_length and isinstance(samples, Measured) else None
    if config.group_by_length and measured is None:
        raise ConfigError("the lengths of these samples are not known", hint="set loop.group_by_length to false")
    passes = Passes(config.batch, config.samples_per_step, start, config.steps, world.rank, world.size, measured)
    loader = DataLoader(
        samples,
        batch_sampler=passes,
        collate_fn=task.collate,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=_quiet_worker,
        generator=torch.Generator(),  # its own, so that opening a loader leaves the model's random state alone
    )
    batches = iter(loader)
    for _ in range(start, config.steps):
        yield [next(batches) for _ in range(passes.of_a_step)]


def _quiet_worker(worker: int) -> None:
    """A loader process uses one thread and leaves Ctrl-C to the main process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
