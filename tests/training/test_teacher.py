"""The teacher's shapes and its refusal of other weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anomaly_ov.errors import WeightsError
from anomaly_ov.models.edgetpu import SameConv
from anomaly_ov.training.teacher import MobileNetEdgeTPU, load_teacher


def test_taps_have_the_published_widths_and_strides() -> None:
    taps = MobileNetEdgeTPU().eval()(torch.zeros(1, 3, 64, 64))
    shapes = {name: tuple(tap.shape[1:]) for name, tap in taps.items()}
    assert shapes["block3"] == (32, 16, 16)
    assert shapes["block7"] == (48, 8, 8)
    assert shapes["block11"] == (96, 4, 4)
    assert shapes["block15"] == (96, 4, 4)
    assert shapes["block19"] == (160, 2, 2)
    assert shapes["block20"] == (192, 2, 2)


def test_same_padding_puts_the_odd_pixel_last() -> None:
    conv = SameConv(1, 1, kernel=3, stride=2, relu=False)
    torch.nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, 4, 4))
    assert out.flatten().tolist() == [9.0, 6.0, 6.0, 4.0]


def test_round_trip_and_refusals(tmp_path: Path) -> None:
    state = {k: v.half() for k, v in MobileNetEdgeTPU().state_dict().items()}
    save_file(state | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "teacher.safetensors")
    teacher = load_teacher(tmp_path / "teacher.safetensors")
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with pytest.raises(WeightsError, match="no teacher"):
        load_teacher(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(WeightsError, match="not a safetensors"):
        load_teacher(tmp_path / "text.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not hold"):
        load_teacher(tmp_path / "other.safetensors")
