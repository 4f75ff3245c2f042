"""Fits the projection (``models/projection``) in closed form: linear maps from the encoder's levels to a teacher's taps.

A student that was distilled, and perhaps trained further, still knows most of what its teacher's features say, but its
own coordinates weigh it differently. Least squares over random crops brings the teacher's geometry back; there is no
step size, no order and no stopping. Only unlabelled pictures are seen. Sums are kept in float64.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly_ov.configuration import to_mapping
from anomaly_ov.data.hashing import sha256_file
from anomaly_ov.errors import ConfigError
from anomaly_ov.files import write_atomic
from anomaly_ov.models.config import ProjectionPart
from anomaly_ov.models.encoder import resample
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.provenance import provenance
from anomaly_ov.training.crops import Crops
from anomaly_ov.training.distill import UNSEEN
from anomaly_ov.training.recipe import ProjectionRecipe
from anomaly_ov.training.runs import hash_of, pictures_in, refuse_leakage
from anomaly_ov.training.teacher import load_teacher

BATCH = 16
HELD_OUT = 256
"""Crops that no sum has seen, for the share of variance explained."""


class Sums:
    """What least squares needs of any number of rows: counts, sums and products of inputs X and targets Y."""

    def __init__(self, inputs: int, targets: int) -> None:
        self._count = 0
        self._x = torch.zeros(inputs, dtype=torch.float64)
        self._y = torch.zeros(targets, dtype=torch.float64)
        self._xx = torch.zeros(inputs, inputs, dtype=torch.float64)
        self._xy = torch.zeros(inputs, targets, dtype=torch.float64)

    def add(self, x_NX: Tensor, y_NY: Tensor) -> None:
        """More rows."""
        x, y = x_NX.double().cpu(), y_NY.double().cpu()
        self._count += len(x)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._xx += x.T @ x
        self._xy += x.T @ y

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight (targets, inputs) and bias (targets,) float32; ``ridge`` in units of the inputs' mean variance."""
        x, y = self._x / self._count, self._y / self._count
        covariance = self._xx / self._count - torch.outer(x, x)
        penalty = ridge * covariance.diagonal().mean() * torch.eye(len(x), dtype=torch.float64)
        weight = torch.linalg.solve(covariance + penalty, self._xy / self._count - torch.outer(x, y))
        return weight.T.float().contiguous(), (y - x @ weight).float()


@dataclass(frozen=True)
class Explained:
    """Share of the variance of each part's taps that its linear map explains, on crops that were not fitted."""

    shares: tuple[float, ...]


def fit_projection(
    recipe: ProjectionRecipe,
    data: Path,
    model: Path,
    teacher: Path,
    out: Path,
    device: str = "cpu",
    test: Sequence[Path] = (),
) -> Explained:
    """Writes ``out``: ``model`` with the recipe's projection fitted, and ``projection.json`` beside its weights.

    ``test``: as in ``train_expert``. Raises ``ConfigError`` for a tap or level that does not exist.
    """
    pictures = pictures_in(data / folder for folder in recipe.folders)
    refuse_leakage(pictures, test)
    base = AnomalyModel.from_pretrained(model)
    fitting = _Fitting(recipe, base, teacher, pictures, device)
    card = (model / "README.md").read_text(encoding="utf-8")
    fitted = fitting.fitted()
    explained = fitting.explained(fitted)
    fitted.save_pretrained(out, dtype=torch.float16, card=card)
    record: dict[str, Any] = {
        "recipe": to_mapping(recipe),
        "explained": {" + ".join(part.taps): share for part, share in zip(recipe.parts, explained.shares, strict=True)},
        "data": {"teacher": sha256_file(teacher), "pictures": hash_of(pictures), "start": base.config.revision},
        "provenance": provenance(recipe.seed),
    }
    write_atomic(out / "projection.json", _json(record))
    return explained


class _Fitting:
    """The networks and crops of one fit."""

    def __init__(
        self, recipe: ProjectionRecipe, base: AnomalyModel, teacher: Path, pictures: Sequence[Path], device: str
    ) -> None:
        self._recipe, self._base = recipe, base
        self._device = torch.device(device)
        self._encoder = base.encoder.fuse().to(self._device)
        self._teacher = load_teacher(teacher).to(self._device)
        size = base.encoder.image_size
        self._crops = Crops(pictures, size=size, seed=recipe.seed, smallest=recipe.smallest, synthetic=recipe.synthetic)
        levels = len(base.encoder.level_widths)
        with torch.inference_mode():
            taps = self._teacher(torch.zeros(1, 3, size, size, device=self._device))
        for part in recipe.parts:
            unknown = [tap for tap in part.taps if tap not in taps] + [k for k in part.levels if k >= levels]
            if unknown:
                raise ConfigError(
                    f"projection recipe '{recipe.name}': no tap or level {unknown[0]}",
                    hint=f"taps: {', '.join(taps)}; levels: 0..{levels - 1}",
                )
        self._widths = [sum(taps[tap].shape[1] for tap in part.taps) for part in recipe.parts]

    def fitted(self) -> AnomalyModel:
        """The model with its projection."""
        inputs = [sum(self._base.encoder.level_widths[k] for k in part.levels) for part in self._recipe.parts]
        sums = [Sums(x, y) for x, y in zip(inputs, self._widths, strict=True)]
        for rows in self._rows(0, self._recipe.crops, "fitting the projection"):
            for one, (x_NX, y_NY) in zip(sums, rows, strict=True):
                one.add(x_NX, y_NY)
        parts = tuple(
            ProjectionPart(part.levels, width) for part, width in zip(self._recipe.parts, self._widths, strict=True)
        )
        model = AnomalyModel(replace(self._base.config, projection=parts, revision=""))
        model.encoder.load_state_dict(self._base.encoder.state_dict())
        model.expert.load_state_dict(self._base.expert.state_dict())
        for linear, one in zip(model.projection.maps, sums, strict=True):
            weight, bias = one.solve(self._recipe.ridge)
            linear.load_state_dict({"weight": weight, "bias": bias})
        return model

    def explained(self, model: AnomalyModel) -> Explained:
        """Of ``model``'s projection, on crops that ``fitted`` has not seen."""
        misses: list[list[Tensor]] = [[] for _ in self._widths]
        targets: list[list[Tensor]] = [[] for _ in self._widths]
        for rows in self._rows(UNSEEN, HELD_OUT, "measuring it"):
            for k, (x_NX, y_NY) in enumerate(rows):
                misses[k].append(model.projection.maps[k](x_NX.cpu()) - y_NY.cpu())
                targets[k].append(y_NY.cpu())
        pairs = [(torch.cat(miss), torch.cat(target)) for miss, target in zip(misses, targets, strict=True)]
        return Explained(
            tuple(float(1 - miss.square().sum() / (all_ - all_.mean(0)).square().sum()) for miss, all_ in pairs)
        )

    def _rows(self, first: int, count: int, what: str) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Per batch and part: inputs (n, X) and targets (n, Y) of all cells."""
        from rich.console import Console
        from rich.progress import track

        starts = range(0, count, BATCH)
        for start in track(starts, description=what, console=Console(stderr=True)):
            crops = torch.stack([self._crops[first + i] for i in range(start, min(start + BATCH, count))])
            with torch.inference_mode():
                pixels = self._encoder.normalise(crops.to(self._device))
                features = self._encoder(pixels)
                taps = self._teacher(pixels)
            yield [
                (
                    torch.cat([features.levels_NPD[k] for k in part.levels], -1).flatten(0, 1),
                    torch.cat([resample(taps[tap], features.grid_hw) for tap in part.taps], 1)
                    .flatten(2)
                    .transpose(1, 2)
                    .flatten(0, 1),
                )
                for part in self._recipe.parts
            ]


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
