"""A complete model folder with random weights, small enough to run in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch

from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import CalibrationConfig, EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.model import AnomalyModel

SIDE, CELLS = 32, 4


def small_config(**calibration: object) -> ModelConfig:
    """A residual network of two stages on 32 x 32 views, a 4 x 4 grid, at most 3 x 3 crops."""
    network = {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
    }
    grid = (CELLS, CELLS)
    return ModelConfig(
        name="small",
        revision="test",
        encoder=EncoderConfig(backbone=network, levels=(1, 2), final=2, image_size=SIDE, grid_hw=grid),
        expert=ExpertConfig(width=16, hidden=8, grid_hw=grid, levels=2, level_widths=(8, 16)),
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
