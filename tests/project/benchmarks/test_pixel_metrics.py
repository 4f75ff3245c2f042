"""The plain way that the pixel benchmark races against measures the same thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anomaly_ov_lab.evaluation.pixel_metrics import pixel_metrics


def test_both_ways_agree(benchmark: Any) -> None:
    rng = np.random.default_rng(0)
    masks, maps = zip(*(benchmark.mask_and_map(rng, 96, 128) for _ in range(4)), strict=True)
    plain = benchmark.plain(np.stack(masks), np.stack(maps))
    ours = pixel_metrics(masks, maps)
    assert ours.pro is not None
    assert 0.05 < ours.pro < 0.95  # trivial neither way
    assert plain["auroc"] == pytest.approx(ours.auroc, abs=1e-9)
    assert plain["pro"] == pytest.approx(ours.pro, abs=5e-3)  # 200 thresholds sample the curve
