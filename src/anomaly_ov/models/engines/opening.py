"""The one place where an engine is chosen for a model folder."""

from __future__ import annotations

import ctypes
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from anomaly_ov.errors import MissingExtra, UsageError
from anomaly_ov.models.engines.interface import Engine
from anomaly_ov.models.hub import ENCODER_GRAPH, EXPERT_GRAPH

ENGINES = ("auto", "onnx", "openvino", "torch")
_CUDA_DRIVER = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}


def open_engine(
    folder: Path,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    views_per_forward: int | None = None,
) -> Engine:
    """The detector in the model folder ``folder``, ready to encode.

    ``engine``: onnx, openvino, torch, or auto: onnx where the folder has its graphs, the device is the CPU (or auto
    without a CUDA device) and the precision is not a half one; else torch. ``device``, ``dtype``: as in
    ``models.device``.

    Raises ``UsageError`` for a combination that no engine offers, ``WeightsError`` for a folder without graphs that is
    to be opened with them (it names the export command), ``MissingExtra`` without torch or openvino where it is needed,
    and what reading a model raises.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown engine '{engine}'", hint=f"use {', '.join(ENGINES)}")
    if engine == "auto":
        engine = "onnx" if _suits_onnx(folder, device, dtype) else "torch"
    elif engine != "torch":
        _require_possible(engine, device, dtype)
    if engine == "onnx":
        from anomaly_ov.models.engines.onnx import open_onnx

        return open_onnx(folder, views_per_forward)
    if engine == "openvino":
        from anomaly_ov.models.engines.openvino import open_openvino

        return open_openvino(folder, views_per_forward)
    if find_spec("torch") is None:
        raise MissingExtra("torch", "torch")
    from anomaly_ov.models.engines.torch import TorchEngine
    from anomaly_ov.models.model import AnomalyModel

    return TorchEngine(AnomalyModel.from_pretrained(folder), device, dtype, views_per_forward)


def has_graphs(folder: Path) -> bool:
    """Whether the folder holds both graphs."""
    return all((folder / name).is_file() for name in (ENCODER_GRAPH, EXPERT_GRAPH))


def has_cuda() -> bool:
    """Whether torch sees a CUDA device; torch is imported only where its build and the driver make that possible."""
    try:
        build = version("torch").partition("+")[2]
    except PackageNotFoundError:
        return False
    driver = _CUDA_DRIVER.get(sys.platform)
    if build == "cpu" or driver is None:
        return False
    try:
        ctypes.CDLL(driver)
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def _suits_onnx(folder: Path, device: str, dtype: str) -> bool:
    plain = dtype in ("auto", "float32") and find_spec("onnxruntime") is not None
    return plain and has_graphs(folder) and (device == "cpu" or (device == "auto" and not has_cuda()))


def _require_possible(engine: str, device: str, dtype: str) -> None:
    hint = "use --engine torch for it"
    if device not in ("auto", "cpu"):
        raise UsageError(f"the engine {engine} runs on the CPU, not on '{device}'", hint=hint)
    if dtype not in ("auto", "float32"):
        raise UsageError(f"the engine {engine} computes in float32, not in '{dtype}'", hint=hint)
