"""Several processes that train one model, started by ``torchrun``: who they are, sums over them, and split parameters.

``ddp`` is torch's ``DistributedDataParallel``. ``fsdp`` is FSDP2, by torch's ``fully_shard`` itself and not through
accelerate: on the CPU accelerate may fall back to DDP without saying so, and its gradient accumulation weighs passes
equally, where ours weighs tokens (``loop``). After sharding, every parameter is checked to be a shard.

The file system is shared: the first process alone writes, every process reads checkpoints and data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from anomaly_ov.errors import UsageError

Parallel = Literal["none", "ddp", "fsdp"]
LONGEST_WAIT = timedelta(hours=4)  # for the first process to index the data
Losses = Callable[[Any], dict[str, Tensor]]


@dataclass(frozen=True)
class World:
    """The processes of a run; ``rank`` 0 is the first, which logs and writes. The default is one process alone."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, in float64; every process must call it."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def wait(self) -> None:
        """Returns once every process has got here."""
        self.sums([0.0])


def is_first_process() -> bool:
    """Whether this is the first process of a run, or the only one; also outside of ``joined``."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(parallel: Parallel, device: str) -> Iterator[World]:
    """The world of this run; under ``torchrun`` on CUDA each process gets a GPU of its own.

    Raises ``UsageError`` when ``parallel`` and the way the process was started do not fit.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if parallel == "none":
        if started > 1:
            raise UsageError(
                f"{started} processes were started, but loop.parallel is none: each would train alone",
                hint="set loop.parallel to ddp or fsdp, or start one process",
            )
        yield World(device=torch.device(device))
        return
    if "RANK" not in os.environ:
        raise UsageError(
            f"loop.parallel is {parallel}, but no processes were started for it",
            hint="torchrun --nproc-per-node=2 -m -- anomaly_ov.cli.main train stage2 ..., or set it to none",
        )
    where = torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    ours = not dist.is_initialized()  # a host program may have opened the group already; then it also closes it
    if ours:
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), where)
    finally:
        if ours:
            dist.destroy_process_group()


class Pass(nn.Module):
    """A task's losses as a module's forward: what DDP and FSDP wrap, so that all use of parameters lies within it."""

    def __init__(self, module: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.module = module
        self._losses = losses

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self._losses(batch)


def spread(
    module: nn.Module, losses: Losses, blocks: Sequence[nn.Module], parallel: Parallel, world: World, bf16: bool
) -> Losses:
    """``losses`` such that its gradients are averaged over the processes; for ``fsdp`` splits ``module`` in place.

    ``blocks``: parts of ``module`` that are gathered one at a time; the rest of it is gathered for a whole pass.
    ``bf16``: shards are gathered in bfloat16; they, and the sums of their gradients, are float32. Every parameter that
    is trained must get a gradient in every pass.
    """
    if parallel == "none":
        return losses
    root = Pass(module, losses)
    if parallel == "ddp":
        return nn.parallel.DistributedDataParallel(root)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=policy)
    _require_shards(module, world)
    return root


def held_back(losses: Losses, last: bool) -> AbstractContextManager[Any]:
    """Within it DDP keeps gradients to itself, unless this is the last pass of a step. FSDP never does: keeping whole
    gradients would cost the memory that it saves."""
    if last or not isinstance(losses, nn.parallel.DistributedDataParallel):
        return nullcontext()
    held: AbstractContextManager[Any] = losses.no_sync()
    return held


def gathered(state: Any, keep: bool = True) -> Any:
    """``state`` with each shard replaced by its whole on the CPU; ``keep``: otherwise empty, for all but the first.

    Nested mappings and lists; every process must call it. What is no shard stays as it is.
    """
    if isinstance(state, dict):
        found = {key: gathered(value, keep) for key, value in state.items()}
        return found if keep else {}
    if isinstance(state, list):
        return [gathered(value, keep) for value in state]
    if _is_shard(state):
        whole = state.full_tensor()
        return whole.cpu() if keep else None
    return state


def split_like(whole: Any, like: Any) -> Any:
    """``whole``, present on every process, split as ``like`` is; unchanged if that is no shard, or of other shape."""
    if not _is_shard(like) or not isinstance(whole, Tensor) or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    moved = whole.to(like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def _is_shard(value: Any) -> bool:
    if not dist.is_available() or not isinstance(value, Tensor):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def _require_shards(module: nn.Module, world: World) -> None:
    whole = [name for name, parameter in module.named_parameters() if not _is_shard(parameter)]
    if whole:
        raise UsageError(
            f"{len(whole)} parameters are not split over the {world.size} processes, among them {whole[0]}",
            hint="use loop.parallel: ddp with this version of torch",
        )
