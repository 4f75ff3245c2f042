"""Places in shares of the picture and logits of suspicion, for every kind of token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import anyres_geometry, multi_image_geometry
from anomaly_ov.reasoning.annotation import Annotation, remarks
from anomaly_ov.reasoning.evidence import Evidence
from geometry_oracle import cell_box
from model_fixtures import small_model

VIEWS = small_model().config.views


def evidence(geometry: Geometry, map_Nhw: torch.Tensor | None = None, score: float = 0.5) -> Evidence:
    views = geometry.views
    map_Nhw = torch.full((views, 4, 4), 0.5) if map_Nhw is None else map_Nhw
    return Evidence(torch.zeros(views, 16, 16), map_Nhw, torch.zeros(views, 4, 16), torch.zeros(16), score, geometry)


@pytest.mark.parametrize("size", [(64, 64), (70, 50), (20, 90), (300, 200)])
@pytest.mark.parametrize("make", [anyres_geometry, multi_image_geometry])
def test_cells_lie_where_they_show_the_picture(make: object, size: tuple[int, int]) -> None:
    geometry = make(size, VIEWS)  # type: ignore[operator]
    cells_S3, _, _ = remarks(evidence(geometry))
    for view in range(geometry.views):
        for cell in range(16):
            x0, y0, x1, y1 = cell_box(geometry, view, cell // 4, cell % 4, (4, 4))
            expected = [(x0 + x1) / 2 / size[0], (y0 + y1) / 2 / size[1]]
            np.testing.assert_allclose(cells_S3[view * 16 + cell, :2], expected, atol=1e-5)


def test_suspicion_is_the_logit_of_the_map() -> None:
    geometry = anyres_geometry((32, 32), VIEWS)
    map_Nhw = torch.rand(geometry.views, 4, 4, generator=torch.Generator().manual_seed(0))
    cells_S3, overall_13, _ = remarks(evidence(geometry, map_Nhw, 0.8))
    torch.testing.assert_close(cells_S3[:, 2], torch.logit(map_Nhw.flatten(), eps=1e-5))
    assert overall_13[0, 2].item() == pytest.approx(math.log(4), rel=1e-5)


def test_local_and_global_tokens_lie_where_the_suspicion_does() -> None:
    geometry = anyres_geometry((32, 32), VIEWS)
    map_Nhw = torch.full((geometry.views, 4, 4), 1e-9)
    map_Nhw[0, 3, 0] = 0.9
    cells_S3, overall_13, local_S3 = remarks(evidence(geometry, map_Nhw))
    spot = cells_S3[12, :2]
    torch.testing.assert_close(overall_13[0, :2], spot, atol=1e-4, rtol=0)
    torch.testing.assert_close(local_S3[2, :2], spot, atol=1e-4, rtol=0)
    assert local_S3[2, 2].item() == pytest.approx(math.log(9), rel=1e-3)
    assert local_S3[1, 2] < -5
    np.testing.assert_allclose(local_S3[1, :2], [0.75, 0.25], atol=1e-4)


def test_no_suspicion_at_all_lies_in_the_middle_and_is_finite() -> None:
    geometry = anyres_geometry((64, 64), VIEWS)
    parts = remarks(evidence(geometry, torch.zeros(geometry.views, 4, 4), 0.0))
    assert all(part.isfinite().all() for part in parts)
    np.testing.assert_allclose(parts[1][0, :2], [0.5, 0.5], atol=1e-4)


def test_places_and_suspicions_are_told_apart() -> None:
    """Two tokens a sixteenth of the picture apart, or two logits, never get the same annotation."""
    torch.manual_seed(0)
    annotation = Annotation(8)
    steps = torch.linspace(0.03, 0.97, 16)
    at_S3 = torch.stack([steps, torch.full_like(steps, 0.5), torch.zeros_like(steps)], 1)
    logits_S3 = torch.stack([torch.full_like(steps, 0.5)] * 2 + [torch.linspace(-11, 11, 16)], 1)
    for said_S3 in (at_S3, at_S3[:, [1, 0, 2]], logits_S3):
        found_SE = annotation(said_S3)
        assert found_SE.shape == (16, 8)
        assert (torch.cdist(found_SE, found_SE) + torch.eye(16)).min() > 1e-3
    assert annotation.to(torch.bfloat16)(at_S3).dtype == torch.bfloat16
