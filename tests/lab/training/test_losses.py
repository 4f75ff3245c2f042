"""Losses against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from anomaly_ov_lab.training.stage1 import balanced_bce, map_loss


def test_balanced_bce_weighs_both_classes_the_same() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0])
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0])
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    assert balanced_bce(logits, labels) == pytest.approx(float((each[0] + each[1:].mean()) / 2))


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_balanced_bce_of_one_class_is_plain_bce(label: float) -> None:
    logits, labels = torch.tensor([2.0, -1.0]), torch.full((2,), label)
    assert balanced_bce(logits, labels) == pytest.approx(float(F.binary_cross_entropy_with_logits(logits, labels)))


@pytest.mark.parametrize("kind", ["bce-dice", "focal-dice"])
def test_map_loss_prefers_the_right_map(kind: str) -> None:
    target = torch.zeros(2, 4, 4)
    target[0, 1:3, 1:3] = 1
    right, wrong, none = target * 0.98 + 0.01, (1 - target) * 0.98 + 0.01, torch.full_like(target, 0.01)
    losses = [float(map_loss(m, target, kind)) for m in (right, none, wrong)]  # type: ignore[arg-type]
    assert losses == sorted(losses)
    assert losses[0] < 0.1 < losses[1]


def test_views_without_a_mask_count_nothing_and_give_finite_gradients() -> None:
    target = torch.zeros(2, 4, 4)
    target[0] = 1
    maps = torch.rand(2, 4, 4, requires_grad=True)
    alone = map_loss(maps[:1], target[:1], "bce-dice")
    unknown = target.clone()
    unknown[1] = float("nan")
    both = map_loss(maps, unknown, "bce-dice")
    assert both.item() == pytest.approx(alone.item())
    both.backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
    assert (maps.grad[1] == 0).all()
    assert map_loss(maps, torch.full_like(maps, float("nan")), "focal-dice") == 0


def test_extreme_maps_have_finite_loss_and_gradient() -> None:
    maps = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], requires_grad=True)
    loss = map_loss(maps, torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), "focal-dice")
    loss.backward()
    assert torch.isfinite(loss)
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
