"""A model to begin stage 1 with: any Hugging Face vision encoder, and an untrained expert of fitting shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import ExpertConfig, ModelConfig
from anomaly_ov.models.encoder import Encoder, encoder_from_pretrained
from anomaly_ov.models.model import AnomalyModel


def create_model(
    encoder: str | Path,
    out: Path,
    levels: Sequence[int],
    final: int,
    *,
    grid: int | None = None,
    image_size: int | None = None,
) -> Path:
    """Writes the model folder ``out`` and returns it.

    ``levels``, ``final``: as in ``EncoderConfig``; ``grid``: tokens a side. Raises ``WeightsError`` when the encoder is
    not to be had, ``ConfigError`` when it cannot serve.
    """
    tower = encoder_from_pretrained(
        encoder, levels, final, image_size=image_size, grid_hw=None if grid is None else (grid, grid)
    )
    config = ModelConfig(
        name=out.resolve().name,
        encoder=tower.config,
        expert=expert_for(tower, ExpertConfig()),
        views=ViewsConfig(base_size=tower.image_size),
    )
    card = f"# {config.name}\n\nEncoder `{encoder}` with an **untrained** expert: a start for training, not a detector."
    return AnomalyModel(config, tower).save_pretrained(out, card=card)


def expert_for(encoder: Encoder, expert: ExpertConfig) -> ExpertConfig:
    """The expert's configuration with the encoder's widths, levels and grid."""
    return replace(
        expert,
        width=encoder.width,
        level_widths=tuple(encoder.level_widths),
        levels=len(encoder.level_widths),
        grid_hw=encoder.grid_hw,
    )
