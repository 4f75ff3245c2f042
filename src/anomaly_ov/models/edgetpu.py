"""MobileNetEdgeTPU as an encoder's network: fused and plain inverted bottlenecks, few parameters, no batch norm.

The published network (MobileNetEdgeTPU 1.0, TensorFlow model garden) has its norms folded into its convolutions; ours
has none from the start and learns from a teacher instead. TensorFlow's SAME padding puts the odd pixel at the bottom
right. Hidden state 0 is the stem's output, hidden state k that of stage k.

Not here: classification, the distillation teacher (``training.teacher`` builds it from these blocks).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.errors import ConfigError
from anomaly_ov.models.own_config import fields_from

_MOST = {
    "embedding_size": 4096,
    "stem_size": 4096,
    "hidden_sizes": 4096,
    "depths": 64,
    "strides": 4,
    "kernels": 9,
    "first_expansion": 16,
    "expansion": 16,
}
_PER_STAGE = ("hidden_sizes", "depths", "strides", "kernels")
_MOST_STAGES = 16


@dataclass(frozen=True)
class EdgeTPUConfig:
    """Shape of the network; the default is the published MobileNetEdgeTPU 1.0 (4.07 M parameters with its head).

    ``stem_size``: channels after the first convolution (stride 2), ``embedding_size``: after the second, hidden state
    0. ``hidden_sizes``, ``depths``, ``strides``, ``kernels``: channels, blocks, stride of the first block and kernel
    of each stage. ``fused``: so many leading stages, or those marked true, expand with a full convolution instead of
    a pointwise and a depthwise one. ``first_expansion``: widening inside the first block of a stage, ``expansion``:
    inside the others.
    """

    embedding_size: int = 16
    stem_size: int = 32
    hidden_sizes: tuple[int, ...] = (32, 48, 96, 96, 160, 192)
    depths: tuple[int, ...] = (4, 4, 4, 4, 4, 1)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2, 1)
    kernels: tuple[int, ...] = (3, 3, 3, 3, 5, 3)
    fused: int | tuple[bool, ...] = 2
    first_expansion: int = 8
    expansion: int = 4

    model_type: ClassVar[str] = "mobilenet_edgetpu"

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) and name in _PER_STAGE else (value,)
            if not all(type(number) is int and 1 <= number <= most for number in numbers):
                raise ConfigError(
                    f"encoder.backbone: {name} = {value!r} is out of range", hint=f"whole numbers from 1 to {most}"
                )
        stages = len(self.hidden_sizes) if isinstance(self.hidden_sizes, tuple) else 0
        for name in ("hidden_sizes", "depths", "strides", "kernels"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or len(value) != stages or not 1 <= stages <= _MOST_STAGES:
                raise ConfigError(
                    f"encoder.backbone: {name} = {value!r} must hold one number per stage",
                    hint=f"1 to {_MOST_STAGES} stages, as many as hidden_sizes has numbers",
                )
        if not self._is_fused_valid(stages):
            raise ConfigError(
                f"encoder.backbone: fused = {self.fused!r} says nothing about {stages} stages",
                hint=f"a number of leading stages, 0 to {stages}, or true or false for each stage",
            )

    @property
    def fused_stages(self) -> tuple[bool, ...]:
        """``fused`` for each stage."""
        if isinstance(self.fused, tuple):
            return self.fused
        return tuple(stage < self.fused for stage in range(len(self.depths)))

    def _is_fused_valid(self, stages: int) -> bool:
        if isinstance(self.fused, tuple):
            return len(self.fused) == stages and all(isinstance(mark, bool) for mark in self.fused)
        return type(self.fused) is int and 0 <= self.fused <= stages


def config_from(mapping: Mapping[str, Any]) -> EdgeTPUConfig:
    """``mapping`` without ``model_type`` as an ``EdgeTPUConfig``; ``ConfigError`` names a field that does not exist."""
    return fields_from(EdgeTPUConfig, mapping)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, optionally followed by ReLU; initialised as He et al. (fan in).

    Depthwise ones start smaller (fan out, in torch's count that of all channels): a residual block then begins close
    to its input, which halves the loss of the first hundred steps of distillation.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        self._relu = relu

    def reset_parameters(self) -> None:
        """Random weights, no bias; weights on meta are about to be loaded and stay undrawn."""
        if not self.weight.is_meta:
            mode: Literal["fan_in", "fan_out"] = "fan_in" if self.groups == 1 else "fan_out"
            nn.init.kaiming_normal_(self.weight, mode=mode, nonlinearity="relu")
            assert self.bias is not None
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', ceil(h / stride), ceil(w / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, across = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        if down % 2 or across % 2:  # padding inside the convolution is symmetric, and needs no copy
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
            down = across = 0
        x = F.conv2d(x, self.weight, self.bias, self.stride, (down // 2, across // 2), 1, self.groups)
        return F.relu(x, inplace=True) if self._relu else x


class InvertedBottleneck(nn.Module):
    """Expand, (depthwise,) project; the fused form merges the first two. ``residual``: adds its input."""

    def __init__(
        self, inputs: int, width: int, *, expansion: int, kernel: int, stride: int, fused: bool, residual: bool
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv(inputs, hidden, kernel, stride) if fused else SameConv(inputs, hidden)
        self.dw = None if fused else SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, width, relu=False)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h', w')."""
        y: Tensor = self.expand(x)
        y = self.project(y if self.dw is None else self.dw(y))
        return x + y if self.residual else y


class EdgeTPU(nn.Module):
    """``network(pixel_values=(N, 3, H, W))`` -> the last stage's map; ``stem`` and ``stages`` can be run one by one."""

    def __init__(self, config: EdgeTPUConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(
            SameConv(3, config.stem_size, kernel=3, stride=2),
            SameConv(config.stem_size, config.embedding_size, relu=False),
        )
        self.stages = nn.ModuleList(_stage(config, index) for index in range(len(config.depths)))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels -> (N, C, h, w) of the deepest stage there is."""
        hidden: Tensor = self.stem(pixel_values)
        for stage in self.stages:
            hidden = stage(hidden)
        return hidden


def _stage(config: EdgeTPUConfig, index: int) -> nn.Sequential:
    """The first block changes width and resolution; the others add to what they read."""
    width, kernel, fused = config.hidden_sizes[index], config.kernels[index], config.fused_stages[index]
    first = InvertedBottleneck(
        (config.embedding_size, *config.hidden_sizes)[index],
        width,
        expansion=config.first_expansion,
        kernel=kernel,
        stride=config.strides[index],
        fused=fused,
        residual=False,
    )
    others = (
        InvertedBottleneck(
            width, width, expansion=config.expansion, kernel=kernel, stride=1, fused=fused, residual=True
        )
        for _ in range(config.depths[index] - 1)
    )
    return nn.Sequential(first, *others)
