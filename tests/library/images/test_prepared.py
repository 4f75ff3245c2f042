"""Pictures made ready for the networks, in a run and one by one."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import ImageTooLarge, UnreadableImage
from anomaly_ov.images.prepared import ms_since, prepare, prepare_one
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source, expand
from anomaly_ov.images.views import ViewsConfig

CONFIG = ViewsConfig(base_size=32, grids=((1, 1), (2, 1), (1, 2), (2, 2), (3, 2)), cap=96)
PIXELS = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_in_a_run(path: Path) -> None:
    (source,) = expand([path])
    prepared = prepare(source, CONFIG, Limits())
    assert (prepared.id, prepared.image.path, prepared.image.width, prepared.image.height) == (
        str(path),
        str(path),
        200,
        100,
    )
    assert prepared.image.sha256 == prepared.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert prepared.error is None
    assert prepared.views is not None
    assert prepared.count == len(prepared.views) == prepared.views.geometry.views > 1
    assert prepared.preview_HW3 is None
    assert set(prepared.timing_ms) == {"read", "views"}
    assert all(ms > 0 for ms in prepared.timing_ms.values())


def test_preview_has_the_size_of_the_map(path: Path) -> None:
    (source,) = expand([path])
    preview_HW3 = prepare(source, CONFIG, Limits(), preview=True).preview_HW3
    assert preview_HW3 is not None
    assert preview_HW3.shape == (48, 96, 3)
    assert abs(float(preview_HW3.mean()) - float(PIXELS.mean())) < 2


def test_preview_of_a_small_picture_is_the_picture(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[:40, :60]).save(tmp_path / "small.png")
    (source,) = expand([tmp_path / "small.png"])
    assert np.array_equal(prepare(source, CONFIG, Limits(), preview=True).preview_HW3, PIXELS[:40, :60])


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n cut"])
def test_what_cannot_be_read_is_a_record_in_a_run(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    (source,) = expand([path])
    prepared = prepare(source, CONFIG, Limits())
    assert prepared.error is not None
    assert prepared.error.type == "UnreadableImage"
    assert "bad.png" in prepared.error.message
    assert (prepared.views, prepared.count, prepared.image.width) == (None, 0, None)
    assert (prepared.id, prepared.image.path) == (str(path), str(path))
    with pytest.raises(UnreadableImage):
        prepare_one(path, CONFIG, Limits())
    with pytest.raises(UnreadableImage):
        prepare_one(source, CONFIG, Limits())


def test_limits_hold_both_ways(path: Path) -> None:
    (source,) = expand([path])
    tight = Limits(max_pixels=1000)
    error = prepare(source, CONFIG, tight).error
    assert error is not None
    assert error.type == "ImageTooLarge"
    with pytest.raises(ImageTooLarge):
        prepare_one(PIXELS, CONFIG, tight)


def test_what_has_no_path_is_named_by_its_source() -> None:
    bad = prepare(Source(b"nothing", "array-3"), CONFIG, Limits())
    assert (bad.id, bad.image.path) == ("array-3", "array-3")


def test_one_by_one_takes_what_read_takes(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    (source,) = expand([path])
    found = [prepare_one(one, CONFIG, Limits()) for one in (str(path), path, source, PIXELS, buffer.getvalue())]
    assert [one.id for one in found[:3]] == [str(path)] * 3
    first = found[0].views
    assert first is not None
    for one in found:
        assert one.views is not None
        assert np.array_equal(one.views.pixels_NHW3, first.pixels_NHW3)


def test_whole_is_one_padded_view(path: Path) -> None:
    views = prepare_one(path, CONFIG, Limits(), whole=True).views
    assert views is not None
    assert views.pixels_NHW3.shape == (1, 32, 32, 3)
    assert (views.pixels_NHW3[0, 0] == 127).all()  # the bar above a wide picture
    assert views.pixels_NHW3[0, 16].std() > 1


def test_pages_are_told_apart(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((20, 20 + k, 3), 60 * k, np.uint8)) for k in range(3)]
    pages[0].save(tmp_path / "t.tif", save_all=True, append_images=pages[1:])
    sources = expand([tmp_path / "t.tif"])
    for prepared in (
        [prepare(s, CONFIG, Limits()) for s in sources],
        [prepare_one(s, CONFIG, Limits()) for s in sources],
    ):
        assert [one.image.width for one in prepared] == [20, 21, 22]
        assert len({one.digest for one in prepared}) == 3
        assert len({one.image.sha256 for one in prepared}) == 1
        assert [one.id.rsplit("#", 1)[1] for one in prepared] == ["page=1", "page=2", "page=3"]


def test_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 12.5)
    assert ms_since(12.0) == 500
