"""efficientnet.py: the published sizes, TensorFlow's padding, and an encoder around the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.errors import ConfigError
from anomaly_ov.models import backbones
from anomaly_ov.models.config import EncoderConfig
from anomaly_ov.models.efficientnet import (
    Bottleneck,
    ConvLayer,
    EfficientNetLite,
    EfficientNetLiteConfig,
    config_from,
)
from anomaly_ov.models.encoder import Encoder

SMALL = {"width": 0.25, "depth": 0.5}  # 1, 1, 1, 2, 2, 2 and 1 blocks
LITE2 = {"width": 1.1, "depth": 1.2}


def encoder(seed: int = 0, **changes: Any) -> Encoder:
    settings: dict[str, Any] = {"levels": (3, 5), "final": 7, "image_size": 64, "grid_hw": (4, 4)}
    backbone = {"model_type": "efficientnet_lite"} | SMALL
    torch.manual_seed(seed)
    made = Encoder(EncoderConfig(backbone=backbone, **(settings | changes)))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # untouched statistics would hide a norm that is left out
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return made


def same_padded(layer: ConvLayer, x: Tensor) -> Tensor:
    """TensorFlow's rule, written out: ceil(side / stride) cells come out, an odd pixel goes to the bottom right."""
    conv = layer.convolution
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
    (top, bottom), (left, right) = ((pad // 2, pad - pad // 2) for pad in total)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), conv.weight, None, conv.stride, groups=conv.groups)


def normed(layer: ConvLayer, x: Tensor) -> Tensor:
    norm = layer.normalization
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "depth", "widths", "repeats"),
    [
        (1.0, 1.0, (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
        (1.0, 1.1, (16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
        (1.1, 1.2, (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
        (1.2, 1.4, (24, 32, 48, 96, 136, 232, 384), (1, 3, 3, 5, 5, 6, 1)),
        (1.4, 1.8, (24, 32, 56, 112, 160, 272, 448), (1, 4, 4, 6, 6, 8, 1)),
    ],
)
def test_the_published_sizes(width: float, depth: float, widths: tuple[int, ...], repeats: tuple[int, ...]) -> None:
    stages = EfficientNetLiteConfig(width, depth).stages
    assert tuple(stage.width for stage in stages) == widths
    assert tuple(stage.repeats for stage in stages) == repeats


def test_parameters_of_lite2_without_its_head() -> None:
    with torch.device("meta"):
        network = EfficientNetLite(config_from(LITE2))
    assert len(network.blocks) == 21
    head = 352 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert sum(parameter.numel() for parameter in network.parameters()) + head == 6_092_072
    assert sum(int(block.residual) for block in network.blocks) == 14  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"widths": 1}, "no field 'widths'"),
        ({"width": 0}, "width = 0 is out of range"),
        ({"width": 9}, "width = 9"),
        ({"width": float("nan")}, "width = nan"),
        ({"depth": True}, "depth = True"),
        ({"depth": "1.2"}, "depth = '1.2'"),
        ({"depth": [1, 2]}, "depth"),
    ],
)
def test_bad_fields(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        backbones.build({"model_type": "efficientnet_lite"} | fields, 1)


# --- arithmetic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 9), (5, 6), (1, 1), (2, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("activation", [False, True])
def test_a_layer_pads_as_tensorflow_does(size: tuple[int, int], stride: int, kernel: int, activation: bool) -> None:
    layer = ConvLayer(4, 4, kernel, stride, groups=4, activation=activation).double().eval()
    x = 20 * torch.randn(2, 4, *size, dtype=torch.float64)
    want = normed(layer, same_padded(layer, x))
    torch.testing.assert_close(layer(x), want.clamp(0, 6) if activation else want, rtol=1e-12, atol=1e-12)
    assert layer(x).shape[-2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize("expansion", [1, 3])
@pytest.mark.parametrize(("wide", "stride", "residual"), [(4, 1, True), (4, 2, False), (6, 1, False)])
def test_a_block_expands_filters_and_projects(expansion: int, wide: int, stride: int, residual: bool) -> None:
    block = Bottleneck(4, wide, 3, stride, expansion).double().eval()
    x = torch.randn(1, 4, 6, 7, dtype=torch.float64)
    before, y = x.clone(), x
    if expansion > 1:
        assert isinstance(block.expand, ConvLayer)
        y = normed(block.expand, same_padded(block.expand, y)).clamp(0, 6)
    y = normed(block.depthwise, same_padded(block.depthwise, y)).clamp(0, 6)
    y = normed(block.project, same_padded(block.project, y))  # linear: nothing is cut off here
    torch.testing.assert_close(block(x), x + y if residual else y)
    assert torch.equal(x, before)


def test_initial_weights_have_the_variance_of_the_fan_out() -> None:
    full, depthwise = ConvLayer(16, 256, kernel=3), ConvLayer(512, 512, kernel=5, groups=512)
    assert float(full.convolution.weight.detach().std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.05)
    assert float(depthwise.convolution.weight.detach().std()) == pytest.approx((2 / 25) ** 0.5, rel=0.05)


# --- the encoder -------------------------------------------------------------------------------------------------


def test_hidden_states_are_the_stem_and_the_blocks() -> None:
    wanted = encoder(levels=(0, 1, 4), final=10)
    network = wanted.network
    assert isinstance(network, EfficientNetLite)
    assert len(network.blocks) == wanted.blocks == 10
    pixels = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        features = wanted(pixels)
        states = [network.stem(pixels)]
        for block in network.blocks:
            states.append(block(states[-1]))
    kept = (*features.levels_NPD, features.final_NPD)
    for tokens, index in zip(kept, (0, 1, 4, 10), strict=True):
        state = states[index]
        pooled = F.adaptive_avg_pool2d(state, (min(4, state.shape[-2]), min(4, state.shape[-1])))
        if pooled.shape[-2:] != (4, 4):
            pooled = F.interpolate(pooled, size=(4, 4), mode="bilinear", align_corners=False)
        torch.testing.assert_close(tokens, pooled.flatten(2).transpose(1, 2))
    assert wanted.level_widths == (32, network.config.hidden_sizes[0], network.config.hidden_sizes[3])
    assert wanted.convolutional


def test_lite2_on_views_of_320_pixels() -> None:
    settings: dict[str, Any] = {
        "image_size": 320,
        "grid_hw": (20, 20),
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
    }
    backbone = {"model_type": "efficientnet_lite"} | LITE2
    made = Encoder(EncoderConfig(backbone=backbone, levels=(13, 15, 18), final=21, **settings))
    assert (made.level_widths, made.width, made.blocks, made.patch) == ((120, 120, 208), 352, 21, None)
    pixels = torch.randint(0, 256, (1, 320, 320, 3), dtype=torch.uint8)
    normalised = made.normalise(pixels)
    torch.testing.assert_close(normalised, (pixels.permute(0, 3, 1, 2).float() - 127) / 128)
    with torch.inference_mode():
        features = made(normalised)
    assert [tuple(level.shape) for level in features.levels_NPD] == [(1, 400, 120), (1, 400, 120), (1, 400, 208)]
    assert features.final_NPD.shape == (1, 400, 352)


def test_one_hidden_state_too_many_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden state 11 asked for, but efficientnet_lite has 10 blocks"):
        encoder(final=11)


def test_every_batch_norm_is_folded() -> None:
    plain = encoder()
    fused = plain.fuse()
    assert not [module for module in fused.modules() if isinstance(module, nn.BatchNorm2d)]
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        want, found = plain(pixels), fused(pixels)
    torch.testing.assert_close(found.final_NPD, want.final_NPD, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_it_needs_no_transformers() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom anomaly_ov.models import backbones\n"
        "backbones.build({'model_type': 'efficientnet_lite', 'width': 0.25}, 3)\n"
        "print(sorted(name for name in sys.modules if name.startswith('transformers.models')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
