"""traced.py: the expert's graph at its limits; the encoder's are compared in ``test_onnx`` and ``test_folder``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from anomaly_ov.models.config import ExpertConfig
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.export.traced import trace_expert
from anomaly_ov.models.features import Features

GRID = (3, 5)
WIDTHS = (8, 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "switches",
    [
        {"match": "covariance", "passes": 2},
        {"look_back": False, "q_former": False},
        {"embeddings": False},
        {"hidden": 16},
    ],
)
def test_every_expert_even_where_its_map_underflows(switches: dict[str, Any]) -> None:
    """With two hidden values directions often coincide: logits reach 200, and exp(-200) is 0 in float32."""
    torch.manual_seed(1)
    config = ExpertConfig(
        **({"width": 8, "hidden": 2, "grid_hw": GRID, "levels": 2, "level_widths": WIDTHS} | switches)
    )
    expert = Expert(config).eval()
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.normal_()
    session = onnxruntime.InferenceSession(ir.to_proto(trace_expert(expert)).SerializeToString())
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for views in (1, 3, 4):
        final, *levels = (3 * torch.randn(views, 15, width, generator=generator) for width in (8, *WIDTHS))
        given = {"final": final.numpy()} | {f"level_{index}": level.numpy() for index, level in enumerate(levels)}
        found = session.run(None, {one.name: given[one.name] for one in session.get_inputs()})
        with torch.inference_mode():
            want = expert(Features(final, tuple(levels), GRID), [views])
        largest = max(largest, float(want.map_logits_Nhw.abs().max()))
        for mine, theirs in zip(found, (want.map_Nhw, want.score_B, want.local_NQD, want.global_BD), strict=True):
            assert mine.shape == tuple(theirs.shape)
            np.testing.assert_allclose(mine, theirs.numpy(), rtol=0, atol=1e-4 * max(1.0, float(theirs.abs().max())))
    if switches.get("match") == "covariance":
        assert largest > 150
