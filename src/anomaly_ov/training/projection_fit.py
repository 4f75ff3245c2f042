"""Fits the projection (``models/projection``) in closed form: linear maps from encoder levels to the teacher's taps.

A student that was distilled, and perhaps trained further, still knows most of what its teacher's features say, but its
own coordinates weigh it differently. Least squares over random crops brings the teacher's geometry back; there is no
step size, no order and no stopping. Only unlabelled pictures are seen. Sums are kept in float64.

Legend: N rows (cells of crops), X width of the inputs, Y width of the targets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from anomaly_ov.configuration import to_mapping
from anomaly_ov.data.hashing import sha256_file
from anomaly_ov.errors import ConfigError
from anomaly_ov.files import write_atomic
from anomaly_ov.models.config import ContextConfig, ProjectionPart
from anomaly_ov.models.encoder import Encoder, flatten_map, resample
from anomaly_ov.models.folder import digest
from anomaly_ov.models.hub import WEIGHTS_FILE
from anomaly_ov.models.model import CARD_FILE, AnomalyModel
from anomaly_ov.provenance import provenance
from anomaly_ov.training.crops import Crops
from anomaly_ov.training.distill import UNSEEN
from anomaly_ov.training.recipe import ProjectionRecipe
from anomaly_ov.training.runs import hash_of, pictures_in, refuse_leakage
from anomaly_ov.training.teacher import load_teacher

BATCH = 16
HELD_OUT = 256
"""Crops that no fit has seen, for the share of variance explained."""


class Sums:
    """What least squares needs of any number of rows: counts, sums and products of inputs and targets."""

    def __init__(self, inputs: int, targets: int) -> None:
        self._count = 0
        self._x_X = torch.zeros(inputs, dtype=torch.float64)
        self._y_Y = torch.zeros(targets, dtype=torch.float64)
        self._xx_XX = torch.zeros(inputs, inputs, dtype=torch.float64)
        self._xy_XY = torch.zeros(inputs, targets, dtype=torch.float64)
        self._yy_Y = torch.zeros(targets, dtype=torch.float64)

    def add(self, x_NX: Tensor, y_NY: Tensor) -> None:
        """More rows."""
        x_NX, y_NY = x_NX.double().cpu(), y_NY.double().cpu()
        self._count += len(x_NX)
        self._x_X += x_NX.sum(0)
        self._y_Y += y_NY.sum(0)
        self._xx_XX += x_NX.T @ x_NX
        self._xy_XY += x_NX.T @ y_NY
        self._yy_Y += y_NY.square().sum(0)

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight (Y, X) and bias (Y,), float32; ``ridge`` in units of the inputs' mean variance.

        The smallest weight where several fit equally well (an input that is constant, or a sum of others).
        """
        x_X, y_Y, xx_XX, xy_XY = self._moments()
        penalty_XX = ridge * xx_XX.diagonal().mean() * torch.eye(len(x_X), dtype=torch.float64)
        weight_XY = torch.linalg.lstsq(xx_XX + penalty_XX, xy_XY, driver="gelsd").solution
        return weight_XY.T.float().contiguous(), (y_Y - x_X @ weight_XY).float()

    def explained(self, weight_YX: Tensor, bias_Y: Tensor) -> float:
        """Share of the targets' variance that the map explains on these rows: 1 = all, below 0 = worse than none."""
        x_X, y_Y, xx_XX, xy_XY = self._moments()
        weight, bias = weight_YX.double(), bias_Y.double()
        variance = (self._yy_Y / self._count - y_Y.square()).sum()
        scatter = variance + (weight @ xx_XX * weight).sum() - 2 * (weight.T * xy_XY).sum()
        return float(1 - (scatter + (weight @ x_X + bias - y_Y).square().sum()) / variance)

    def _moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means (X,) and (Y,), covariances (X, X) and (X, Y)."""
        x_X, y_Y = self._x_X / self._count, self._y_Y / self._count
        xx_XX = self._xx_XX / self._count - torch.outer(x_X, x_X)
        return x_X, y_Y, xx_XX, self._xy_XY / self._count - torch.outer(x_X, y_Y)


def fit_projection(
    recipe: ProjectionRecipe,
    data: Path,
    model: Path,
    teacher: Path,
    out: Path,
    device: str = "cpu",
    test: Sequence[Path] = (),
) -> tuple[float, ...]:
    """Writes ``out``: ``model`` with the recipe's projection fitted, and ``projection.json`` beside its weights.

    Returns for each part the share of its taps' variance explained on crops that were not fitted. What was fitted for
    contexts of another projection is dropped. ``test``: as in ``train_expert``. Raises ``ConfigError`` for a tap or
    level that does not exist.
    """
    pictures = pictures_in(data / folder for folder in recipe.folders)
    refuse_leakage(pictures, test)
    base = AnomalyModel.from_pretrained(model)
    rows = _PairedRows(recipe, base.encoder, load_teacher(teacher), pictures, device)
    hashes = {"start": digest(model / WEIGHTS_FILE), "teacher": sha256_file(teacher), "pictures": hash_of(pictures)}
    maps = [sums.solve(recipe.ridge) for sums in rows.sums(0, recipe.crops, "fitting the projection")]
    held_out = rows.sums(UNSEEN, HELD_OUT, "measuring it")
    explained = tuple(sums.explained(*fitted) for sums, fitted in zip(held_out, maps, strict=True))
    card = model / CARD_FILE
    projected = _with_projection(base, recipe, maps)
    projected.save_pretrained(out, torch.float16, card.read_text(encoding="utf-8") if card.is_file() else "")
    record = {
        "recipe": to_mapping(recipe),
        "explained": list(explained),
        "data": hashes,
        "provenance": provenance(recipe.seed),
    }
    write_atomic(out / "projection.json", (json.dumps(record, indent=2) + "\n").encode())
    return explained


def _with_projection(
    base: AnomalyModel, recipe: ProjectionRecipe, maps: Sequence[tuple[Tensor, Tensor]]
) -> AnomalyModel:
    """``base`` with the fitted ``maps`` (weight, bias) in place of its projection."""
    parts = tuple(ProjectionPart(part.levels, len(bias)) for part, (_, bias) in zip(recipe.parts, maps, strict=True))
    model = AnomalyModel(replace(base.config, projection=parts, context=ContextConfig(), revision=""))
    model.encoder.load_state_dict(base.encoder.state_dict())
    model.expert.load_state_dict(base.expert.state_dict())
    for linear, (weight, bias) in zip(model.projection.maps, maps, strict=True):
        linear.load_state_dict({"weight": weight, "bias": bias})
    return model


class _PairedRows:
    """Encoder and teacher looking at the same crops."""

    def __init__(
        self, recipe: ProjectionRecipe, encoder: Encoder, teacher: nn.Module, pictures: Sequence[Path], device: str
    ) -> None:
        self._parts, self._device = recipe.parts, torch.device(device)
        self._encoder, self._teacher = encoder.fuse().to(self._device), teacher.to(self._device)
        size = encoder.image_size
        self._crops = Crops(pictures, size=size, seed=recipe.seed, smallest=recipe.smallest, synthetic=recipe.synthetic)
        with torch.inference_mode():
            taps = self._teacher(torch.zeros(1, 3, size, size, device=self._device))
        widths = encoder.level_widths
        for part in recipe.parts:
            unknown = [tap for tap in part.taps if tap not in taps] + [str(k) for k in part.levels if k >= len(widths)]
            if unknown:
                raise ConfigError(
                    f"projection recipe '{recipe.name}': no tap or level {unknown[0]}",
                    hint=f"taps: {', '.join(taps)}; levels: 0..{len(widths) - 1}",
                )
        self._inputs = [sum(widths[k] for k in part.levels) for part in recipe.parts]
        self._targets = [sum(taps[tap].shape[1] for tap in part.taps) for part in recipe.parts]

    def sums(self, first: int, count: int, what: str) -> list[Sums]:
        """For each part, over all cells of the crops ``first``..``first + count``; ``what``: said beside the bar."""
        from rich.console import Console
        from rich.progress import track

        sums = [Sums(x, y) for x, y in zip(self._inputs, self._targets, strict=True)]
        starts = range(first, first + count, BATCH)
        for start in track(starts, description=what, console=Console(stderr=True)):
            indices = range(start, min(start + BATCH, first + count))
            crops_NHW3 = torch.stack([self._crops[index] for index in indices])
            for one, (x_NX, y_NY) in zip(sums, self._rows(crops_NHW3), strict=True):
                one.add(x_NX, y_NY)
        return sums

    @torch.inference_mode()
    def _rows(self, crops_NHW3: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each part the inputs (N, X) and targets (N, Y) of all cells."""
        # The teacher reads pixels in -1..1, whatever the encoder is used to.
        crops_NHW3 = crops_NHW3.to(self._device)
        features = self._encoder(self._encoder.normalise(crops_NHW3))
        taps = self._teacher(crops_NHW3.permute(0, 3, 1, 2) / 127.5 - 1)
        rows = []
        for part in self._parts:
            x_BPX = torch.cat([features.levels_NPD[k] for k in part.levels], -1)
            y_BPY = torch.cat([flatten_map(resample(taps[tap], features.grid_hw)) for tap in part.taps], -1)
            rows.append((x_BPX.flatten(0, 1), y_BPY.flatten(0, 1)))
        return rows
