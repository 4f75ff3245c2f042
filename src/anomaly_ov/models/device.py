"""Where the network runs and in what precision: names to torch objects, and what running out of memory looks like."""

from __future__ import annotations

import torch

from anomaly_ov.errors import DeviceError, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """``auto`` = CUDA when present, else the CPU; otherwise a torch name such as ``cpu``, ``cuda:1`` or ``mps``.

    Raises UsageError for a name torch does not know and DeviceError for a device this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device '{name}'", hint="use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cpu":
        return device
    count = {"cuda": torch.cuda.device_count, "mps": torch.mps.device_count}.get(device.type, lambda: 0)()
    if (device.index or 0) >= count:
        raise DeviceError(
            f"device '{name}' is not available: torch {torch.__version__} sees {count} of type '{device.type}' here",
            hint="use --device cpu, or run 'anomaly-ov doctor' to see what torch finds",
        )
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` = bfloat16 on a CUDA device that has it, else float32; otherwise float32, bfloat16 or float16."""
    if name == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bf16 else torch.float32
    if name not in DTYPES:
        raise UsageError(f"unknown dtype '{name}'", hint=f"use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def is_out_of_memory(error: BaseException) -> bool:
    """True for an accelerator's or the CPU allocator's refusal (the latter is a plain RuntimeError in torch)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        part in str(error) for part in ("DefaultCPUAllocator", "not enough memory", "out of memory")
    )
