"""Made-up letters for labels and engravings."""

from __future__ import annotations

import numpy as np

from anomaly_ov_lab.data.synthetic.noise import Array, Rng, between


def glyph(rng: Rng, d: int) -> Array:
    """A letter-like sign (d, d): a few straight and round strokes on a 3 x 5 frame."""
    line = np.arange(d, dtype=np.float32) / (d - 1) * 2 - 1
    y, x = line[:, None], line[None, :]
    pen, soft = np.float32(between(rng, 0.1, 0.22)), np.float32(d / 2)
    sign = np.zeros((d, d), np.float32)
    for _ in range(int(rng.integers(2, 5))):
        style = int(rng.integers(4))
        at = np.float32(rng.choice([-0.7, 0.0, 0.7]))
        if style == 0:
            bar = np.maximum(np.abs(x - at * 0.8), (np.abs(y) - 0.85) + pen)
        elif style == 1:
            bar = np.maximum(np.abs(y - at), (np.abs(x) - 0.65) + pen)
        elif style == 2:
            bar = np.maximum(np.abs(x - y * np.float32(rng.choice([-0.7, 0.7]))), np.abs(y) - 0.85 + pen)
        else:
            bar = np.abs(np.sqrt((x * 1.2) ** 2 + (y - at * 0.6) ** 2) - 0.42)
        sign = np.maximum(sign, np.clip((pen - bar) * soft + 0.5, 0, 1))
    return sign
