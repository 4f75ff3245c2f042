"""EfficientNet-Lite as an encoder's network: inverted bottlenecks without squeeze and excitation, ReLU6 throughout.

Architecture: Tan and Le 2019, in the "lite" form of TensorFlow's TPU repository, which quantises well and runs fast on
a CPU. Lite0 to Lite4 are (width, depth) = (1, 1), (1, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8); their stem and the
number of blocks in their first and last stage are never scaled. TensorFlow's SAME padding puts the odd pixel at the
bottom right. Hidden state 0 is the stem's output, hidden state k that of block k, counted from 1 over all stages.

Not here: classification, the public weights (``lite_weights``), every other EfficientNet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.errors import ConfigError
from anomaly_ov.models.own_config import fields_from

MOST = 8.0
"""Of each multiplier; Lite4, the widest and deepest published one, has 1.4 and 1.8."""
STEM = 32
DIVISOR = 8
NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01  # TensorFlow's 0.99, counted the other way


class _Stage(NamedTuple):
    repeats: int
    width: int
    stride: int
    expansion: int
    kernel: int


_STAGES = (
    _Stage(1, 16, 1, 1, 3),
    _Stage(2, 24, 2, 6, 3),
    _Stage(2, 40, 2, 6, 5),
    _Stage(3, 80, 2, 6, 3),
    _Stage(3, 112, 1, 6, 5),
    _Stage(4, 192, 2, 6, 5),
    _Stage(1, 320, 1, 6, 3),
)


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """``width`` and ``depth`` multiply channels and blocks of the seven stages; the default is Lite0 (16 blocks)."""

    width: float = 1.0
    depth: float = 1.0

    model_type: ClassVar[str] = "efficientnet_lite"
    embedding_size: ClassVar[int] = STEM

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value <= MOST:
                raise ConfigError(
                    f"encoder.backbone: {name} = {value!r} is out of range", hint=f"a number above 0, up to {MOST:g}"
                )

    @property
    def stages(self) -> tuple[_Stage, ...]:
        """The seven stages with channels and number of blocks multiplied."""
        last = len(_STAGES) - 1
        return tuple(
            stage._replace(
                width=scaled_width(stage.width, self.width),
                repeats=stage.repeats if index in (0, last) else math.ceil(stage.repeats * self.depth),
            )
            for index, stage in enumerate(_STAGES)
        )

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Channels after each block."""
        return tuple(stage.width for stage in self.stages for _ in range(stage.repeats))


def scaled_width(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded to a multiple of 8 that is at least nine tenths of it."""
    wanted = channels * width
    rounded = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * wanted else rounded


def config_from(mapping: Mapping[str, Any]) -> EfficientNetLiteConfig:
    """``mapping`` without ``model_type`` as a config; ``ConfigError`` names a field that does not exist."""
    return fields_from(EfficientNetLiteConfig, mapping)


class EfficientNetLite(nn.Module):
    """``network(pixel_values=(N, 3, H, W))`` -> the last block's map; ``blocks`` has one entry per bottleneck."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvLayer(3, STEM, kernel=3, stride=2)
        blocks, narrow = list[Bottleneck](), STEM
        for stage in config.stages:
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(Bottleneck(narrow, stage.width, stage.kernel, stride, stage.expansion))
                narrow = stage.width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels -> (N, C, h, w) of the deepest block there is."""
        hidden: Tensor = self.stem(pixel_values)
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class Bottleneck(nn.Module):
    """Expand (unless ``expansion`` is 1), filter each channel, project; adds its input where the shapes allow."""

    def __init__(self, narrow: int, wide: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = narrow * expansion
        self.expand: nn.Module = ConvLayer(narrow, inner) if expansion > 1 else nn.Identity()
        self.depthwise = ConvLayer(inner, inner, kernel, stride, groups=inner)
        self.project = ConvLayer(inner, wide, activation=False)
        self.residual = narrow == wide and stride == 1

    def forward(self, hidden_NChw: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h', w'); the input stays as it is, since an encoder may keep it."""
        projected: Tensor = self.project(self.depthwise(self.expand(hidden_NChw)))
        return projected + hidden_NChw if self.residual else projected


class ConvLayer(nn.Module):
    """Convolution with TensorFlow's SAME padding, batch norm and, with ``activation``, ReLU6."""

    def __init__(
        self, narrow: int, wide: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        # With stride 1 SAME padding is symmetric; else it depends on the size, and the padding is a step of its own.
        own = kernel // 2 if stride == 1 else 0
        self.padding: nn.Module = nn.Identity() if stride == 1 else _SamePadding(kernel, stride)
        self.convolution = nn.Conv2d(narrow, wide, kernel, stride, padding=own, groups=groups, bias=False)
        self.normalization = nn.BatchNorm2d(wide, NORM_EPS, NORM_MOMENTUM)
        self.activation: nn.Module = nn.ReLU6(inplace=True) if activation else nn.Identity()
        if not self.convolution.weight.is_meta:  # those are about to be loaded
            nn.init.normal_(self.convolution.weight, 0.0, math.sqrt(2 * groups / (kernel**2 * wide)))

    def forward(self, hidden_NChw: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', ceil(h / stride), ceil(w / stride))."""
        convolved = self.convolution(self.padding(hidden_NChw))
        activated: Tensor = self.activation(self.normalization(convolved))
        return activated


class _SamePadding(nn.Module):
    """Zeros around a map so that ceil(side / stride) cells come out; a constant step when the size is known."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, hidden_NChw: Tensor) -> Tensor:
        down, across = (
            max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0) for side in hidden_NChw.shape[-2:]
        )
        return F.pad(hidden_NChw, (across // 2, across - across // 2, down // 2, down - down // 2))
