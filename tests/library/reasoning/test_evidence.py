"""What of the detector's output belongs to which picture, and which score the prompt follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.images.views import anyres, anyres_geometry
from anomaly_ov.inspector import Inspector
from anomaly_ov.models.config import RELEASED_SCORING, ModeConfig, ScoringConfig
from anomaly_ov.models.expert import ExpertOutput
from anomaly_ov.models.features import Features
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.reasoning.evidence import evidence_of
from golden_fixtures import SeededDetector, fusion_meta
from model_fixtures import small_model, small_reasoner

SIZES = [(70, 50), (20, 90), (33, 33)]


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    small = [generator.integers(0, 256, (5, 7, 3), np.uint8) for _ in SIZES]
    return [np.asarray(Image.fromarray(one).resize(size)) for one, size in zip(small, SIZES, strict=True)]


def looked(model: AnomalyModel) -> tuple[Features, ExpertOutput, list]:
    views = [anyres(one, model.config.views) for one in pictures()]
    pixels = torch.from_numpy(np.concatenate([one.pixels_NHW3 for one in views]))
    with torch.no_grad():
        features = model.encoder(model.encoder.normalise(pixels))
        output = model.expert(features, [len(one) for one in views])
    return features, output, [one.geometry for one in views]


def test_each_picture_gets_its_own() -> None:
    features, output, geometries = looked(small_model(1))
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
    features, output, geometries = looked(small_model(1))
    with pytest.raises(ValueError, match="zip"):
        evidence_of(features, output, geometries[:2])


@pytest.mark.parametrize(
    "alone",
    [
        ModeConfig(),
        ModeConfig(own=0.7, expert=0.4, head=0.3),
        ModeConfig(own=0.0, expert=0.5, head=1.0, usual=3.0, spread=3.0),
    ],
    ids=["own patches", "all evidence", "expert"],
)
def test_the_score_of_the_picture_alone_is_that_of_an_inspection(alone: ModeConfig) -> None:
    model = small_model(1, mirror=False, alone=alone)
    inspector = Inspector(model, device="cpu")
    found = evidence_of(*looked(model), model.config.scoring)
    scores = [inspector.inspect(one).score for one in pictures()]
    assert [one.score for one in found] == pytest.approx(scores, abs=1e-5)
    assert len(set(scores)) == len(SIZES)


def test_the_released_scoring_is_the_head() -> None:
    features, output, geometries = looked(small_model(1))
    for one in evidence_of(features, output, geometries, RELEASED_SCORING):
        assert one.score == pytest.approx(
            evidence_of(features, output, geometries)[geometries.index(one.geometry)].score, abs=1e-6
        )


def test_the_prompt_follows_the_score_that_is_asked_for() -> None:
    """Same picture, same weights: the head says one thing, a scoring that takes little for usual another."""
    scores = {}
    for level_score in ("head", "fused"):
        model = small_reasoner(level_score=level_score).model.model
        model.attach(small_model(alone=ModeConfig(usual=-20.0)))
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


def test_a_scoring_without_own_patches_needs_no_tokens() -> None:
    """The expert alone: the encoder's levels are not compared."""
    scoring = ScoringConfig(own_patches=False, alone=ModeConfig(own=0.0, expert=1.0))
    features, output, geometries = looked(small_model(1))
    levels = tuple(torch.full_like(level, float("nan")) for level in features.levels_NPD)
    expected = [one.score for one in evidence_of(features, output, geometries, scoring)]
    blind = Features(features.final_NPD, levels, features.grid_hw)
    with np.errstate(invalid="ignore"):
        assert [one.score for one in evidence_of(blind, output, geometries, scoring)] == expected
