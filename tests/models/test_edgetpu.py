"""edgetpu.py: TensorFlow's padding, the teacher's arithmetic, and an encoder around the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_ov.errors import ConfigError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models import backbones
from anomaly_ov.models.config import EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.edgetpu import EdgeTPU, EdgeTPUConfig, InvertedBottleneck, SameConv, config_from
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.training.teacher import MobileNetEdgeTPU

SMALL: dict[str, Any] = {
    "embedding_size": 4,
    "stem_size": 6,
    "hidden_sizes": [8, 12, 16],
    "depths": [2, 1, 3],
    "strides": [2, 2, 1],
    "kernels": [3, 5, 3],
    "fused": 1,
    "first_expansion": 3,
    "expansion": 2,
}


def encoder(**changes: Any) -> Encoder:
    settings: dict[str, Any] = {"levels": (1, 2), "final": 3, "image_size": 32, "grid_hw": (4, 4)}
    backbone = {"model_type": "mobilenet_edgetpu"} | SMALL
    torch.manual_seed(0)
    return Encoder(EncoderConfig(backbone=backbone, **(settings | changes)))


def same_padded(conv: SameConv, x: Tensor) -> Tensor:
    """TensorFlow's rule, written out: ceil(side / stride) cells come out, an odd pixel goes to the bottom right."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
    (top, bottom), (left, right) = ((pad // 2, pad - pad // 2) for pad in total)
    padded = F.pad(x, (left, right, top, bottom))
    return F.conv2d(padded, conv.weight, conv.bias, conv.stride, groups=conv.groups)


# --- the blocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 9), (5, 6), (1, 1), (2, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("groups", [1, 4])
def test_padding_is_tensorflows_at_every_size(size: tuple[int, int], stride: int, kernel: int, groups: int) -> None:
    conv = SameConv(4, 4, kernel, stride, groups=groups, relu=False).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    torch.testing.assert_close(conv(x), same_padded(conv, x), rtol=1e-12, atol=1e-12)
    assert conv(x).shape[-2:] == tuple(-(-side // stride) for side in size)


def test_only_what_is_padded_unevenly_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    padded = []
    pad = F.pad

    def noted(x: Tensor, pads: tuple[int, ...]) -> Tensor:
        padded.append(pads)
        return pad(x, pads)

    monkeypatch.setattr(F, "pad", noted)
    SameConv(3, 3, kernel=3)(torch.zeros(1, 3, 8, 8))
    SameConv(3, 3, kernel=5)(torch.zeros(1, 3, 7, 8))
    SameConv(3, 3, kernel=3, stride=2)(torch.zeros(1, 3, 7, 7))
    assert padded == []
    SameConv(3, 3, kernel=3, stride=2)(torch.zeros(1, 3, 8, 8))
    assert padded == [(0, 1, 0, 1)]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_block_expands_filters_and_projects(fused: bool, residual: bool) -> None:
    block = InvertedBottleneck(4, 4, expansion=3, kernel=3, stride=1, fused=fused, residual=residual).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    before = x.clone()
    y = same_padded(block.expand, x).relu()
    if not fused:
        assert block.dw is not None
        y = same_padded(block.dw, y).relu()
    y = same_padded(block.project, y)  # linear: nothing is cut off here
    assert (y < 0).any()
    torch.testing.assert_close(block(x), x + y if residual else y)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("inputs", "groups", "variance"), [(64, 1, 2 / (64 * 9)), (384, 384, 2 / (384 * 9))])
def test_initial_weights_are_those_of_he_and_biases_are_zero(inputs: int, groups: int, variance: float) -> None:
    conv = SameConv(inputs, inputs, kernel=3, groups=groups)
    assert float(conv.weight.detach().std()) == pytest.approx(variance**0.5, rel=0.05)
    assert not conv.bias.any()  # type: ignore[union-attr]


# --- the network -------------------------------------------------------------------------------------------------


def test_the_default_is_the_published_network() -> None:
    """Blocks, names and numbers are the teacher's, whose weights file holds the published ones."""
    network, teacher = EdgeTPU(EdgeTPUConfig()), MobileNetEdgeTPU()
    names = {"stem.0": "stem", "stem.1": "stem2"}
    before = 0
    for stage, depth in enumerate(network.config.depths):
        names |= {f"stages.{stage}.{block}": f"blocks.{before + block}" for block in range(depth)}
        before += depth
    state = teacher.state_dict()
    renamed = {
        name: state[theirs + name.removeprefix(own)]
        for name in network.state_dict()
        for own, theirs in names.items()
        if name.startswith(own + ".")
    }
    network.load_state_dict(renamed)
    assert len(renamed) == len(state)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_543_952  # without the head
    with torch.no_grad():
        taps = teacher(pixels := torch.rand(1, 3, 65, 78))
        assert torch.equal(network(pixel_values=pixels), taps["block20"])
        half = network.stages[1](network.stages[0](network.stem(pixels)))
    assert torch.equal(half, taps["block7"])


def test_each_stage_is_fused_as_it_says() -> None:
    network = EdgeTPU(config_from(SMALL | {"fused": [False, True, False]}))
    assert [stage[0].dw is None for stage in network.stages] == [False, True, False]  # type: ignore[index]
    assert EdgeTPUConfig(fused=0).fused_stages == (False,) * 6
    assert EdgeTPUConfig().fused_stages == (True, True, False, False, False, False)


def test_only_the_first_block_of_a_stage_forgets_its_input() -> None:
    network = EdgeTPU(config_from(SMALL | {"hidden_sizes": [4, 4, 4], "strides": [1, 1, 1]}))
    marks = [[block.residual for block in stage] for stage in network.stages]  # type: ignore[attr-defined]
    assert marks == [[False, True], [False], [False, True, True]]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"width": 3}, "EdgeTPUConfig has no field 'width'"),
        ({"embedding_size": 0}, r"embedding_size = 0 .*range"),
        ({"stem_size": 4097}, r"stem_size = 4097 .*range"),
        ({"hidden_sizes": [8, 12]}, r"depths = \(2, 1, 3\) must hold one number per stage"),
        ({"hidden_sizes": []}, "hidden_sizes"),
        ({"hidden_sizes": 8}, "hidden_sizes = 8"),
        ({"hidden_sizes": [8, 12.5, 16]}, r"hidden_sizes = \(8, 12.5, 16\) is out of range"),
        ({"depths": [2, 1, 0]}, "depths"),
        ({"depths": [2, 1, 65]}, "depths"),
        ({"strides": [2, 2, 5]}, "strides"),
        ({"kernels": [3, 3, 10]}, "kernels"),
        ({"kernels": [3, 3]}, "kernels"),
        ({"first_expansion": 17}, "first_expansion"),
        ({"first_expansion": [8, 8, 8]}, "first_expansion"),
        ({"expansion": [4]}, "expansion"),
        ({"embedding_size": [4]}, "embedding_size"),
        ({"stem_size": [4]}, "stem_size"),
        ({"expansion": True}, "expansion = True"),
        ({"fused": 4}, "fused = 4 says nothing about 3 stages"),
        ({"fused": -1}, "fused = -1"),
        ({"fused": True}, "fused = True"),
        ({"fused": [True, False]}, "fused"),
        ({"fused": [1, 0, 0]}, "fused"),
        (
            {"hidden_sizes": [4] * 17, "depths": [1] * 17, "strides": [1] * 17, "kernels": [3] * 17},
            "1?6 stages|17|4, 4",
        ),
    ],
)
def test_bad_fields(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        backbones.build({"model_type": "mobilenet_edgetpu"} | SMALL | fields, 1)


# --- the encoder -------------------------------------------------------------------------------------------------


def test_hidden_states_are_the_stem_and_the_stages() -> None:
    wanted = encoder(levels=(0, 1, 2), final=3)
    network = wanted.network
    assert isinstance(network, EdgeTPU)
    pixels = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        features = wanted(pixels)
        state = network.stem(pixels)
        for kept, stage in zip((*features.levels_NPD, features.final_NPD), (*network.stages, None), strict=True):
            pooled = F.adaptive_avg_pool2d(state, (4, 4))
            torch.testing.assert_close(kept, pooled.flatten(2).transpose(1, 2))
            state = state if stage is None else stage(state)
    assert wanted.level_widths == (4, 8, 12)
    assert (wanted.width, wanted.grid_hw, wanted.convolutional) == (16, (4, 4), True)


@pytest.mark.parametrize(("levels", "final", "stages"), [((0,), 0, 1), ((1,), 2, 2), ((1, 2), 3, 3), ((3,), 1, 3)])
def test_nothing_deeper_than_needed_is_built(levels: tuple[int, ...], final: int, stages: int) -> None:
    cut = encoder(levels=levels, final=final)
    assert isinstance(cut.network, EdgeTPU)
    assert len(cut.network.stages) == cut.blocks == stages
    whole = encoder(levels=(1, 2), final=3)
    cut.load_state_dict({name: value for name, value in whole.state_dict().items() if name in cut.state_dict()})
    pixels = torch.rand(1, 3, 32, 32)
    deepest = cut(pixels).final_NPD if final else None
    if final == 3:
        torch.testing.assert_close(deepest, whole(pixels).final_NPD)
    elif final:
        torch.testing.assert_close(deepest, whole(pixels).levels_NPD[final - 1])


def test_one_hidden_state_too_many_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden state 4 asked for, but mobilenet_edgetpu has 3 blocks"):
        encoder(final=4)


def test_there_is_nothing_to_fuse() -> None:
    plain = encoder()
    assert plain.fuse() is plain


def test_a_saved_model_comes_back_whole_and_in_channels_last_order(tmp_path: Path) -> None:
    before = encoder()
    config = ModelConfig(
        encoder=before.config,
        expert=expert_for(before, ExpertConfig(hidden=8)),
        views=ViewsConfig(base_size=32),
    )
    model = AnomalyModel(config)
    model.encoder.load_state_dict(before.state_dict())
    model.save_pretrained(tmp_path)
    after = AnomalyModel.from_pretrained(tmp_path).encoder
    pixels = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(after(pixels).final_NPD, before(pixels).final_NPD)
    convs = [module for module in after.network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 18
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convs)
