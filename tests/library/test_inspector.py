"""The inspector: order, batching, errors, devices, memory; with a random model that runs in milliseconds."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.errors import DeviceError, UnreadableImage, UsageError, WeightsError
from anomaly_ov.images.views import anyres
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.look import score_alone
from anomaly_ov.models.config import RELEASED_SCORING, ModeConfig
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.records import Detector, Finding, level_beside
from model_fixtures import small_model


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector(small_model(), device="cpu")


def same(first: Finding, second: Finding) -> None:
    assert first.score_raw == pytest.approx(second.score_raw, abs=1e-5)
    assert first.score == pytest.approx(second.score, abs=1e-4)
    assert first.score_map == pytest.approx(second.score_map, abs=1e-5)
    assert first.significance_map is not None
    assert second.significance_map is not None
    np.testing.assert_allclose(first.significance_map, second.significance_map, atol=1e-4)


def encoder_of(inspector: Inspector) -> torch.nn.Module:
    assert isinstance(inspector.engine, TorchEngine)
    return inspector.engine.runner.encoder


def test_an_engine_or_a_model_is_taken(pictures: Path) -> None:
    engine = TorchEngine(small_model(), "cpu")
    inspector = Inspector(engine)
    assert inspector.engine is engine
    same(inspector.inspect(pictures / "p1.png"), Inspector(small_model(), device="cpu").inspect(pictures / "p1.png"))


def test_is_a_detector(inspector: Inspector) -> None:
    assert isinstance(inspector, Detector)
    assert inspector.info.name == "small"
    assert (inspector.info.device, inspector.info.dtype) == ("cpu", "float32")


def test_finding_is_complete(inspector: Inspector, pictures: Path) -> None:
    finding = inspector.inspect(pictures / "p1.png")
    assert (finding.image.width, finding.image.height) == (96, 64)
    assert finding.significance_map is not None
    assert finding.significance_map.shape == (64, 96)
    assert finding.significance_map.dtype == np.float32
    assert set(finding.timing_ms) == {"read", "views", "model", "maps"}
    assert finding.score is not None
    assert finding.level == level_beside(finding.score, 0.5)
    assert finding.score_expert == finding.score
    assert finding.score_context is None
    assert finding.map is not None
    assert finding.map.grid == (8, 12)
    assert finding.error is None


def test_map_shows_where(inspector: Inspector) -> None:
    """A patch that differs is the highest place of the map: the geometry leads back to the place."""
    tile = np.random.default_rng(0).integers(60, 120, (8, 8, 3), np.uint8)
    marked = np.tile(tile, (12, 12, 1))
    marked[64:80, 16:32] = np.random.default_rng(1).integers(0, 256, (16, 16, 3))
    finding = inspector.inspect(marked)
    map_HW = finding.significance_map
    assert map_HW is not None
    y, x = np.unravel_index(map_HW.argmax(), map_HW.shape)
    assert 60 <= y < 84
    assert 12 <= x < 36
    assert map_HW[66:78, 18:30].mean() > 2 * map_HW[:32, 64:].mean()


def test_any_kind_of_source_gives_the_same(inspector: Inspector, pictures: Path) -> None:
    path = pictures / "p1.png"
    array = np.asarray(Image.open(path))
    reference = inspector.inspect(str(path))
    for source in (path, path.read_bytes(), array, Image.open(path)):
        same(inspector.inspect(source), reference)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@pytest.mark.parametrize("views_per_forward", [1, 3, 100])
def test_result_does_not_depend_on_batching(pictures: Path, batch_size: int, views_per_forward: int) -> None:
    reference = Inspector(small_model(), device="cpu")
    paths = sorted(pictures.glob("*.png"))
    batched = Inspector(small_model(), device="cpu", views_per_forward=views_per_forward)
    found = list(batched.stream(paths, batch_size))
    assert [finding.id for finding in found] == [str(path) for path in paths]
    for finding, path in zip(found, paths, strict=True):
        same(finding, reference.inspect(path))


def test_folder_is_a_source(inspector: Inspector, pictures: Path) -> None:
    assert [Path(f.id).name for f in inspector.stream(pictures)] == [f"p{i}.png" for i in range(6)]


def test_unreadable_picture_is_a_record_and_the_rest_goes_on(inspector: Inspector, pictures: Path) -> None:
    (pictures / "p2.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    found = list(inspector.stream([*sorted(pictures.glob("*.png")), pictures / "missing.png"], batch_size=2))
    assert [finding.error is not None for finding in found] == [False, False, True, False, False, False, True]
    bad = found[2]
    assert bad.error is not None
    assert bad.error.type == "UnreadableImage"
    assert "p2.png" in bad.error.message
    assert "\n" not in bad.error.message
    assert bad.score is None
    assert bad.anomalous is None
    assert bad.image.path.endswith("p2.png")


def test_only_unreadable_pictures(inspector: Inspector, tmp_path: Path) -> None:
    found = list(inspector.stream([tmp_path / "a.png", tmp_path / "b.png"]))
    assert [finding.error.type for finding in found if finding.error] == ["UnreadableImage"] * 2


def test_inspect_raises_for_one_unreadable_picture(inspector: Inspector, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage):
        inspector.inspect(tmp_path / "none.png")


def test_empty_stream(inspector: Inspector) -> None:
    assert list(inspector.stream([])) == []


def test_generator_of_arrays_is_read_only_as_far_as_needed(inspector: Inspector) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield np.full((40, 40, 3), taken % 256, np.uint8)

    stream = inspector.stream(endless(), batch_size=2)
    ids = [next(stream).id for _ in range(3)]
    stream.close()  # type: ignore[attr-defined]
    assert ids == ["array-0", "array-1", "array-2"]
    assert taken < 40


def test_closing_a_stream_ends_its_threads(inspector: Inspector, pictures: Path) -> None:
    stream = inspector.stream(sorted(pictures.glob("*.png")) * 1, batch_size=1)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while any(t.name.startswith("anomaly-ov") for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("anomaly-ov")]


def test_stream_keeps_no_maps(inspector: Inspector) -> None:
    sources = [np.full((40, 40, 3), i, np.uint8) for i in range(20)]
    alive = []
    for finding in inspector.stream(sources, batch_size=1):
        assert finding.significance_map is not None
        alive.append(weakref.ref(finding.significance_map))
    del finding
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0


def test_previews_have_the_size_of_the_map(inspector: Inspector, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (150, 300, 3), np.uint8)
    for finding, preview in inspector.stream_with_previews([large, tmp_path / "missing.png"]):
        if finding.error is None:
            assert preview is not None
            assert finding.significance_map is not None
            assert preview.shape == (*finding.significance_map.shape, 3) == (48, 96, 3)
            assert (finding.image.width, finding.image.height) == (300, 150)
        else:
            assert preview is None


@pytest.mark.parametrize("batch_size", [0, -1])
def test_bad_batch_size(inspector: Inspector, batch_size: int) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        list(inspector.stream([np.zeros((8, 8, 3), np.uint8)], batch_size))


@pytest.mark.parametrize("threshold", [None, 0.2, 0.9])
def test_the_map_the_score_the_verdict_and_the_regions_are_one(pictures: Path, threshold: float | None) -> None:
    inspector = Inspector(small_model(), device="cpu", threshold=threshold)
    limit = 0.5 if threshold is None else threshold
    for finding in inspector.stream(pictures):
        assert finding.significance_map is not None
        assert finding.threshold is not None
        assert finding.threshold.value == limit
        assert finding.score == float(finding.significance_map.max())
        assert finding.anomalous == (finding.score >= limit) == bool(finding.regions)
        if finding.regions:
            assert finding.regions[0].score == finding.score


def test_the_models_own_threshold_is_one_half_and_says_where_it_comes_from() -> None:
    inspector = Inspector(small_model(alone=ModeConfig(source="found on the training sets")), device="cpu")
    assert (inspector.threshold.value, inspector.threshold.source) == (0.5, "found on the training sets")


def test_the_released_scoring_gives_the_heads_own_score(pictures: Path) -> None:
    inspector = Inspector(small_model(alone=RELEASED_SCORING.alone, slope=RELEASED_SCORING.slope), device="cpu")
    for finding in inspector.stream(pictures):
        assert finding.score == pytest.approx(finding.score_raw, abs=1.1e-6)


def test_what_the_picture_itself_says_is_its_own_patches_and_its_mirror_image() -> None:
    """Without its mirror image it is what ``score_alone`` finds, and a picture that is symmetric is looked at again."""
    model = small_model(mirror=False)
    plain, mirrored = Inspector(model, device="cpu"), Inspector(small_model(), device="cpu")
    half = np.random.default_rng(0).integers(0, 256, (8, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    symmetric = np.concatenate([half, half[:, ::-1]], 1)
    for pixels, again in ((symmetric, True), (np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8), False)):
        views = anyres(pixels, model.config.views)
        encoded = plain.engine.encode(views.pixels_NHW3)
        (part,) = plain.engine.expert(encoded, [len(views)])
        scoring, patch = model.config.scoring, plain.engine.patch
        found = score_alone(encoded.levels_NPD, part.map_Nhw, part.score_raw, views.geometry, scoring, patch)
        assert plain.inspect(pixels).score == pytest.approx(found, abs=1e-5)
        assert (abs((mirrored.inspect(pixels).score or 0) - found) > 1e-3) == again


def test_threshold_of_the_caller(pictures: Path) -> None:
    for value, anomalous in ((0.0, True), (1.0, False)):
        inspector = Inspector(small_model(), device="cpu", threshold=value)
        finding = inspector.inspect(pictures / "p0.png")
        assert finding.anomalous is anomalous
        assert inspector.threshold.source == "set by the caller"
    with pytest.raises(UsageError, match="threshold"):
        Inspector(small_model(), threshold=1.5)


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_out_of_memory_shrinks_the_pass_and_changes_nothing(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    inspector = Inspector(small_model(), device="cpu")
    reference = list(inspector.stream(pictures))
    encoder = encoder_of(inspector)
    whole = encoder.forward

    def small_memory(pixels: torch.Tensor) -> object:
        if len(pixels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(pixels)

    monkeypatch.setattr(encoder_of(inspector), "forward", small_memory)
    for finding, expected in zip(inspector.stream(pictures), reference, strict=True):
        same(finding, expected)


def test_no_memory_at_all_is_a_device_error(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(small_model(), device="cpu")

    def no_memory(pixels: torch.Tensor) -> object:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(encoder_of(inspector), "forward", no_memory)
    with pytest.raises(DeviceError, match="out of memory"):
        list(inspector.stream(pictures))


def test_other_failures_of_the_network_are_not_hidden(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(small_model(), device="cpu")

    def broken(pixels: torch.Tensor) -> object:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(encoder_of(inspector), "forward", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        list(inspector.stream(pictures))


def test_bfloat16_is_close(pictures: Path) -> None:
    full, half = (Inspector(small_model(), device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    assert half.info.dtype == "bfloat16"
    for path in pictures.glob("*.png"):
        assert half.inspect(path).score_raw == pytest.approx(full.inspect(path).score_raw, abs=0.05)


def test_unknown_devices_and_types() -> None:
    with pytest.raises(UsageError, match="flux"):
        Inspector(small_model(), device="flux")
    with pytest.raises(DeviceError, match="cuda:99"):
        Inspector(small_model(), device="cuda:99")
    with pytest.raises(UsageError, match="int8"):
        Inspector(small_model(), dtype="int8")


def test_load_takes_a_folder_and_names_what_is_missing(small_folder: Path, pictures: Path) -> None:
    loaded = load(str(small_folder), device="cpu")
    same(loaded.inspect(pictures / "p0.png"), Inspector(small_model(), device="cpu").inspect(pictures / "p0.png"))
    with pytest.raises(WeightsError, match="nowhere"):
        load("nowhere")
