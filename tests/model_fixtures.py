"""A complete model folder with random weights, small enough to run in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch

from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import CalibrationConfig, EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.model import AnomalyModel

SIDE, PATCH, WIDTH = 32, 8, 16


def small_config(**calibration: object) -> ModelConfig:
    """Two transformer blocks of width 16 on 32 x 32 views, a 4 x 4 grid, at most 3 x 3 crops."""
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    grid = (SIDE // PATCH, SIDE // PATCH)
    return ModelConfig(
        name="small",
        revision="test",
        encoder=EncoderConfig(backbone=vision, levels=(1, 2), final=2, image_size=SIDE),
        expert=ExpertConfig(width=WIDTH, hidden=8, grid_hw=grid, levels=2),
        views=ViewsConfig(base_size=SIDE, grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2, 3)), cap=96),
        calibration=CalibrationConfig(**calibration),  # type: ignore[arg-type]
    )


def small_model(seed: int = 0, **calibration: object) -> AnomalyModel:
    """The same weights for the same seed; ``calibration``: fields of ``CalibrationConfig``."""
    torch.manual_seed(seed)
    model = AnomalyModel(small_config(**calibration))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()


def save_small_model(folder: Path, **calibration: object) -> Path:
    """A model folder as ``load`` takes it."""
    small_model(**calibration).save_pretrained(folder)
    return folder
