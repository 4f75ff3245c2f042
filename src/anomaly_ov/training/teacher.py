"""The distillation teacher: MobileNetEdgeTPU 1.0 with named feature taps.

An ImageNet classifier (4.07 M parameters, Apache-2.0) whose batch norms are folded into its convolutions. It is read
from a safetensors file and used for training only. Input is RGB in -1..1. Not covered: the classification head, which
distillation does not read.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from anomaly_ov.errors import WeightsError
from anomaly_ov.models.edgetpu import EdgeTPU, EdgeTPUConfig


class MobileNetEdgeTPU(nn.Module):
    """Pixels (N, 3, H, W) in -1..1 -> {"block0".."block20": (N, C, h, w)}; strides 4, 8, 16, 16, 32, 32 by stage.

    The arithmetic of ``EdgeTPU``; its weights are named as in the published file, blocks numbered through.
    """

    def __init__(self, config: EdgeTPUConfig | None = None) -> None:
        super().__init__()
        network = EdgeTPU(config or EdgeTPUConfig())
        self.config = network.config
        self.stem, self.stem2 = network.stem
        self.blocks = nn.ModuleList(block for stage in network.stages for block in stage)  # type: ignore[attr-defined]

    def forward(self, pixels_N3HW: Tensor) -> dict[str, Tensor]:
        x = self.stem2(self.stem(pixels_N3HW))
        taps = {}
        for k, block in enumerate(self.blocks):
            x = taps[f"block{k}"] = block(x)
        return taps


def load_teacher(path: Path) -> MobileNetEdgeTPU:
    """The frozen teacher from its safetensors file (float32 in memory). ``WeightsError`` if it does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"no teacher weights at {path}", hint="pass the safetensors file with --teacher")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from None
    unused = ("head.", "fc.")
    teacher = MobileNetEdgeTPU()
    try:
        teacher.load_state_dict({k: v.float() for k, v in stored.items() if not k.startswith(unused)})
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not hold MobileNetEdgeTPU weights: {str(error).splitlines()[-1].strip()}"
        ) from None
    return teacher.eval().requires_grad_(False)
