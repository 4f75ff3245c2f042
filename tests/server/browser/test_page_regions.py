"""The page finds the same regions as the service does."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from anomaly_ov.scoring.regions import regions as expected
from anomaly_ov.scoring.regions import rle_decode
from browser.fake_server import png, spots

pytestmark = pytest.mark.browser

FIND = """async ([grey, width, height, threshold, imageWidth, imageHeight]) => {
  const { regions } = await import("/static/regions.js");
  const bytes = Uint8Array.from(atob(grey), (c) => c.charCodeAt(0));
  return regions(bytes, width, height, threshold, imageWidth, imageHeight);
}"""
OUTLINE = """async (runs) => (await import("/static/regions.js")).outline({ runs })"""


def found(page, grey_HW: np.ndarray, threshold: float, image_wh: tuple[int, int]) -> list[dict]:
    height, width = grey_HW.shape
    return page.evaluate(FIND, [base64.b64encode(grey_HW.tobytes()).decode(), width, height, threshold, *image_wh])


def test_same_boxes_areas_and_scores_as_the_service_on_random_maps(page, server) -> None:
    page.goto(f"{server}/healthz")
    generator = np.random.default_rng(0)
    for turn in range(40):
        height, width = (int(side) for side in generator.integers(1, 60, 2))
        noise = generator.random((height, width))
        smooth = ndimage.gaussian_filter(noise, turn % 3) if turn % 3 else noise
        grey = np.rint(255 * (smooth - smooth.min()) / max(np.ptp(smooth), 1e-9)).astype(np.uint8)
        threshold = [0.0, 0.5, 0.5019607843137255, 1.0, float(generator.random())][turn % 5]
        scale = generator.uniform(1, 4, 2) if turn % 2 else (1, 1)
        image_wh = (int(width * scale[0]), int(height * scale[1]))
        ours = found(page, grey, threshold, image_wh)
        theirs = expected(grey.astype(np.float32) / np.float32(255), threshold, image_wh)
        assert [tuple(r["box"]) for r in ours] == [r.box for r in theirs]
        assert [r["area"] for r in ours] == [r.area for r in theirs]
        assert [r["peak"] for r in ours] == pytest.approx([r.score for r in theirs], abs=1e-6)
        assert [r["mean"] for r in ours] == pytest.approx([r.score_mean for r in theirs], abs=1e-6)


def test_runs_and_outline_are_the_mask(page, server) -> None:
    page.goto(f"{server}/healthz")
    map_HW = spots(3, 64, 48, 2)
    grey = np.rint(map_HW * 255).astype(np.uint8)
    (first, *_), (same, *_) = found(page, grey, 0.4, (64, 48)), expected(grey / np.float32(255), 0.4, (64, 48))
    mask = np.zeros(grey.shape, bool)
    for y, start, end in first["runs"]:
        mask[y, start:end] = True
    assert np.array_equal(mask, rle_decode(same.rle))
    path = page.evaluate(OUTLINE, first["runs"])
    sides = np.abs(np.diff(np.pad(mask, 1).astype(int), axis=1)).sum()
    assert path.count("v1") == sides
    assert page.evaluate(OUTLINE, [[y, 0, 1] for y in range(7000)]) is None


def test_a_megapixel_map_takes_less_than_a_frame(page, server) -> None:
    page.goto(f"{server}/healthz")
    data = base64.b64encode(png(spots(5, 1024, 1024, 6))).decode()
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1024, 1024)
    times = page.evaluate(
        """async (data) => {
          const { regions } = await import("/static/regions.js");
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const bitmap = await createImageBitmap(new Blob([bytes]));
          const pen = new OffscreenCanvas(1024, 1024).getContext("2d");
          pen.drawImage(bitmap, 0, 0);
          const grey = pen.getImageData(0, 0, 1024, 1024).data.filter((_, i) => i % 4 === 0);
          const times = [];
          for (let turn = 0; turn < 15; turn += 1) {
            const begun = performance.now();
            regions(grey, 1024, 1024, 0.3 + turn / 40, 1024, 1024);
            times.push(performance.now() - begun);
          }
          return times;
        }""",
        data,
    )
    assert sorted(times)[2] < 16, times
