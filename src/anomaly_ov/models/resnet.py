"""A residual network with the parameter names and arithmetic of transformers' ``ResNetModel``, without importing it.

Importing transformers' modelling code takes longer than importing torch; the embedded model is a residual network, so
a command that inspects one picture starts in a third of the time with this. Weights go both ways; a test holds
that names and outputs are equal. Architecture: He et al. 2015 (basic and bottleneck blocks).

Not here: classification, pooling, every other architecture (``backbones`` takes them from transformers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from anomaly_ov.errors import ConfigError
from anomaly_ov.models.own_config import fields_from

_REDUCTION = 4  # of channels inside a bottleneck
_ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


@dataclass(frozen=True)
class ResNetConfig:
    """The fields of transformers' ``ResNetConfig`` that shape the network, with its defaults (ResNet-50)."""

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False

    model_type: ClassVar[str] = "resnet"

    def __post_init__(self) -> None:
        sizes = (self.num_channels, self.embedding_size, *self.hidden_sizes, *self.depths)
        whole = all(isinstance(size, int) and size >= 1 for size in sizes)
        if not whole or len(self.hidden_sizes) != len(self.depths) or not self.depths:
            raise ConfigError(
                "encoder.backbone: hidden_sizes and depths must be whole numbers >= 1, one of each per stage",
                hint="for example hidden_sizes [48, 96, 160, 224] and depths [2, 2, 2, 2]",
            )
        if self.layer_type not in ("basic", "bottleneck") or self.hidden_act not in _ACTIVATIONS:
            raise ConfigError(
                f"encoder.backbone: layer_type = {self.layer_type!r}, hidden_act = {self.hidden_act!r} is not offered",
                hint=f"layer_type basic or bottleneck, hidden_act one of {', '.join(_ACTIVATIONS)}",
            )


def config_from(mapping: Mapping[str, Any]) -> ResNetConfig:
    """``mapping`` without ``model_type`` as a ``ResNetConfig``; ``ConfigError`` names a field that does not exist."""
    return fields_from(ResNetConfig, mapping)


class ResNet(nn.Module):
    """``network(pixel_values=(N, 3, H, W))`` -> the last stage's map; initialised as He et al. (fan out)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = _Stem(config)
        self.encoder = _Stages(config)
        for module in self.modules():
            # Meta weights are about to be loaded, and a random draw on them would import torch's compiler.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels -> (N, C, h, w) of the deepest stage there is."""
        hidden: Tensor = self.encoder(self.embedder(pixel_values))
        return hidden


class _Stem(nn.Module):
    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.embedder = _ConvLayer(config.num_channels, config.embedding_size, 7, 2, config.hidden_act)
        self.pooler = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        pooled: Tensor = self.pooler(self.embedder(pixels_N3HW))
        return pooled


class _Stages(nn.Module):
    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        widths = (config.embedding_size, *config.hidden_sizes)
        strides = (2 if config.downsample_in_first_stage else 1, *(2,) * (len(config.depths) - 1))
        self.stages = nn.ModuleList(
            _Stage(config, widths[i], widths[i + 1], strides[i], depth) for i, depth in enumerate(config.depths)
        )

    def forward(self, hidden_NChw: Tensor) -> Tensor:
        for stage in self.stages:
            hidden_NChw = stage(hidden_NChw)
        return hidden_NChw


class _Stage(nn.Module):
    def __init__(self, config: ResNetConfig, narrow: int, wide: int, stride: int, depth: int) -> None:
        super().__init__()
        first = _Block(config, narrow, wide, stride)
        self.layers = nn.Sequential(first, *(_Block(config, wide, wide, 1) for _ in range(depth - 1)))

    def forward(self, hidden_NChw: Tensor) -> Tensor:
        hidden: Tensor = self.layers(hidden_NChw)
        return hidden


class _Block(nn.Module):
    def __init__(self, config: ResNetConfig, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        same = narrow == wide and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else _ConvLayer(narrow, wide, 1, stride)
        # Inside a block transformers uses relu, whatever hidden_act says.
        if config.layer_type == "basic":
            self.layer = nn.Sequential(_ConvLayer(narrow, wide, 3, stride, "relu"), _ConvLayer(wide, wide, 3, 1))
        else:
            inner = wide // _REDUCTION
            first, second = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
            self.layer = nn.Sequential(
                _ConvLayer(narrow, inner, 1, first, "relu"),
                _ConvLayer(inner, inner, 3, second, "relu"),
                _ConvLayer(inner, wide, 1, 1),
            )
        self.activation = _ACTIVATIONS[config.hidden_act](inplace=True)

    def forward(self, hidden_NChw: Tensor) -> Tensor:
        # Both branches are fresh tensors or the untouched input: adding in place never changes a kept hidden state.
        summed = self.layer(hidden_NChw)
        summed += self.shortcut(hidden_NChw)
        activated: Tensor = self.activation(summed)
        return activated


class _ConvLayer(nn.Module):
    def __init__(self, narrow: int, wide: int, kernel: int, stride: int, activation: str | None = None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(narrow, wide, kernel, stride, padding=kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(wide)
        self.activation = nn.Identity() if activation is None else _ACTIVATIONS[activation](inplace=True)

    def forward(self, hidden_NChw: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.normalization(self.convolution(hidden_NChw)))
        return activated
