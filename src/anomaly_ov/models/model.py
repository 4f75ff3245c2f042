"""The detector: an encoder and an expert, and the folder that holds them.

A model folder is ``config.json`` (a ``ModelConfig``), ``model.safetensors`` (fp16 or float32) and ``README.md`` (the
model card). ``tiny`` and the released sizes are the same class. Loading is strict: every name and shape must fit
before a weight is read, and the weights must be those that ``config.json`` was saved with.

Not here: turning maps into regions and scores into decisions (``inspector``), released ``.pth`` files (``convert``).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import ConfigError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.models import weights
from anomaly_ov.models.config import ModelConfig
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.expert import Expert, ExpertOutput
from anomaly_ov.models.features import Features
from anomaly_ov.models.folder import digest, is_derived, read_config, with_own_weights
from anomaly_ov.models.hub import CONFIG_FILE, GRAPH_FILES, WEIGHTS_FILE

CARD_FILE = "README.md"


class AnomalyModel(nn.Module):
    """``encoder`` and ``expert`` of one ``config``, in eval mode.

    Weights are random unless an encoder is given.

    Raises ``ConfigError`` when the expert does not read what the encoder gives.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder) if encoder is None else encoder
        _check(config, self.encoder)
        self.expert = Expert(config.expert)
        self.eval()

    def forward(self, pixels: Tensor, views_per_image: Sequence[int]) -> ExpertOutput:
        """uint8 (N, H, W, 3) or normalised float (N, 3, H, W) views -> ``ExpertOutput``.

        ``views_per_image``: how many of the N views belong to each image, base view first. Encoder and expert may be of
        different floating types; the expert's decides what it computes in.
        """
        pixels_N3HW = self.encoder.normalise(pixels) if pixels.dtype == torch.uint8 else pixels
        features = _cast(self.encoder(pixels_N3HW), next(self.expert.parameters()).dtype)
        output: ExpertOutput = self.expert(features, views_per_image)
        return output

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32, card: str = "") -> Path:
        """Writes the model folder and returns it. ``dtype``: float32 or float16 on disk; ``card``: the model card.

        The files are complete before any of them takes its name, ``config.json`` last; a reader in between finds the
        old model or an error, never a mixture. Graphs made from older weights are removed. Tensors that fp16 cannot
        hold stay float32, and the card says which. Unless ``config.revision`` is a chosen name it becomes the digest of
        the weights, here and on disk.
        Raises ``CheckpointMismatch`` when the weights are not those of ``config`` (a fused copy, unmerged adapters).
        """
        if dtype not in (torch.float32, torch.float16):
            raise WeightsError(f"weights are stored as float32 or float16, not {dtype}", hint="pass one of these")
        tensors, notes = weights.to_full(self.state_dict()), list[str]()
        weights.require_same(_expected(self.config), weights.shapes_of(tensors), "the model in memory")
        if dtype == torch.float16:
            tensors, notes = weights.to_half(tensors)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
            staging = Path(name)
            weights.write(staging / WEIGHTS_FILE, tensors, {"transformers": _transformers_version()})
            if not self.config.revision or is_derived(self.config.revision):
                self.config = replace(self.config, revision=digest(staging / WEIGHTS_FILE))
            write_atomic(staging / CARD_FILE, _card(card, self.config, notes).encode())
            text = json.dumps(to_mapping(self.config), indent=2) + "\n"
            write_atomic(staging / CONFIG_FILE, text.encode())
            for file in GRAPH_FILES:  # made from the weights that are about to go
                (folder / file).unlink(missing_ok=True)
            for file in (WEIGHTS_FILE, CARD_FILE, CONFIG_FILE):
                os.replace(staging / file, folder / file)
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> AnomalyModel:
        """The model in ``folder``, on the CPU, in eval mode, weights in ``dtype``.

        Raises ``WeightsError`` (files missing), ``ConfigError`` (config.json), ``UnsafeCheckpoint`` (no complete
        safetensors file) and ``CheckpointMismatch`` (names, shapes, or weights of another save).
        """
        folder = Path(folder)
        config = read_config(folder)
        path = folder / WEIGHTS_FILE
        found = weights.read_shapes(path)
        config, _ = with_own_weights(folder, config)
        model = cls(config, _empty_encoder(config))
        weights.require_same(weights.shapes_of(model.state_dict()), found, _where(path))
        model.load_state_dict(weights.to_full(weights.read(path), dtype), assign=True)
        # Buffers that are in no file were computed in float32.
        return model.to(dtype).eval()


def _empty_encoder(config: ModelConfig) -> Encoder:
    with weights.empty_parameters():
        return Encoder(config.encoder)


def _expected(config: ModelConfig) -> weights.Shapes:
    """Names and shapes that a model of ``config`` has."""
    return weights.shapes_of(AnomalyModel(config, _empty_encoder(config)).state_dict())


def _check(config: ModelConfig, encoder: Encoder) -> None:
    """The expert must read exactly what the encoder gives, from views of the size the encoder expects."""
    expert = config.expert
    pairs: dict[str, tuple[Any, Any]] = {
        "expert.width": (expert.width, encoder.width),
        "expert.grid_hw": (tuple(expert.grid_hw), encoder.grid_hw),
        "expert.levels": (expert.levels, len(encoder.level_widths)),
        "expert.level_widths": (expert.level_widths or (expert.width,) * expert.levels, encoder.level_widths),
        "views.base_size": (config.views.base_size, encoder.image_size),
    }
    wrong = [f"{field} is {has}, the encoder gives {gives}" for field, (has, gives) in pairs.items() if has != gives]
    if wrong:
        raise ConfigError(f"model '{config.name}': {'; '.join(wrong)}", hint="make these fields agree")


def _cast(features: Features, dtype: torch.dtype) -> Features:
    if features.final_NPD.dtype == dtype:
        return features
    levels_NPD = tuple(level.to(dtype) for level in features.levels_NPD)
    return Features(features.final_NPD.to(dtype), levels_NPD, features.grid_hw)


def _card(card: str, config: ModelConfig, notes: list[str]) -> str:
    """``card``, or the bare facts when none is given, plus what fp16 could not hold."""
    text = card.strip() or (
        f"# {config.name}\n\nRevision {config.revision}, views of {config.views.base_size} pixels.\n\n"
        "No card was written for these weights."
    )
    listed = "".join(f"\n- {note}" for note in notes)
    return text + (f"\n\n## Precision\n{listed}" if notes else "") + "\n"


def _transformers_version() -> str:
    return version("transformers")  # without importing it


def _where(path: Path) -> str:
    """The file and, as the names of weights may change with it, the transformers version that wrote it."""
    written = weights.read_metadata(path).get("transformers", "unknown")
    return f"{path} (written with transformers {written}, this is {_transformers_version()})"
