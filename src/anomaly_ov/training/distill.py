"""Distilling a compact encoder: every level of the student regresses standardised taps of a frozen teacher.

The student is an ordinary ``Encoder``; one linear map per level, dropped afterwards, predicts the teacher's taps on
the student's grid. Taps are standardised per channel over the first crops, so that each counts alike; the loss is
their mean squared error, that is, one minus the variance explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from anomaly_ov.errors import ConfigError
from anomaly_ov.models.encoder import Encoder, resample


@dataclass(frozen=True)
class DistillConfig:
    """``method``: ``levels`` regresses taps through linear maps, whatever the student is; ``blockwise`` and ``whole``
    (``training.blockwise``) teach a network of the teacher's own kind, block by block or end to end.

    ``taps``: with ``levels``, for each of the student's levels the teacher's maps that it regresses (a level may have
    none). ``statistics_crops``: crops over which the teacher's activations are standardised.
    """

    taps: tuple[tuple[str, ...], ...] = ()
    statistics_crops: int = 512
    method: Literal["levels", "blockwise", "whole"] = "levels"

    def __post_init__(self) -> None:
        if self.statistics_crops < 1:
            raise ValueError("statistics_crops must be >= 1")
        if self.method == "levels" and not any(self.taps):
            raise ValueError("taps must name at least one map of the teacher")
        if self.method != "levels" and self.taps:
            raise ValueError(f"taps are for method: levels; {self.method} takes none")


UNSEEN = 2**40
"""Sample indices from here on are never trained on: tap statistics and held-out figures use them."""


def require_teacher_pixels(encoder: Encoder) -> None:
    """Raises ``ConfigError`` unless the encoder normalises pixels as the teacher reads them."""
    if {*encoder.config.mean, *encoder.config.std} != {0.5}:
        raise ConfigError("the teacher reads pixels in -1..1", hint="leave encoder.mean and encoder.std at 0.5")


def frozen(teacher: nn.Module, device: torch.device) -> nn.Module:
    """The teacher, in place, ready for ``run_frozen``."""
    # Pure bf16 is what the matrix units of CPUs and GPUs are fast at; the targets lose nothing that matters.
    moved: nn.Module = teacher.to(device, torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


@torch.no_grad()
def run_frozen(teacher: nn.Module, pixels_N3HW: Tensor) -> Mapping[str, Tensor]:
    """The teacher's maps (N, C, h, w) by name, bfloat16, whatever precision the student is run in."""
    with torch.autocast(pixels_N3HW.device.type, enabled=False):
        maps: Mapping[str, Tensor] = teacher(pixels_N3HW.bfloat16())
        return maps


class Student(nn.Module):
    """Encoder plus the linear maps that predict the teacher's standardised taps from its levels."""

    tap_mean: Tensor
    tap_std: Tensor

    def __init__(self, encoder: Encoder, tap_widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(
            nn.Linear(width, taps) if taps else nn.Identity()
            for width, taps in zip(encoder.level_widths, tap_widths, strict=True)
        )
        self.register_buffer("tap_mean", torch.zeros(sum(tap_widths)))
        self.register_buffer("tap_std", torch.ones(sum(tap_widths)))


class Distillation:
    """The task. ``teacher``: frozen, pixels (N, 3, H, W) in -1..1 -> named maps (N, C, h, w); run in bf16."""

    def __init__(
        self, encoder: Encoder, teacher: nn.Module, config: DistillConfig, crops: Dataset[Tensor], device: str = "cpu"
    ) -> None:
        if len(config.taps) != len(encoder.level_widths):
            raise ConfigError(
                f"distill.taps has {len(config.taps)} entries, the encoder {len(encoder.level_widths)} levels",
                hint="give one list per level; it may be empty",
            )
        require_teacher_pixels(encoder)
        self._config, self._crops, self._device = config, crops, torch.device(device)
        self._teacher = frozen(teacher, self._device)
        self._widths = self._tap_widths(encoder.config.image_size)
        self.module: nn.Module = Student(encoder, self._widths).to(self._device).train()
        self._measure_taps()

    def samples(self) -> Dataset[Tensor]:
        return self._crops

    def collate(self, items: list[Tensor]) -> Tensor:
        return torch.stack(items)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        assert isinstance(self.module, Student)
        pixels = self.module.encoder.normalise(batch.to(self._device))
        features = self.module.encoder(pixels)
        targets = (self._taps(pixels, features.grid_hw) - self.module.tap_mean) / self.module.tap_std
        parts: dict[str, Tensor] = {}
        for k, target in enumerate(torch.split(targets, self._widths, dim=2)):
            if self._widths[k]:
                parts[f"level{k}"] = F.mse_loss(self.module.heads[k](features.levels_NPD[k]).float(), target)
        return {"loss": torch.stack(list(parts.values())).mean()} | parts

    def _tap_widths(self, size: int) -> list[int]:
        maps = run_frozen(self._teacher, torch.zeros(1, 3, size, size, device=self._device))
        unknown = {name for names in self._config.taps for name in names} - set(maps)
        if unknown:
            raise ConfigError(
                f"distill.taps: the teacher has no map {', '.join(sorted(unknown))}", hint=f"it has {', '.join(maps)}"
            )
        return [sum(maps[name].shape[1] for name in names) for names in self._config.taps]

    def _taps(self, pixels: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """All taps on the student's grid, (N, P, sum of widths), float32."""
        maps = run_frozen(self._teacher, pixels)
        resampled = [resample(maps[name].float(), grid_hw) for names in self._config.taps for name in names]
        return torch.cat(resampled, dim=1).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def _measure_taps(self) -> None:
        assert isinstance(self.module, Student)
        encoder = self.module.encoder
        batches = []
        for start in range(0, self._config.statistics_crops, 32):
            crops = torch.stack([self._crops[UNSEEN + start + k] for k in range(32)])
            batches.append(self._taps(encoder.normalise(crops.to(self._device)), encoder.grid_hw).flatten(0, 1))
        taps = torch.cat(batches)
        self.module.tap_mean.copy_(taps.mean(0))
        self.module.tap_std.copy_(taps.std(0).clamp_min(1e-3))
