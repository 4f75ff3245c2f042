"""A projector begun anew gives tokens of mean 0 and a fixed size, whatever mean and spread the features have."""

from __future__ import annotations

import pytest
import torch

from anomaly_ov.reasoning.folder import Reasoner
from anomaly_ov_lab.training import projector_start
from anomaly_ov_lab.training.projector_start import ANNOTATION_RMS, FEATURE_RMS, standardise
from model_fixtures import small_reasoner


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector_start, "PICTURES", 8)
    monkeypatch.setattr(projector_start, "AT_ONCE", 4)
    monkeypatch.setattr(projector_start, "SIZE", 64)


def outputs(reasoner: Reasoner) -> tuple[torch.Tensor, torch.Tensor | None]:
    parts = reasoner.model.model
    features_SD, remarks_S3 = projector_start._measured(reasoner.model)
    with torch.no_grad():
        return parts.multi_modal_projector(features_SD), parts.annotation(remarks_S3) if parts.annotation else None


def test_tokens_and_annotations_begin_centred_and_at_their_size() -> None:
    reasoner = small_reasoner(annotate=True)
    before_SE, _ = outputs(reasoner)
    standardise(reasoner.model)
    projected_SE, said_SE = outputs(reasoner)
    assert said_SE is not None
    for values_SE, rms in ((projected_SE, FEATURE_RMS), (said_SE, ANNOTATION_RMS)):
        assert float(values_SE.mean(0).abs().max()) < 1e-4
        assert float(values_SE.square().mean().sqrt()) == pytest.approx(rms, rel=1e-3)
    assert float(before_SE.mean(0).abs().max()) > 1e-3  # otherwise nothing was shown


def test_the_same_seed_gives_the_same_weights_and_nothing_else_moves() -> None:
    one, other = small_reasoner(annotate=True), small_reasoner(annotate=True)
    kept = {name: value.clone() for name, value in one.model.state_dict().items()}
    standardise(one.model, 1)
    standardise(other.model, 1)
    changed = set()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])
        if not torch.equal(value, kept[name]):
            changed.add(name.split(".")[1])
    assert changed == {"multi_modal_projector", "annotation"}


def test_a_model_without_annotation_keeps_having_none() -> None:
    reasoner = small_reasoner(annotate=False)
    standardise(reasoner.model)
    projected_SE, said_SE = outputs(reasoner)
    assert said_SE is None
    assert float(projected_SE.square().mean().sqrt()) == pytest.approx(FEATURE_RMS, rel=1e-3)
