"""What of the detector's output belongs to which picture, and which score the prompt follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomaly_ov.images.views import anyres_geometry
from anomaly_ov.models.reasoning.evidence import evidence_of
from anomaly_ov.models.score import expert_alone
from golden_fixtures import SeededDetector, fusion_meta
from model_fixtures import small_model, small_reasoner

SIZES = [(70, 50), (20, 90), (33, 33)]


def looked() -> tuple:
    model = small_model(1)
    geometries = [anyres_geometry(size, model.config.views) for size in SIZES]
    views = [one.views for one in geometries]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (sum(views), 32, 32, 3), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        features = model.encoder(model.encoder.normalise(pixels))
        output = model.expert(features, views)
    return features, output, geometries


def test_each_picture_gets_its_own() -> None:
    features, output, geometries = looked()
    start = 0
    for index, one in enumerate(evidence_of(features, output, geometries)):
        own = slice(start, start + geometries[index].views)
        start = own.stop
        assert torch.equal(one.final_NPD, features.final_NPD[own])
        assert torch.equal(one.map_Nhw, output.map_Nhw[own])
        assert torch.equal(one.local_NQD, output.local_NQD[own])
        assert torch.equal(one.global_D, output.global_BD[index])
        assert one.score == float(output.score_B[index])
        assert one.geometry == geometries[index]
        assert one.grid_hw == (4, 4)
    assert start == len(features.final_NPD)


def test_as_many_geometries_as_pictures() -> None:
    features, output, geometries = looked()
    with pytest.raises(ValueError, match="zip"):
        evidence_of(features, output, geometries[:2])


def test_the_fused_score_is_that_of_an_inspection() -> None:
    features, output, geometries = looked()
    calibration = small_model(head_weight=0.5, map_weight=0.7, bias=-0.2).config.calibration
    for index, one in enumerate(evidence_of(features, output, geometries, calibration)):
        head = float(output.score_B[index])
        expected = expert_alone(one.map_Nhw.numpy().astype(np.float32), head, one.geometry, calibration)
        assert one.score == expected.score != head


def test_the_prompt_follows_the_score_that_is_asked_for() -> None:
    """Same picture, same weights: the head says one thing, a calibration of large bias another."""
    scores = {}
    for level_score in ("head", "fused"):
        model = small_reasoner(level_score=level_score).model.model
        model.attach(small_model(bias=20.0))
        geometry = anyres_geometry((70, 50), model.detector.config.views)  # type: ignore[union-attr]
        pixels = torch.full((geometry.views, 32, 32, 3), 90, dtype=torch.uint8)
        scores[level_score] = model.look(pixels, [geometry])[0].score
    assert scores["fused"] > 0.99 > scores["head"]


def test_released_scores_and_adverbs() -> None:
    """From (seeded) features to the adverb, as recorded: one highly, four of several pictures each their own."""
    case = fusion_meta()["cases"]["multi_view_4"]
    detector = SeededDetector(case["feature_seed"], case["split_sizes"])
    features = detector.encoder(torch.zeros(4, 1, 1, 3))
    with torch.no_grad():
        output = detector.expert(features, case["split_sizes"])
    geometries = [anyres_geometry((10, 10), detector.config.views)] * 4
    found = [one.score for one in evidence_of(features, output, geometries)]
    assert found == pytest.approx(case["scores_used_for_layout"], abs=1e-6)
