"""A detector's encoder and expert as ONNX graphs, traced from the networks themselves; any number of views.

Encoder: ``pixels`` uint8 (N, S, S, 3) -> ``final`` (N, P, D) and ``level_0`` ... (N, P, width), normalisation inside.
Expert: those of the views of one picture, base view first -> ``map`` (N, h, w), ``score`` (1,), ``local`` (N, 4, D),
``global`` (1, D). All float32. Calibration and thresholds are no part of either.

Weights stay what they are in the model: while the exporter simplifies, they are inputs of the graph, so that nothing is
folded into them; ONNX Runtime folds batch norms when it opens the graph. Not every network can be traced: SigLIP 2
(NaFlex) counts its views while it runs.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anomaly_ov.errors import MissingExtra, UsageError
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.features import Features

if TYPE_CHECKING:
    import onnx_ir as ir

EXAMPLE_VIEWS = 2  # of the trace; one would be taken for a fixed size


def trace_encoder(encoder: Encoder) -> ir.Model:
    """The encoder's graph; initialisers are named ``encoder.`` and their name in the encoder's state dict.

    Raises ``MissingExtra``, and ``UsageError`` for a network that the exporter cannot trace.
    """
    side = encoder.image_size
    pixels_NHW3 = torch.randint(0, 256, (EXAMPLE_VIEWS, side, side, 3), dtype=torch.uint8)
    outputs = ["final", *(f"level_{index}" for index in range(len(encoder.level_widths)))]
    return _traced(_Encoder(encoder), (pixels_NHW3,), ["pixels"], outputs, encoder.model_type)


def trace_expert(expert: Expert) -> ir.Model:
    """The expert's graph for one picture; initialisers are named ``expert.`` and their name in the state dict."""
    config = expert.config
    patches = config.grid_hw[0] * config.grid_hw[1]
    widths = (config.width, *expert.level_widths)
    final_NPD, *levels_NPD = (torch.randn(EXAMPLE_VIEWS, patches, width) for width in widths)
    names = ["final", *(f"level_{index}" for index in range(len(levels_NPD)))]
    outputs = ["map", "score", "local", "global"]
    return _traced(_Expert(expert), (final_NPD, tuple(levels_NPD)), names, outputs, "the expert")


class _Encoder(nn.Module):
    scale_3: Tensor
    shift_3: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        scale_3, shift_3 = (torch.tensor(values, dtype=torch.float32) for values in encoder.scale_shift)
        self.register_buffer("scale_3", scale_3, persistent=False)
        self.register_buffer("shift_3", shift_3, persistent=False)

    def forward(self, pixels_NHW3: Tensor) -> tuple[Tensor, ...]:
        x_NHW3 = pixels_NHW3.float() * self.scale_3 + self.shift_3
        features = self.encoder(x_NHW3.permute(0, 3, 1, 2))
        return (features.final_NPD, *features.levels_NPD)


class _Expert(nn.Module):
    def __init__(self, expert: Expert) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, final_NPD: Tensor, levels_NPD: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        said = self.expert.of_one(Features(final_NPD, levels_NPD, self.expert.config.grid_hw))
        return said.map_Nhw, said.score_B, said.local_NQD, said.global_BD


def _traced(module: nn.Module, args: tuple[Any, ...], inputs: list[str], outputs: list[str], what: str) -> ir.Model:
    views = torch.export.Dim("views", min=1)
    shapes = tuple(tuple({0: views} for _ in one) if isinstance(one, tuple) else {0: views} for one in args)
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                args,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=shapes,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
            assert program is not None
            held = _hold_weights(program.model, set(module.state_dict()))
            program.optimize()
    except ImportError as error:
        raise MissingExtra(error.name or "onnxscript", "lab") from None
    except (RuntimeError, torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{what} cannot be written as an ONNX graph: {reason}", hint="use this model with its own engine, torch"
        ) from error
    shape = program.model.graph.inputs[0].shape
    if shape is None or isinstance(shape[0], int):
        raise UsageError(
            f"{what} cannot be written as an ONNX graph for any number of views: its code reads how many there are",
            hint="use this model with its own engine, torch",
        )
    _release_weights(program.model, held)
    _strip(program.model)
    return program.model


def _hold_weights(model: ir.Model, names: set[str]) -> dict[str, Any]:
    """Makes inputs of what a model folder stores, and returns their values by name."""
    held = {}
    for name in list(model.graph.initializers):
        if name in names:
            value = model.graph.initializers.pop(name)
            held[name], value.const_value = value.const_value, None
            model.graph.inputs.append(value)
    return held


def _release_weights(model: ir.Model, held: dict[str, Any]) -> None:
    """Makes initialisers of them again, but of those that nothing reads."""
    for value in list(model.graph.inputs):
        if value.name in held:
            model.graph.inputs.remove(value)
            if value.uses():
                value.const_value = held[value.name]
                model.graph.initializers[value.name] = value


def _strip(model: ir.Model) -> None:
    """Takes off what the exporter notes beside the graph: traces with the paths of this machine, nine tenths of it."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about packages that it does not need here."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
