"""Distilling a network of the teacher's own kind, block by block or end to end.

Block by block: each group of the student's blocks reads what the teacher's blocks there read and regresses what they
give, so that no gradient crosses groups. Every group is a small problem with a full signal from the first step; minutes
explain more of the teacher than hours end to end. What errors do to each other is then left to a short run end to end.

A group is one block where student and teacher have equally many in the stage, else the whole stage; the first reads
pixels and includes the stem. Errors are divided by the variance of what there is to explain, so that each loss is the
share that is left unexplained, 1 = nothing learnt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from anomaly_ov.errors import ConfigError
from anomaly_ov.files import write_atomic
from anomaly_ov.models.edgetpu import EdgeTPU, EdgeTPUConfig
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.training.distill import UNSEEN, DistillConfig, frozen, require_teacher_pixels, run_frozen
from anomaly_ov.training.teacher import MobileNetEdgeTPU

HELD_OUT = "held_out.json"
_BATCH = 32
_LEAST_VARIANCE = 1e-4  # a channel that never moves explains nothing and must not divide by nothing


@dataclass(frozen=True)
class Group:
    """Blocks ``first``..``last - 1`` of the student's stage ``stage`` (0-based) and what they learn.

    ``source``: the teacher's block whose output they read, None = pixels, through the stem. ``target``: the one whose
    output they regress. ``residual``: what there is to explain is the difference of the two.
    """

    name: str
    stage: int
    first: int
    last: int
    source: int | None
    target: int

    @property
    def residual(self) -> bool:
        """Whether this is one block that adds to its input."""
        return self.last - self.first == 1 and self.first > 0


class Pupil(nn.Module):
    """The encoder and the variances, concatenated, by which its errors are divided; they travel with checkpoints."""

    variances: Tensor

    def __init__(self, encoder: Encoder, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("variances", torch.ones(channels))


class Blockwise:
    """The task. ``encoder``: its backbone is a ``mobilenet_edgetpu`` of the teacher's widths, at most as deep.

    ``config.method``: ``blockwise``, or ``whole`` = the encoder's levels and final regress the teacher's stage ends.
    Raises ``ConfigError`` naming the field of the backbone that does not go with the teacher.
    """

    def __init__(
        self,
        encoder: Encoder,
        teacher: MobileNetEdgeTPU,
        config: DistillConfig,
        crops: Dataset[Tensor],
        device: str = "cpu",
    ) -> None:
        require_teacher_pixels(encoder)
        shape = _require_fit(encoder, teacher.config)
        self._ends = stage_ends(teacher.config.depths)
        self._whole = config.method == "whole"
        self._stages = sorted({*encoder.config.levels, encoder.config.final} - {0})
        self._groups = groups(shape.depths[: encoder.blocks], teacher.config.depths)
        self._crops, self._device, self._count = crops, torch.device(device), config.statistics_crops
        self._teacher = frozen(teacher, self._device)
        parts = self._stages if self._whole else [group.stage + 1 for group in self._groups]
        self._widths = [shape.hidden_sizes[stage - 1] for stage in parts]
        self.module: nn.Module = Pupil(encoder, sum(self._widths)).to(self._device).train()
        self._measure_variances()

    def samples(self) -> Dataset[Tensor]:
        return self._crops

    def collate(self, items: list[Tensor]) -> Tensor:
        return torch.stack(items)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        assert isinstance(self.module, Pupil)
        pixels = self.module.encoder.normalise(batch.to(self._device))
        taught = self._taught(pixels)
        if self._whole:
            errors = self._errors_of_stages(self.module.encoder, pixels, taught, self._stages)
        else:
            errors = self._errors_of_groups(self.module.encoder, pixels, taught)
        scales = torch.split(self.module.variances, self._widths)
        parts = {name: (error / scale).mean() for (name, error), scale in zip(errors.items(), scales, strict=True)}
        return {"loss": torch.stack(list(parts.values())).sum()} | parts

    @torch.no_grad()
    def unexplained(self, encoder: Encoder) -> dict[str, float]:
        """For each stage the share of the teacher left, end to end, over crops that no training sees: 1 = all of it."""
        encoder.eval()
        stages = range(1, encoder.blocks + 1)
        sums: dict[str, Tensor] = {}
        moments = _Moments()
        for pixels in self._unseen(encoder):
            taught = self._taught(pixels)
            for name, error in self._errors_of_stages(encoder, pixels, taught, stages).items():
                sums[name] = sums.get(name, torch.zeros(())) + error.double().cpu() * len(pixels)
            moments.add([taught[self._ends[stage]] for stage in stages])
        shares = zip(sums.items(), moments.variances(), strict=True)
        return {name: float((total / self._count / variance).mean()) for (name, total), variance in shares}

    def _errors_of_groups(self, encoder: Encoder, pixels: Tensor, taught: Sequence[Tensor]) -> dict[str, Tensor]:
        """Mean squared error of each channel (C,) by group; each sees the teacher's activation, not its neighbour's."""
        network = _network(encoder)
        found = {}
        for group in self._groups:
            y = network.stem(pixels) if group.source is None else self._readable(taught[group.source], pixels)
            for block in network.stages[group.stage][group.first : group.last]:  # type: ignore[index]
                y = block(y)
            found[group.name] = _squared_error(y, taught[group.target])
        return found

    def _errors_of_stages(
        self, encoder: Encoder, pixels: Tensor, taught: Sequence[Tensor], stages: Sequence[int]
    ) -> dict[str, Tensor]:
        """Mean squared error of each channel (C,) by stage, end to end."""
        network = _network(encoder)
        found = {}
        y = network.stem(pixels)
        for stage, blocks in enumerate(network.stages, start=1):
            y = blocks(y)
            if stage in stages:
                found[f"stage{stage}"] = _squared_error(y, taught[self._ends[stage]])
        return found

    def _readable(self, x: Tensor, pixels: Tensor) -> Tensor:
        """The teacher's bfloat16 for a student that computes in it, too, else in the student's own precision."""
        return x if torch.is_autocast_enabled(self._device.type) else x.to(pixels.dtype)

    def _taught(self, pixels: Tensor) -> list[Tensor]:
        """The outputs of the teacher's blocks."""
        return list(run_frozen(self._teacher, pixels).values())

    def _unseen(self, encoder: Encoder) -> Iterator[Tensor]:
        """Pixels of the crops that only measurements see, batch by batch."""
        for start in range(0, self._count, _BATCH):
            indices = range(start, min(start + _BATCH, self._count))
            crops = torch.stack([self._crops[UNSEEN + index] for index in indices])
            yield encoder.normalise(crops.to(self._device))

    @torch.no_grad()
    def _measure_variances(self) -> None:
        assert isinstance(self.module, Pupil)
        moments = _Moments()
        for pixels in self._unseen(self.module.encoder):
            taught = self._taught(pixels)
            if self._whole:
                moments.add([taught[self._ends[stage]] for stage in self._stages])
            else:
                moments.add([_to_explain(group, taught) for group in self._groups])
        self.module.variances.copy_(torch.cat(moments.variances()))


class _Moments:
    """Variance of each channel of several maps (N, C, h, w), over any number of batches of equally many cells."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._cells: list[int] = []

    def add(self, maps: Sequence[Tensor]) -> None:
        found = [torch.stack([x.double().sum((0, 2, 3)), x.double().square().sum((0, 2, 3))]).cpu() for x in maps]
        cells = [x[:, 0].numel() for x in maps]
        self._sums = [a + b for a, b in zip(self._sums, found, strict=True)] if self._sums else found
        self._cells = [a + b for a, b in zip(self._cells, cells, strict=True)] if self._cells else cells

    def variances(self) -> list[Tensor]:
        means = [total / cells for total, cells in zip(self._sums, self._cells, strict=True)]
        return [(square - mean.square()).clamp_min(_LEAST_VARIANCE) for mean, square in means]


def groups(student: Sequence[int], teacher: Sequence[int]) -> tuple[Group, ...]:
    """What learns together, for depths of the student and of the teacher by stage; names count from 1."""
    found: list[Group] = []
    before = 0
    for stage, depth in enumerate(student):
        deep = teacher[stage]
        if depth == deep:
            for k in range(depth):
                source = before + k - 1 if before + k else None
                found.append(Group(f"stage{stage + 1}.block{k + 1}", stage, k, k + 1, source, before + k))
        else:
            source = before - 1 if before else None
            found.append(Group(f"stage{stage + 1}", stage, 0, depth, source, before + deep - 1))
        before += deep
    return tuple(found)


def stage_ends(depths: Sequence[int]) -> dict[int, int]:
    """Stage (from 1) -> the teacher's last block in it (numbered through, from 0)."""
    return {stage: sum(depths[:stage]) - 1 for stage in range(1, len(depths) + 1)}


def write_held_out(folder: Path, unexplained: Mapping[str, float]) -> None:
    """``held_out.json`` of a run: the share of the teacher's variance left unexplained, by stage."""
    write_atomic(folder / HELD_OUT, (json.dumps({"unexplained": dict(unexplained)}, indent=2) + "\n").encode())


def read_held_out(folder: Path) -> dict[str, float] | None:
    """What ``write_held_out`` wrote; None where a run measures no such thing."""
    path = folder / HELD_OUT
    if not path.is_file():
        return None
    shares: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["unexplained"]
    return shares


def _squared_error(y: Tensor, target: Tensor) -> Tensor:
    return (y.float() - target.float()).square().mean((0, 2, 3))


def _to_explain(group: Group, taught: Sequence[Tensor]) -> Tensor:
    target = taught[group.target].float()
    if group.residual and group.source is not None:
        return target - taught[group.source].float()
    return target


def _network(encoder: Encoder) -> EdgeTPU:
    assert isinstance(encoder.network, EdgeTPU)
    return encoder.network


def _require_fit(encoder: Encoder, teacher: EdgeTPUConfig) -> EdgeTPUConfig:
    """The student's shape, which must give maps of the teacher's sizes with no more blocks."""
    if not isinstance(encoder.network, EdgeTPU):
        raise ConfigError(
            f"encoder.backbone: model_type = '{encoder.model_type}' cannot learn block by block or stage by stage",
            hint=f"use {EdgeTPUConfig.model_type}, or distill.method: levels",
        )
    shape = encoder.network.config
    for name in ("hidden_sizes", "strides"):
        value, allowed = getattr(shape, name), getattr(teacher, name)
        if value != allowed[: len(value)]:
            raise ConfigError(
                f"encoder.backbone: {name} = {list(value)} are not the teacher's", hint=f"use {list(allowed)}"
            )
    if any(mine > most for mine, most in zip(shape.depths, teacher.depths, strict=False)):
        raise ConfigError(
            f"encoder.backbone: depths = {list(shape.depths)} are more than the teacher's",
            hint=f"at most {list(teacher.depths)}",
        )
    if encoder.config.final == 0 and not any(encoder.config.levels):
        raise ConfigError("encoder: levels and final are all 0, before the first stage", hint="name at least one stage")
    return shape
