"""One number everywhere: what a context measures of its references is what an inspection finds of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from anomaly_ov import inspector as inspector_module
from anomaly_ov.context.context import Context
from anomaly_ov.images.prepared import prepare_one
from anomaly_ov.images.read import Limits
from anomaly_ov.inspector import Inspector
from anomaly_ov.look import look, score_alone
from anomaly_ov.models.config import ModeConfig
from anomaly_ov.models.engines.torch import TensorFeatures
from anomaly_ov.reasoning.evidence import evidence_of
from anomaly_ov.scoring.score import expected, judge
from model_fixtures import small_model

WEIGHTS = {
    "alone": ModeConfig(own=0.8, expert=0.3, head=0.2, usual=-3.0, spread=2.0),
    "few": ModeConfig(own=0.7, matched=0.6, expert=0.1, usual=-6.0, spread=2.0),
    "references": ModeConfig(own=0.3, matched=1.0, expert=0.2, head=0.5, usual=-6.0, spread=2.0),
    "folder": ModeConfig(own=0.9, matched=0.3, usual=-9.0, spread=2.0),
}
"""Modes of which each gives other numbers."""

SIZES = [(64, 64), (40, 96), (200, 30), (64, 64), (33, 33), (96, 96), (20, 50)]


def pictures(count: int) -> list[np.ndarray]:
    """A cloth in several sizes; one is symmetric, so that its mirror image is looked at, some fit one crop."""
    found = []
    for seed, (height, width) in enumerate(SIZES[:count]):
        generator = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        cloth_HW = 120 + 60 * np.sin(columns / 3 + seed) + 30 * np.sin(rows / 5)
        noise_HW3 = generator.normal(0, 3 + 3 * seed, (height, width, 3))
        if seed == 3:
            cloth_HW[:, width // 2 :] = cloth_HW[:, : width // 2][:, ::-1]
            noise_HW3[:] = 0
        found.append(np.clip(cloth_HW[..., None] * [1.0, 0.9, 0.6] + noise_HW3, 0, 255).astype(np.uint8))
    return found


@contextmanager
def suspicions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What each judgement of an inspection was made of, in order; alone comes before with a context."""
    found: list[float] = []

    def watched(evidence: object, cells: object, mode: ModeConfig, config: object, usual: object) -> object:
        judged = judge(evidence, cells, mode, config, usual)  # type: ignore[arg-type]
        value, spread = expected(usual, mode)  # type: ignore[arg-type]
        found.append(judged.beyond * spread + value)
        return judged

    with monkeypatch.context() as patched:
        patched.setattr(inspector_module, "judge", watched)
        yield found


def digest_of(picture: np.ndarray) -> str:
    return prepare_one(picture, small_model().config.views, Limits()).digest


def measured(context: Context) -> dict[str, float]:
    return dict(zip(context.bank.digests, context.suspicion_R.tolist(), strict=True))


@pytest.mark.parametrize("count", [2, 3, 5, 7])
@pytest.mark.parametrize("mirror", [True, False])
def test_what_is_measured_of_a_reference_is_what_its_inspection_against_the_others_finds(
    monkeypatch: pytest.MonkeyPatch, count: int, mirror: bool
) -> None:
    """Leave one out; both in the mode of as many references."""
    inspector = Inspector(small_model(mirror=mirror, **WEIGHTS), device="cpu")
    shown = pictures(count)
    of_all = measured(inspector.context(shown, batch_size=1))
    assert len(set(of_all.values())) == count
    for index, picture in enumerate(shown):
        others = inspector.context([*shown[:index], *shown[index + 1 :]], batch_size=1)
        with suspicions(monkeypatch) as found:
            finding = inspector.inspect(picture, others)
        alone, beside = found
        assert finding.score != finding.score_expert
        assert alone != pytest.approx(beside, abs=1e-3)
        assert of_all[digest_of(picture)] == pytest.approx(beside, abs=1e-4)


def test_what_is_measured_of_a_folders_picture_is_what_its_inspection_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(small_model(**WEIGHTS), device="cpu")
    shown = pictures(7)
    context = inspector.folder_context(shown, batch_size=1)
    for picture in shown:
        with suspicions(monkeypatch) as found:
            inspector.inspect(picture, context)
        assert measured(context)[digest_of(picture)] == pytest.approx(found[1], abs=1e-4)


def test_batches_change_the_last_digits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(small_model(**WEIGHTS), device="cpu")
    one, many = (measured(inspector.context(pictures(7), batch_size=size)) for size in (1, 8))
    assert one == pytest.approx(many, abs=5e-3)


def test_the_score_alone_is_an_inspections_where_mirror_images_are_off() -> None:
    """Also where the language side makes it."""
    model = small_model(mirror=False, **WEIGHTS)
    inspector = Inspector(model, device="cpu")
    config, patch = inspector.engine.config, inspector.engine.patch
    for picture in pictures(7):
        views = prepare_one(picture, config.views, Limits()).views
        assert views is not None
        encoded = inspector.engine.encode(views.pixels_NHW3)
        (part,) = inspector.engine.expert(encoded, [len(views)])
        found = score_alone(encoded.levels_NPD, part.map_Nhw, part.score_raw, views.geometry, config.scoring, patch)
        finding = inspector.inspect(picture)
        assert finding.score == pytest.approx(found, abs=1e-5)
        assert finding.score_expert == finding.score
        assert isinstance(encoded, TensorFeatures)
        with torch.no_grad():
            output = model.expert(encoded.tensors, [len(views)])
        (read,) = evidence_of(encoded.tensors, output, [views.geometry], config.scoring, patch)
        assert read.score == pytest.approx(found, abs=1e-4)


def test_a_look_at_several_images_is_a_look_at_each() -> None:
    """Mirror images of a batch pass together and come back to the image that they belong to."""
    inspector = Inspector(small_model(**WEIGHTS), device="cpu")
    config = inspector.engine.config
    ramp_HW3 = np.repeat(np.add.outer(np.arange(64), np.arange(64))[..., None], 3, axis=2).astype(np.uint8)
    prepared = [prepare_one(picture, config.views, Limits()) for picture in [*pictures(7), ramp_HW3]]
    together = look(inspector.engine, prepared, config.scoring)
    plain = look(inspector.engine, prepared, small_model(mirror=False).config.scoring)
    mirrored = 0
    for one, found, without in zip(prepared, together, plain, strict=True):
        (alone,) = look(inspector.engine, [one], config.scoring)
        np.testing.assert_allclose(found.tokens.own.whole, alone.tokens.own.whole, atol=5e-3)
        np.testing.assert_allclose(found.tokens.own.detail, alone.tokens.own.detail, atol=5e-3)
        np.testing.assert_allclose(found.tokens.tokens.whole, alone.tokens.tokens.whole, atol=1e-4)
        mirrored += not np.array_equal(found.tokens.own.whole, without.tokens.own.whole)
        assert found.tokens.digest == one.digest
    assert 0 < mirrored < len(prepared)


def test_own_patches_switched_off_leave_no_own_evidence_and_no_mirror_images() -> None:
    scoring = {"own_patches": False, "alone": ModeConfig(own=1.0, expert=1.0)}
    inspector = Inspector(small_model(**scoring), device="cpu")
    config = inspector.engine.config
    symmetric = prepare_one(pictures(4)[3], config.views, Limits())
    (found,) = look(inspector.engine, [symmetric], config.scoring)
    assert found.evidence(config.scoring).own is None
    assert not found.tokens.own.whole.any()
    light = found.without_features(keep=False)
    assert light.output.features is None
    assert len(light.tokens.tokens.whole) == 0
    assert found.without_features(keep=True).output is found.output
