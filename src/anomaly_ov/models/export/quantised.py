"""An encoder in eight bits: ONNX Runtime's static quantisation over the views of some pictures.

Weights per channel, activations by the smallest and largest value seen. On EfficientNet-Lite2 other ways to find
ranges (percentile, entropy) were no better and ten times slower. One bit of the weights is given up (``reduce_range``),
without which processors that lack VNNI overflow silently. The expert stays in float32: it is a small share of the work,
and its softmax over 100 x cosine needs the digits.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_ov.errors import MissingExtra, UsageError
from anomaly_ov.images.prepared import prepare
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.arrays import Pixels
from anomaly_ov.models.export.traced import trace_encoder
from anomaly_ov.models.model import AnomalyModel

if TYPE_CHECKING:
    import onnx_ir as ir

VIEWS_AT_ONCE = 8
_PRODUCTS = ("Conv", "MatMul", "Gemm")
# Between two products of a convolutional network these cost more than they are worth in float32. In a transformer a
# sum is the residual stream, which loses most of what it says in eight bits.
_BETWEEN = ("Add", "Clip", "Relu", "MaxPool")


def quantise_encoder(
    model: AnomalyModel, pictures: Sequence[Source], folder: Path, done: Callable[[], None]
) -> ir.Model:
    """The encoder's graph in eight bits, with its weights inside. ``folder``: for files in between, removed again.

    ``done``: called after each picture. A picture that cannot be read is left out; ``UsageError`` if none can.
    """
    try:
        import onnx_ir as ir
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtra(error.name or "onnx", "lab") from None
    between = _BETWEEN if model.encoder.convolutional else ()
    reader = _Reader(pictures, model.config.views, done)
    with tempfile.TemporaryDirectory(prefix="quantising-", dir=folder) as name:
        paths = [str(Path(name) / f"{step}.onnx") for step in ("traced", "ready", "quantised")]
        ir.save(trace_encoder(model.encoder.fuse()), paths[0])
        before = logging.root.level
        logging.root.setLevel(logging.ERROR)  # it advises on the command line of its own tools
        try:
            quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
            quantize_static(
                paths[1],
                paths[2],
                reader,
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=[*_PRODUCTS, *between],
                extra_options={"MatMulConstBOnly": True},
            )
        finally:
            logging.root.setLevel(before)
        made = ir.load(paths[2])
        for value in made.graph.initializers.values():  # the file is about to go
            if value.const_value is not None:
                value.const_value = ir.Tensor(value.const_value.numpy().copy(), name=value.name)
        return made


def views_of(source: Source, config: ViewsConfig) -> Pixels | None:
    """The views of one picture, (N, S, S, 3) uint8; None if it cannot be read."""
    views = prepare(source, config, Limits()).views
    return None if views is None else views.pixels_NHW3


class _Reader:
    """What ONNX Runtime asks for its inputs; one picture is held at a time."""

    def __init__(self, pictures: Sequence[Source], config: ViewsConfig, done: Callable[[], None]) -> None:
        self._parts = self._read(pictures, config, done)

    def get_next(self) -> dict[str, Any] | None:
        """The next views by the name of the graph's input; None at the end."""
        return next(self._parts, None)

    def _read(
        self, pictures: Sequence[Source], config: ViewsConfig, done: Callable[[], None]
    ) -> Iterator[dict[str, Any]]:
        read = 0
        for source in pictures:
            pixels_NHW3 = views_of(source, config)
            if pixels_NHW3 is not None:
                read += 1
                for start in range(0, len(pixels_NHW3), VIEWS_AT_ONCE):
                    yield {"pixels": pixels_NHW3[start : start + VIEWS_AT_ONCE]}
            done()
        if not read:
            raise UsageError(f"none of {len(pictures)} pictures could be read", hint="name a folder of pictures")
