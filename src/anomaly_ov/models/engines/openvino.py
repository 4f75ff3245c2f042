"""The engine of OpenVINO on the CPU: the same graphs as ``onnx``, or the pair of files that an export made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anomaly_ov.errors import MissingExtra, WeightsError
from anomaly_ov.models.arrays import Floats
from anomaly_ov.models.engines.graph_info import EXPORT, KEY, read_info
from anomaly_ov.models.engines.graphs import GraphEngine, Run
from anomaly_ov.models.engines.interface import require_count, threads
from anomaly_ov.models.folder import read_config, with_own_weights
from anomaly_ov.models.hub import ENCODER_GRAPH, EXPERT_GRAPH

VIEWS_PER_FORWARD = 8


def open_openvino(folder: Path, views_per_forward: int | None = None) -> GraphEngine:
    """The detector in ``folder``, computing in float32; ``views_per_forward``: most views encoded at once, default 8.

    Raises as ``onnx.open_onnx`` does, and ``MissingExtra``.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtra("openvino", "openvino") from None
    most = require_count(views_per_forward, VIEWS_PER_FORWARD)
    config, weights = with_own_weights(folder, read_config(folder))
    core, runs, infos = openvino.Core(), dict[str, Run](), []
    for name in (ENCODER_GRAPH, EXPERT_GRAPH):
        path = (folder / name).with_suffix(".xml")
        path = path if path.is_file() else folder / name
        runs[path.stem], told = _opened(core, path)
        infos.append(read_info(told, config, weights, path.stem, str(path)))
    return GraphEngine("openvino", config, infos[0], runs["encoder"], runs["expert"], most)


def _opened(core: Any, path: Path) -> tuple[Run, str | None]:
    """What runs the graph, and its metadata."""
    if not path.is_file():
        raise WeightsError(f"there is no graph at {path}", hint=f"make it with '{EXPORT}', or use --engine torch")
    # It would take half precision where the processor has it: features off by a tenth (EfficientNet-Lite2).
    options = {
        "INFERENCE_NUM_THREADS": threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{path} cannot be opened with the weights beside it: {reason}",
            hint=f"make it again with '{EXPORT} --overwrite', or use --engine torch",
        ) from None
    place = ["framework", KEY]
    told = str(model.get_rt_info(place).value) if model.has_rt_info(place) else None

    def run(inputs: list[np.ndarray]) -> list[Floats]:
        # A request of its own: one that is shared between threads would mix their inputs.
        request = compiled.create_infer_request()
        try:
            outputs = request.infer(dict(enumerate(inputs)))
        except RuntimeError as error:
            if "allocate" in str(error) or "bad_alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return [np.array(outputs[index], np.float32) for index in range(len(outputs))]

    return run, told
