"""Tensors on disk: safetensors in and out, nothing else. Checked before read, written atomically.

Does not know any model: callers say which names and shapes they expect (``require_same``). Reading never runs
code from the file, and a header is compared before a single weight is loaded.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint, WeightsError
from anomaly_ov.images.messages import some

Tensors = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

MAX_BYTES = 64 * 2**30
HALF_LOSS = 1e-3  # relative L2 error above which a tensor is kept in float32; plain fp16 rounding costs about 2e-4


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def require_same(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises ``CheckpointMismatch`` naming missing, unexpected and wrongly shaped tensors; silent when equal."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = [
        f"{name} is {list(found[name])}, must be {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(expected[name]) != tuple(found[name])
    ]
    parts = [
        f"{len(names)} {what}: {some(names)}"
        for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", wrong))
        if names
    ]
    if parts:
        raise CheckpointMismatch(
            f"{where} does not fit this model: {'; '.join(parts)}",
            hint="use the weights that belong to this configuration",
        )


def read_shapes(path: Path, max_bytes: int = MAX_BYTES) -> Shapes:
    """Names and shapes from the header of the safetensors file at ``path``; no weight is read."""
    with _opened(path, max_bytes) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, str]:
    """The header's free-text metadata."""
    with _opened(path, max_bytes) as file:
        return dict(file.metadata() or {})


def read(path: Path, expected: Mapping[str, tuple[int, ...]] | None = None, max_bytes: int = MAX_BYTES) -> Tensors:
    """All tensors of the safetensors file at ``path``, on the CPU in their stored dtype.

    With ``expected`` the header must name exactly those shapes, else ``CheckpointMismatch`` before anything is read.
    Raises ``WeightsError`` (no such file), ``UnsafeCheckpoint`` (not safetensors, truncated, over ``max_bytes``).
    """
    if expected is not None:
        require_same(expected, read_shapes(path, max_bytes), str(path))
    with _opened(path, max_bytes) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """``tensors`` as a safetensors file at ``path``; whoever looks sees the old file or the whole new one."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        # The format tag is what transformers insists on.
        save_file(plain, str(temporary), metadata={"format": "pt"} | dict(metadata or {}))


def to_half(tensors: Mapping[str, Tensor]) -> tuple[Tensors, list[str]]:
    """Floating tensors as fp16; those that fp16 cannot hold stay float32. Returns the tensors and why some stayed.

    A tensor stays when a value lies beyond 65504 or when rounding costs more than ``HALF_LOSS`` of its norm.
    """
    out: Tensors = {}
    notes = []
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            out[name] = tensor
            continue
        full = tensor.detach().float()
        half = full.half()
        if bool(half.isinf().any()) and not bool(full.isinf().any()):
            notes.append(f"{name} kept in float32: values beyond 65504")
        elif (loss := _relative_loss(full, half)) > HALF_LOSS:
            notes.append(f"{name} kept in float32: fp16 would lose {loss:.1e} of its norm")
        else:
            full = half
        out[name] = full
    return out, notes


def to_full(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensors:
    """Floating tensors in ``dtype``, counters as they are."""
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


@contextmanager
def empty_parameters() -> Iterator[None]:
    """Modules built inside hold parameters without memory or values (meta device) and real buffers.

    For a model whose weights follow by ``load_state_dict(assign=True)``: no time goes into random initialisation, while
    buffers that are in no file (position indices, rotary frequencies) are still computed by their constructors.
    Only this thread's modules are affected.
    """
    owner = threading.get_ident()
    register = nn.Module.register_parameter

    def register_empty(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and threading.get_ident() == owner:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(module, name, param)

    nn.Module.register_parameter = register_empty  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place once written and synced; gone if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _relative_loss(full: Tensor, half: Tensor) -> float:
    norm = float(torch.linalg.vector_norm(full))
    return float(torch.linalg.vector_norm(full - half.float())) / norm if norm > 0 else 0.0


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[Any]:
    """The checked, memory-mapped file; the library refuses overlapping, out-of-range and truncated tensors."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"no weights at {path}", hint="run 'anomaly-ov models' to see what is installed")
    size = path.stat().st_size
    if size > max_bytes:
        raise UnsafeCheckpoint(f"{path} holds {size} bytes, more than the {max_bytes} allowed", hint="wrong file?")
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise UnsafeCheckpoint(f"{path} is a pickle, not safetensors; it was not opened", hint="convert it first")
    try:
        with safe_open(str(path), framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise UnsafeCheckpoint(
            f"{path} is no complete safetensors file: {reason}", hint="download or copy the file again"
        ) from None
