"""Noise fields and masks: statistics, determinism, and borders that fade to exactly nothing."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov_lab.data.synthetic.noise import blur, fractal, relief, smooth, streaks, stream
from anomaly_ov_lab.data.synthetic.shapes import blob, polygon, strokes, wander, window


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_fractal_noise_is_standardised_and_seeded(slope: float) -> None:
    field = fractal(stream(1), 96, slope)
    assert field.dtype == np.float32
    assert abs(float(field.mean())) < 1e-3
    assert float(field.std()) == pytest.approx(1, abs=1e-3)
    assert np.array_equal(field, fractal(stream(1), 96, slope))
    assert not np.array_equal(field, fractal(stream(2), 96, slope))


def test_steeper_noise_is_smoother() -> None:
    rough, cloudy = (float(np.abs(np.diff(fractal(stream(3), 128, s), axis=0)).mean()) for s in (0.5, 2.0))
    assert cloudy < 0.4 * rough


def test_wide_blur_is_close_to_the_exact_one() -> None:
    from scipy import ndimage

    field = smooth(stream(5), 128, 12) + fractal(stream(6), 128, 1.0)
    exact = ndimage.gaussian_filter(field.astype(np.float64), 6, mode="nearest")
    assert float(np.abs(blur(field, 6)[8:-8, 8:-8] - exact[8:-8, 8:-8]).mean()) < 0.15 * float(exact.std())


def test_streaks_run_along_rows() -> None:
    field = streaks(stream(1), 96, 20)
    assert np.abs(np.diff(field, axis=1)).mean() < 0.5 * np.abs(np.diff(field, axis=0)).mean()


def test_relief_is_flat_on_flat_ground_and_signed_by_the_light() -> None:
    assert not relief(np.full((9, 9), 3, np.float32), (-1, 0)).any()
    slope = np.broadcast_to(np.arange(9, dtype=np.float32)[:, None], (9, 9))
    assert relief(slope, (-1.0, 0.0))[4, 4] == -1
    assert relief(slope, (1.0, 0.0))[4, 4] == 1


@pytest.mark.parametrize("centre", [(64.0, 64.0), (3.0, 120.0), (127.0, 1.0)])
def test_masks_fade_to_nothing_inside_the_picture(centre: tuple[float, float]) -> None:
    for seed in range(5):
        rng = stream(seed)
        area = window(128, centre, 20)
        path = wander(rng, (0, 0), 0.3, 60, 4, 0.3)
        for mask in (
            blob(rng, area, 16, 6, 0.6),
            strokes(area, [(path, 4.0)]),
            polygon(area, [(-30, -30), (30, 0), (0, 30)]),
        ):
            assert mask.shape == area.shape
            assert float(mask.min()) >= 0
            assert float(mask.max()) <= 1
            if area.rows.start > 0:
                assert not mask[0].any()
            if area.rows.stop < 128:
                assert not mask[-1].any()
            if area.columns.start > 0:
                assert not mask[:, 0].any()
            if area.columns.stop < 128:
                assert not mask[:, -1].any()


def test_blob_has_about_the_wanted_area() -> None:
    areas = [float(blob(stream(s), window(256, (128, 128), 70), 25, 1.0, 0.2).sum()) for s in range(20)]
    assert np.median(areas) == pytest.approx(np.pi * 25**2, rel=0.2)
