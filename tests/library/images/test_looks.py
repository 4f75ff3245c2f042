"""Words for measured looks."""

from __future__ import annotations

import pytest

from anomaly_ov.images.looks import shade_of, shape_of


@pytest.mark.parametrize(
    ("contrast", "words"),
    [
        (None, ""),
        ((0.0, 0.0, 0.0), " of about the brightness and colour around it"),
        ((-0.1, -0.1, -0.1), " darker than what is around it"),
        ((-0.2, -0.2, -0.2), " much darker than what is around it"),
        ((0.2, 0.2, 0.2), " much brighter than what is around it"),
        ((0.05, -0.02, -0.02), " redder than what is around it"),
        ((-0.1, 0.05, -0.05), " greener than what is around it"),
        ((0.1, 0.1, 0.0), " brighter and yellower than what is around it"),
        ((-0.02, -0.02, 0.1), " bluer than what is around it"),
    ],
)
def test_shades(contrast: tuple[float, float, float] | None, words: str) -> None:
    assert shade_of(contrast) == words


@pytest.mark.parametrize(
    ("elongation", "words"),
    [(None, "a region"), (1.9, "a region"), (2.0, "an elongated region"), (4.0, "a narrow region")],
)
def test_shapes(elongation: float | None, words: str) -> None:
    assert shape_of(elongation) == words
