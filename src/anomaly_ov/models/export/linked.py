"""Graphs without weights of their own: each initialiser points to the tensor of its name in ``model.safetensors``.

A safetensors file is a header and then the tensors' bytes, little-endian and unpadded, which is what ONNX calls
external data. Tensors in half precision are cast to float32 at the head of the graph; runtimes do that once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_ov.errors import CheckpointMismatch

if TYPE_CHECKING:
    import onnx_ir as ir

_DTYPES = {"F16": "FLOAT16", "F32": "FLOAT", "I64": "INT64"}


def link(model: ir.Model, weights: Path) -> ir.Model:
    """``model`` with every initialiser that ``weights`` holds pointing into it; the file lies beside the graph.

    Constants that are computed, such as position indices, stay in the graph. Raises ``CheckpointMismatch`` when a
    tensor of the file has another shape, or a type that is not stored.
    """
    import onnx_ir as ir

    start, tensors = _layout(weights)
    graph = model.graph
    first = graph[0]
    for name in [name for name in graph.initializers if name in tensors]:
        value, held = graph.initializers.pop(name), tensors[name]
        shape = [] if value.shape is None else list(value.shape.numpy())
        if held["dtype"] not in _DTYPES or shape != held["shape"]:
            raise CheckpointMismatch(
                f"{weights}: {name} is {held['dtype']} {held['shape']}, not a float of shape {shape}",
                hint="save the model again",
            )
        dtype = ir.DataType[_DTYPES[held["dtype"]]]
        begin, end = held["data_offsets"]
        data = ir.ExternalTensor(
            weights.name,
            start + begin,
            end - begin,
            dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=weights.parent,
        )
        stored = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=data)
        if dtype == value.dtype:
            value.replace_all_uses_with(stored)
        else:
            value.name, value.const_value = f"{name}.float32", None
            cast = ir.Node("", "Cast", [stored], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], outputs=[value])
            graph.insert_before(first, cast)
        graph.initializers[name] = stored
    return model


def precision_of(weights: Path) -> str:
    """What the weights are stored in: fp16 when any tensor is, else fp32."""
    _, tensors = _layout(weights)
    return "fp16" if any(held["dtype"] == "F16" for held in tensors.values()) else "fp32"


def _layout(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors' bytes begin, and the header: per name dtype, shape and data_offsets."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return 8 + size, header
