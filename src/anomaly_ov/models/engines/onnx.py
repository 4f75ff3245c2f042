"""The engine of ONNX Runtime on the CPU: a model folder with ``encoder.onnx`` and ``expert.onnx``, no torch.

The graphs point into ``model.safetensors``, so weights are stored once; casts from half precision and batch norms are
folded when the graphs are opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anomaly_ov.errors import WeightsError
from anomaly_ov.models.arrays import Floats
from anomaly_ov.models.engines.graph_info import EXPORT, KEY, GraphInfo, read_info
from anomaly_ov.models.engines.graphs import GraphEngine, Run
from anomaly_ov.models.engines.interface import require_count, threads
from anomaly_ov.models.folder import read_config, with_own_weights
from anomaly_ov.models.hub import ENCODER_GRAPH, EXPERT_GRAPH

VIEWS_PER_FORWARD = 8  # more gains nothing: 11 ms a view with 4 or 8, 12 with 16 (EfficientNet-Lite2, 2 cores)


def open_onnx(folder: Path, views_per_forward: int | None = None) -> GraphEngine:
    """The detector in ``folder``; ``views_per_forward``: most views encoded at once, default 8.

    Raises ``WeightsError`` (no graphs, or unusable ones), ``CheckpointMismatch`` (graphs of other weights), and what
    reading a model folder raises.
    """
    most = require_count(views_per_forward, VIEWS_PER_FORWARD)
    config, weights = with_own_weights(folder, read_config(folder))
    encoder, info = _opened(folder / ENCODER_GRAPH)
    expert, expert_info = _opened(folder / EXPERT_GRAPH)
    read_info(expert_info, config, weights, "expert", str(folder / EXPERT_GRAPH))
    checked: GraphInfo = read_info(info, config, weights, "encoder", str(folder / ENCODER_GRAPH))
    return GraphEngine("onnx", config, checked, encoder, expert, most)


def _opened(path: Path) -> tuple[Run, str | None]:
    """What runs the graph, and its metadata."""
    import onnxruntime

    if not path.is_file():
        raise WeightsError(f"there is no graph at {path}", hint=f"make it with '{EXPORT}', or use --engine torch")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin for work take the cores from what follows: the other graph, NumPy, the next image's reader.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class of their own
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{path} cannot be opened with the weights beside it: {reason}",
            hint=f"make it again with '{EXPORT} --overwrite', or use --engine torch",
        ) from None
    names = [one.name for one in session.get_inputs()]

    def run(inputs: list[np.ndarray]) -> list[Floats]:
        try:
            outputs: list[Floats] = session.run(None, dict(zip(names, inputs, strict=True)))
        except Exception as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error) or "bad_alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return outputs

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)
