"""The distillation teacher: MobileNetEdgeTPU 1.0 as a plain PyTorch network with named feature taps.

An ImageNet classifier (4.07 M parameters, Apache-2.0) whose batch norms are folded into its convolutions. It is read
from a safetensors file and used for training only. TensorFlow's SAME padding puts the odd pixel at the bottom right.
Input is RGB in -1..1. Not covered: the classification head, which distillation does not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.errors import WeightsError


class _Stage(NamedTuple):
    """Blocks of one resolution: the first widens by ``entry`` and strides, the others by 4 and are residual."""

    fused: bool
    width: int
    entry: int
    kernel: int
    stride: int
    blocks: int


STAGES = (
    _Stage(fused=True, width=32, entry=8, kernel=3, stride=2, blocks=4),
    _Stage(fused=True, width=48, entry=8, kernel=3, stride=2, blocks=4),
    _Stage(fused=False, width=96, entry=8, kernel=3, stride=2, blocks=4),
    _Stage(fused=False, width=96, entry=8, kernel=3, stride=1, blocks=4),
    _Stage(fused=False, width=160, entry=8, kernel=5, stride=2, blocks=4),
    _Stage(fused=False, width=192, entry=8, kernel=3, stride=1, blocks=1),
)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, optionally followed by ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        self._relu = relu

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (x.shape[-1], x.shape[-2])]
        if any(pads):
            x = F.pad(x, (pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2))
        x = super().forward(x)
        return F.relu(x) if self._relu else x


class InvertedBottleneck(nn.Module):
    """Expand, (depthwise,) project; the fused form merges the first two."""

    def __init__(self, inputs: int, stage: _Stage, first: bool) -> None:
        super().__init__()
        hidden = inputs * (stage.entry if first else 4)
        stride = stage.stride if first else 1
        kernel = stage.kernel
        self.expand = SameConv(inputs, hidden, kernel, stride) if stage.fused else SameConv(inputs, hidden)
        self.dw = None if stage.fused else SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, stage.width, relu=False)
        self._residual = not first

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(x)
        y = self.project(y if self.dw is None else self.dw(y))
        return x + y if self._residual else y


class MobileNetEdgeTPU(nn.Module):
    """Pixels (N, 3, H, W) in -1..1 -> {"block0".."block20": (N, C, h, w)}; strides 4, 8, 16, 16, 32, 32 by stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, kernel=3, stride=2)
        self.stem2 = SameConv(32, 16, relu=False)
        width, blocks = 16, []
        for stage in STAGES:
            for k in range(stage.blocks):
                blocks.append(InvertedBottleneck(width, stage, first=k == 0))
                width = stage.width
        self.blocks = nn.ModuleList(blocks)

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
