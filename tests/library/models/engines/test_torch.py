"""torch.py: the runner behind the engines' interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomaly_ov.errors import DeviceError, UsageError
from anomaly_ov.models.arrays import FeatureArrays
from anomaly_ov.models.engines.interface import forward
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.runner import Runner
from engine_fixtures import LITE, SIGLIP, pictures, random_detector, same_outputs


def engine(views_per_forward: int | None = None, dtype: str = "float32") -> TorchEngine:
    return TorchEngine(random_detector(LITE), "cpu", dtype, views_per_forward)


def test_same_as_the_runner() -> None:
    views = pictures(64)
    found = forward(engine(), views, features=True)
    want = Runner(random_detector(LITE), "cpu", "float32", None).forward(views, features=True)
    for mine, theirs in zip(found, want, strict=True):
        assert theirs.features is not None
        assert mine.features is not None
        assert theirs.local_NQD is not None
        np.testing.assert_allclose(mine.map_Nhw, theirs.map_Nhw, atol=1e-6)
        np.testing.assert_allclose(mine.local_NQD, theirs.local_NQD.numpy(), atol=1e-5)
        np.testing.assert_allclose(mine.features.final_NPD, theirs.features.final_NPD.numpy(), atol=1e-5)
        assert mine.score_raw == pytest.approx(theirs.score_raw, abs=1e-6)


def test_names_of_what_computes() -> None:
    half = engine(dtype="bfloat16")
    assert (half.name, half.device, half.dtype, half.patch) == ("torch", "cpu", "bfloat16", None)
    assert half.config.name == "random"
    features = half.encode(pictures(64)[1])
    assert features.final_NPD.dtype == features.levels_NPD[0].dtype == np.float32
    assert TorchEngine(random_detector(SIGLIP), "cpu").patch == 8.0


def test_arrays_from_elsewhere_do_as_well() -> None:
    own = engine()
    features = own.encode(pictures(64)[2])
    plain = FeatureArrays(features.final_NPD, features.levels_NPD, features.grid_hw)
    (found,), (want,) = own.expert(plain, [5]), own.expert(features, [5])
    np.testing.assert_array_equal(found.map_Nhw, want.map_Nhw)
    with pytest.raises(UsageError, match="does not describe 5 views"):
        own.expert(features, [4])


def test_features_are_copied_to_the_host_only_when_read() -> None:
    features = engine().encode(pictures(64)[1])
    assert "final_NPD" not in vars(features)
    assert len(features) == len(features.views(0, 3)) == 3
    assert "final_NPD" not in vars(features)
    np.testing.assert_array_equal(features.views(1, 2).final_NPD, features.final_NPD[1:2])
    assert "final_NPD" in vars(features)


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_out_of_memory_shrinks_the_pass_and_changes_nothing(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    small = engine()
    want = forward(small, pictures(64), features=True)
    whole = small.runner.encoder.forward

    def little_memory(pixels: torch.Tensor) -> object:
        if len(pixels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(pixels)

    monkeypatch.setattr(small.runner.encoder, "forward", little_memory)
    same_outputs(forward(small, pictures(64), features=True), want, atol=1e-5)
    assert small.views_per_forward <= limit


def test_out_of_memory_in_the_expert_halves_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    small = engine()
    want, seen = forward(small, pictures(64)), list[int]()
    whole = small.runner.expert.forward

    def one_picture(features: object, views_per_image: list[int]) -> object:
        seen.append(len(views_per_image))
        if len(views_per_image) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(features, views_per_image)  # type: ignore[arg-type]

    monkeypatch.setattr(small.runner.expert, "forward", one_picture)
    same_outputs(forward(small, pictures(64)), want, atol=1e-5)
    assert seen == [3, 1, 2, 1, 1]


@pytest.mark.parametrize("part", ["encoder", "expert"])
def test_no_memory_at_all(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    small = engine()

    def none(*args: object) -> object:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(getattr(small.runner, part), "forward", none)
    with pytest.raises(DeviceError, match="out of memory on cpu"):
        forward(small, pictures(64))


def test_other_failures_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    small = engine()

    def broken(*args: object) -> object:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(small.runner.encoder, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        forward(small, pictures(64))
