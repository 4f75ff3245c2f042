"""The runner: what comes out per picture, features on request, and memory that runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomaly_ov.errors import DeviceError, UsageError
from anomaly_ov.models.runner import PictureOutput, Runner
from model_fixtures import SIDE, small_model

COUNTS = (3, 1, 5)


def runner(views_per_forward: int | None = None) -> Runner:
    return Runner(small_model(), "cpu", "float32", views_per_forward)


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8) for count in COUNTS]


def same(first: PictureOutput, second: PictureOutput) -> None:
    np.testing.assert_allclose(first.map_Nhw, second.map_Nhw, atol=1e-5)
    assert first.score_raw == pytest.approx(second.score_raw, abs=1e-5)
    assert (first.features is None) == (second.features is None)
    if first.features is not None and second.features is not None:
        torch.testing.assert_close(first.features.final_NPD, second.features.final_NPD, atol=1e-5, rtol=1e-4)
        for one, other in zip(first.features.levels_NPD, second.features.levels_NPD, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_nothing_in_nothing_out() -> None:
    assert runner().forward([]) == []


@pytest.mark.parametrize("views_per_forward", [1, 2, 4, 100])
def test_each_picture_gets_what_it_gets_alone(views_per_forward: int) -> None:
    together = runner(views_per_forward).forward(pictures(), features=True)
    for found, picture, count in zip(together, pictures(), COUNTS, strict=True):
        assert found.map_Nhw.shape == (count, 4, 4)
        assert found.ms > 0
        same(found, runner().forward([picture], features=True)[0])


def test_features_are_the_encoders_and_only_on_request() -> None:
    model = runner()
    assert all(output.features is None for output in model.forward(pictures()))
    for found, picture in zip(model.forward(pictures(), features=True), pictures(), strict=True):
        with torch.inference_mode():
            expected = model.encoder(model.encoder.normalise(torch.from_numpy(picture)))
        assert found.features is not None
        assert found.features.grid_hw == (4, 4)
        for one, other in zip(found.features.levels_NPD, expected.levels_NPD, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_bfloat16_features_come_as_float32() -> None:
    half = Runner(small_model(), "cpu", "bfloat16", 2)
    for output in half.forward(pictures(), features=True):
        assert output.features is not None
        assert output.features.final_NPD.dtype == torch.float32
        assert output.map_Nhw.dtype == np.float32


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_out_of_memory_shrinks_the_pass_and_changes_nothing(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    model = runner()
    expected = model.forward(pictures(), features=True)
    whole = model.encoder.forward

    def small_memory(pixels: torch.Tensor) -> object:
        if len(pixels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(pixels)

    monkeypatch.setattr(model.encoder, "forward", small_memory)
    for found, one in zip(model.forward(pictures(), features=True), expected, strict=True):
        same(found, one)
    assert model.views_per_forward <= limit


def test_out_of_memory_in_the_expert_splits_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = runner()
    expected, seen = model.forward(pictures()), list[int]()
    whole = model.expert.forward

    def one_picture(features: object, views_per_image: list[int]) -> object:
        seen.append(len(views_per_image))
        if len(views_per_image) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(features, views_per_image)  # type: ignore[arg-type]

    monkeypatch.setattr(model.expert, "forward", one_picture)
    for found, one in zip(model.forward(pictures()), expected, strict=True):
        same(found, one)
    assert seen == [3, 1, 2, 1, 1]
    assert model.views_per_forward == runner().views_per_forward


def test_no_memory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = runner()

    def no_memory(pixels: torch.Tensor) -> object:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model.encoder, "forward", no_memory)
    with pytest.raises(DeviceError, match="out of memory on cpu") as raised:
        model.forward(pictures())
    assert raised.value.hint


def test_no_memory_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()

    def no_memory(*args: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.expert, "to", no_memory)
    with pytest.raises(DeviceError, match="out of memory"):
        Runner(model, "cpu", "float32", None)


def test_other_failures_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    model = runner()

    def broken(pixels: torch.Tensor) -> object:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(model.encoder, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        model.forward(pictures())


def test_views_per_forward_is_checked() -> None:
    with pytest.raises(UsageError, match="views_per_forward"):
        runner(-1)


def test_patch_is_unknown_for_resampled_tokens() -> None:
    assert runner().patch is None
