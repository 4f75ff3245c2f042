"""The report of a run: what stands on it, what it leaves out, and that nothing is fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.records import ErrorInfo, Finding, ImageInfo, ModelInfo, Threshold
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.evaluation.detect import MOST_SHOWN, DetectionResult, evaluate_detection
from anomaly_ov_lab.evaluation.page.page import write_report
from anomaly_ov_lab.evaluation.page.thumbnails import thumbnail


class Brightest:
    """Calls bright pixels anomalous."""

    def __init__(self, threshold: float | None = 0.6, maps: bool = True) -> None:
        self._threshold = None if threshold is None else Threshold(threshold, "by <hand>")
        self._maps = maps

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("fake", "rev1", "cpu", "float32")

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        for source in sources:
            try:
                grey_HW = np.asarray(Image.open(source.item).convert("L"), dtype=np.float32) / 255
            except OSError:
                error = ErrorInfo("UnreadableImage", "no picture")
                yield Finding(source.id, ImageInfo(source.item), self.info, error=error)
                continue
            score = float(grey_HW.max())
            yield Finding(
                source.id,
                ImageInfo(source.item, grey_HW.shape[1], grey_HW.shape[0]),
                self.info,
                score=score,
                threshold=self._threshold,
                significance_map=grey_HW if self._maps else None,
            )


class Page(HTMLParser):
    """What a browser would load, and which tags are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _picture(path: Path, peak: int, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 80, size, dtype=np.uint8)
    pixels[5:9, 5:9] = peak
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _set(root: Path, normal: int = 12, anomalous: int = 12, masks: bool = False) -> Path:
    for i in range(normal):
        _picture(root / f"normal/{i}.png", 100 + 8 * i, i)
    for i in range(anomalous):
        _picture(root / f"abnormal/{i}.png", 130 + 8 * i, 50 + i)
        if masks:
            mask = np.zeros((40, 30), np.uint8)
            mask[5:9, 5:9] = 255
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / f"masks/{i}.png")
    return root


def _report(root: Path, out: Path, detector: Brightest | None = None) -> tuple[DetectionResult, str, str]:
    result = evaluate_detection(detector or Brightest(), discover(root), out, draws=50)
    markdown, page = (path.read_text(encoding="utf-8") for path in write_report(out, result))
    parser = Page()
    parser.feed(page)
    assert parser.open == []
    assert all(url.startswith("data:image/jpeg;base64,") for url in parser.loads)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert len(page) < 3_000_000
    return result, markdown, page


def test_a_set_without_masks(tmp_path: Path) -> None:
    result, markdown, page = _report(_set(tmp_path / "set"), tmp_path / "out")
    auroc = f"{100 * (result.main.scores['score'].auroc or 0):.1f}"
    assert f"<b>{auroc} %</b>" in page
    assert f"| {auroc} [" in markdown
    assert page.count("<svg") == 3
    assert page.count('class="upright"') == 1
    assert page.count("<circle") == 2
    assert "by &lt;hand&gt;" in page
    # The worst of both labels, each with its map though pixel metrics need none.
    assert page.count("<img") == 2 * 2 * MOST_SHOWN
    assert result.main.pixels is None
    shown = re.findall(r'alt="((?:ab)?normal/\d+\.png)"', page)
    assert shown[:3] == ["abnormal/0.png", "abnormal/1.png", "abnormal/2.png"]
    assert shown[MOST_SHOWN : MOST_SHOWN + 2] == ["normal/11.png", "normal/10.png"]
    assert 'class="wrong">not flagged' in page
    assert 'class="wrong">flagged' in page
    for text in ("fake, revision rev1", "12 normal, 12 anomalous", "score &gt;= 0.6"):
        assert text in page


def test_kept_maps_change_no_pixel_figure(tmp_path: Path) -> None:
    """Maps kept for the page, of pictures without a mask, must not count as free of defects."""
    root = _set(tmp_path / "set/a", masks=True).parent
    alone = evaluate_detection(Brightest(), discover(root), tmp_path / "alone", draws=50).main.pixels
    _set(root / "b")
    result, _, page = _report(root, tmp_path / "out")
    assert result.pooled.pixels is not None
    assert alone is not None
    assert (result.pooled.pixels.images, result.pooled.pixels.auroc) == (alone.images, alone.auroc)
    assert "mean over categories" in page
    assert "All pictures pooled" in page


@pytest.mark.parametrize(("normal", "anomalous"), [(5, 0), (0, 5), (1, 0), (1, 1)])
def test_few_pictures_and_one_label_only(tmp_path: Path, normal: int, anomalous: int) -> None:
    _, _, page = _report(_set(tmp_path / "set", normal, anomalous), tmp_path / "out")
    assert page.count("<svg") == (3 if normal and anomalous else 1)
    assert page.count("<img") == 2 * (normal + anomalous)
    assert ("one label only" in page) == (not (normal and anomalous))


def test_without_a_threshold_or_maps(tmp_path: Path) -> None:
    _, markdown, page = _report(_set(tmp_path / "set"), tmp_path / "out", Brightest(threshold=None, maps=False))
    assert "the detector has none" in page
    assert "the detector has none" in markdown
    assert 'class="upright"' not in page
    assert "<circle" not in page
    assert "flagged</span>" not in page
    assert page.count("<img") == 2 * MOST_SHOWN


def test_pictures_unreadable_gone_or_changed(tmp_path: Path) -> None:
    root = _set(tmp_path / "set")
    (root / "normal/3.png").write_bytes(b"no picture")
    result = evaluate_detection(Brightest(), discover(root), tmp_path / "out", draws=50)
    (root / "abnormal/0.png").unlink()
    _picture(root / "abnormal/1.png", 255, 999)
    page = write_report(tmp_path / "out", result)[1].read_text()
    assert page.count("the picture is gone") == 1
    assert page.count("no longer the one that was scored") == 1
    assert "could not be read, left out: 1" in page
    assert "1 unreadable" in page


def test_maps_gone_since(tmp_path: Path) -> None:
    root = _set(tmp_path / "set")
    result = evaluate_detection(Brightest(), discover(root), tmp_path / "out", draws=50)
    for path in (tmp_path / "out/maps").rglob("*.png"):
        path.unlink()
    assert write_report(tmp_path / "out", result)[1].read_text().count("<img") == 2 * MOST_SHOWN


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    root = tmp_path / "<b>set & co"
    _picture(root / "normal/a.png", 90, 1)
    _picture(root / "abnormal/<img src=x onerror=alert(1)>.png", 200, 2)
    _, _, page = _report(root, tmp_path / "out")
    assert "&lt;b&gt;set &amp; co" in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "<img src=x" not in page


def test_resumed_runs_have_the_same_page_but_for_their_speed(tmp_path: Path) -> None:
    root = _set(tmp_path / "set")
    pages = [_report(root, tmp_path / "out")[2] for _ in range(2)]
    images = [re.findall(r'src="([^"]+)"', page) for page in pages]
    assert images[0] == images[1]


def test_the_page_stays_small_whatever_the_pictures(tmp_path: Path) -> None:
    """Noise, the worst there is for JPEG."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (500, 500, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    one = thumbnail(tmp_path / "noise.png", None, rng.random((500, 500), dtype=np.float32))
    assert one.picture is not None
    assert one.map is not None
    assert (one.width, one.height) == (224, 224)
    assert 2 * MOST_SHOWN * (len(one.picture) + len(one.map)) < 2_800_000


def test_a_mask_is_outlined_not_filled(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", 0, 1, (200, 200))
    mask = np.zeros((200, 200), np.uint8)
    mask[60:140, 60:140] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    plain, outlined = (
        np.asarray(_decoded(thumbnail(tmp_path / "a.png", None, None, m).picture)).astype(int)
        for m in (None, tmp_path / "mask.png")
    )
    change = np.abs(plain - outlined).max(axis=2)
    assert change[90:130, 90:130].max() < 60
    assert change[60:72, 90:130].max() > 100
    assert thumbnail(tmp_path / "a.png", None, None, tmp_path / "none.png").picture is not None


def _decoded(url: str | None) -> Image.Image:
    import base64
    import io

    assert url is not None
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A file's name may hold any bytes but two: the page and the table are written, escaped and on their lines."""
    root = _set(tmp_path / "set")
    (root / "normal/0.png").rename(os.fsdecode(bytes(root / "normal") + b"/\xff\x1b[31m\n.png"))
    (root / "normal/1.png").write_bytes(b"no picture")
    (root / "normal/1.png").rename(os.fsdecode(bytes(root / "normal") + b"/\xfe\n.png"))
    _, markdown, page = _report(root, tmp_path / "out")
    assert "\x1b" not in markdown + page
    assert "could not be read, left out: 1 (&#39;normal/\\udcfe\\n.png" in page
    assert "'normal/\\udcfe\\n.png" in markdown
