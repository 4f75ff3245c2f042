"""The inspector: order, batching, errors, devices, memory; with a random model that runs in milliseconds."""

from __future__ import annotations

import gc
import math
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
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.records import Detector, Finding, level_of
from model_fixtures import small_model


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector(small_model(map_threshold=0.6), device="cpu")


def same(first: Finding, second: Finding) -> None:
    assert first.score_raw == pytest.approx(second.score_raw, abs=1e-5)
    assert first.score_map == pytest.approx(second.score_map, abs=1e-5)
    assert first.significance_map is not None
    assert second.significance_map is not None
    np.testing.assert_allclose(first.significance_map, second.significance_map, atol=1e-5)


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
    assert finding.level == level_of(finding.score_raw or 0)
    assert finding.map is not None
    assert finding.map.grid == (8, 12)
    assert finding.error is None


def test_map_shows_where(inspector: Inspector) -> None:
    """A patch that differs must change the map there and hardly elsewhere: the geometry leads back to the place."""
    plain = np.full((96, 96, 3), 90, np.uint8)
    marked = plain.copy()
    marked[64:96, 0:32] = np.random.default_rng(1).integers(0, 256, (32, 32, 3))
    before, after = inspector.inspect(plain).significance_map, inspector.inspect(marked).significance_map
    assert before is not None
    assert after is not None
    change = abs(after - before)
    assert change[68:92, 4:28].mean() > 3 * change[:32, 64:].mean()


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


def test_score_is_fused_and_compared_with_the_threshold(pictures: Path) -> None:
    calibration = {"head_weight": 0.5, "map_weight": 2.0, "bias": -1.0, "threshold": 0.9, "threshold_source": "test"}
    finding = Inspector(small_model(**calibration), device="cpu").inspect(pictures / "p0.png")
    assert finding.score_raw is not None
    assert finding.score_map is not None

    def logit(p: float) -> float:
        return math.log(p / (1 - p))

    expected = 1 / (1 + math.exp(1 - 0.5 * logit(finding.score_raw) - 2 * logit(finding.score_map)))
    assert finding.score == pytest.approx(expected, abs=1e-9)
    assert finding.threshold is not None
    assert (finding.threshold.value, finding.threshold.source) == (0.9, "test")
    assert finding.anomalous == (expected >= 0.9)


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
    whole = inspector.encoder.forward

    def small_memory(pixels: torch.Tensor) -> object:
        if len(pixels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(pixels)

    monkeypatch.setattr(inspector.encoder, "forward", small_memory)
    for finding, expected in zip(inspector.stream(pictures), reference, strict=True):
        same(finding, expected)


def test_no_memory_at_all_is_a_device_error(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(small_model(), device="cpu")

    def no_memory(pixels: torch.Tensor) -> object:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(inspector.encoder, "forward", no_memory)
    with pytest.raises(DeviceError, match="out of memory"):
        list(inspector.stream(pictures))


def test_other_failures_of_the_network_are_not_hidden(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(small_model(), device="cpu")

    def broken(pixels: torch.Tensor) -> object:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(inspector.encoder, "forward", broken)
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
