"""resnet.py: the same names, shapes and outputs as transformers' ResNetModel."""

from __future__ import annotations

import pytest
import torch

from anomaly_ov.errors import ConfigError
from anomaly_ov.models.resnet import ResNet, ResNetConfig, config_from

SMALL = {"embedding_size": 8, "hidden_sizes": [8, 12, 16], "depths": [1, 2, 1]}


@pytest.mark.parametrize(
    "extra",
    [
        {"layer_type": "basic"},
        {"layer_type": "basic", "downsample_in_first_stage": True, "hidden_act": "silu"},
        {"layer_type": "bottleneck", "hidden_act": "silu"},
        {"layer_type": "bottleneck", "downsample_in_bottleneck": True, "downsample_in_first_stage": True},
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_equal_to_transformers(extra: dict[str, object], training: bool) -> None:
    from transformers.models.resnet import ResNetConfig as TheirConfig
    from transformers.models.resnet import ResNetModel

    theirs = ResNetModel(TheirConfig(**SMALL, **extra)).train(training).double()
    ours = ResNet(config_from(SMALL | extra)).train(training).double()
    for name, tensor in theirs.named_buffers():  # untouched running statistics would hide a wrong norm
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, 50, 64, dtype=torch.float64)
    want = theirs(pixels).last_hidden_state
    torch.testing.assert_close(ours(pixels), want, rtol=1e-12, atol=1e-12)
    if training:
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_defaults_are_theirs() -> None:
    from transformers.models.resnet import ResNetConfig as TheirConfig

    theirs = TheirConfig()
    for name, value in vars(ResNetConfig()).items():
        assert value == (tuple(getattr(theirs, name)) if isinstance(value, tuple) else getattr(theirs, name))


def test_initial_weights_have_the_variance_of_he() -> None:
    conv = ResNet(config_from(SMALL | {"embedding_size": 64})).embedder.embedder.convolution
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"hiden_sizes": [8]}, "no field 'hiden_sizes'"),
        ({"hidden_sizes": [8, 16]}, "one of each per stage"),
        ({"hidden_sizes": [8], "depths": [0]}, ">= 1"),
        ({"hidden_sizes": [8.5], "depths": [1]}, "whole numbers"),
        ({"layer_type": "wide"}, "'wide'"),
        ({"hidden_act": "eval"}, "'eval'"),
    ],
)
def test_bad_fields(fields: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config_from(fields)
