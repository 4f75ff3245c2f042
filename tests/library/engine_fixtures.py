"""Small detectors with random weights, written as model folders with and without ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.model import AnomalyModel

LITE: dict[str, Any] = {
    "backbone": {"model_type": "efficientnet_lite", "width": 0.25, "depth": 0.5},
    "levels": (3, 5),
    "final": 7,
    "image_size": 64,
    "grid_hw": (4, 4),
    "mean": (127 / 255,) * 3,
    "std": (128 / 255,) * 3,
}
SIGLIP: dict[str, Any] = {
    "backbone": {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "patch_size": 8,
        "image_size": 40,
    },
    "levels": (1, 2),
    "final": 3,
    "image_size": 40,
}
COUNTS = (1, 3, 5)


def random_detector(encoder: dict[str, Any], seed: int = 0, **expert: Any) -> AnomalyModel:
    """A model of these encoder settings whose maps are neither flat nor saturated; ``expert``: of ``ExpertConfig``."""
    torch.manual_seed(seed)
    tower = Encoder(EncoderConfig(**encoder))
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):  # untouched statistics would hide a norm that is left out
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    side = tower.image_size
    config = ModelConfig(
        name="random",
        encoder=tower.config,
        expert=expert_for(tower, ExpertConfig(**({"hidden": 16} | expert))),
        views=ViewsConfig(base_size=side, grids=((1, 1), (2, 1), (2, 2)), cap=2 * side),
    )
    return AnomalyModel(config, tower)


def pictures(side: int, seed: int = 0) -> list[np.ndarray]:
    """Views of three pictures, ``COUNTS`` of each: noise over a gradient."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 128, side)[:, None, None]
    return [(generator.integers(0, 128, (count, side, side, 3)) + ramp).astype(np.uint8) for count in COUNTS]


def same_outputs(found: list[Any], want: list[Any], atol: float = 1e-4) -> None:
    """Asserts that two lists of ``PictureArrays`` agree, tokens relative to their own size."""
    assert len(found) == len(want)
    for one, other in zip(found, want, strict=True):
        np.testing.assert_allclose(one.map_Nhw, other.map_Nhw, rtol=0, atol=atol)
        assert abs(one.score_raw - other.score_raw) < atol
        pairs = [(one.local_NQD, other.local_NQD), (one.global_D, other.global_D)]
        if one.features is not None or other.features is not None:
            assert one.features.grid_hw == other.features.grid_hw
            pairs += [(one.features.final_NPD, other.features.final_NPD)]
            pairs += zip(one.features.levels_NPD, other.features.levels_NPD, strict=True)
        for mine, theirs in pairs:
            assert mine.dtype == theirs.dtype == np.float32
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol * max(1.0, float(np.abs(theirs).max())))


def save_with_graphs(folder: Path, encoder: dict[str, Any], dtype: torch.dtype = torch.float16, **expert: Any) -> Path:
    """A model folder with both graphs (some seconds)."""
    from anomaly_ov.models.export.folder import export_folder

    random_detector(encoder, **expert).save_pretrained(folder, dtype)
    export_folder(folder, folder)
    return folder
