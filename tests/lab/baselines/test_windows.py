"""Windows counted and listed; harmonic means against loops and closed forms."""

from __future__ import annotations

import pytest
import torch

from anomaly_ov.errors import ConfigError
from anomaly_ov_lab.baselines.winclip import harmonic_map, harmonic_mean, window_patches


@pytest.mark.parametrize(("size", "count"), [(1, 225), (2, 196), (3, 169), (15, 1)])
def test_counts_on_the_published_grid(size: int, count: int) -> None:
    windows = window_patches((15, 15), size)
    assert windows.shape == (count, size * size)
    assert all(len(set(one)) == size * size for one in windows.tolist())
    assert set(windows.flatten().tolist()) == set(range(225))


def test_windows_of_a_small_grid() -> None:
    assert window_patches((2, 3), 2).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]


@pytest.mark.parametrize("size", [0, 3])
def test_a_window_that_does_not_fit(size: int) -> None:
    with pytest.raises(ConfigError, match="does not fit into 2 x 3"):
        window_patches((2, 3), size)


def test_map_in_closed_form() -> None:
    """Four windows of 2 x 2 on 3 x 3: the middle lies in all, a corner in one, an edge in two."""
    scores = torch.tensor([[1.0, 0.75, 0.5, 0.25]])
    found = harmonic_map(scores, window_patches((3, 3), 2), (3, 3))[0]
    middle = 4 / (1 / 1 + 1 / 0.75 + 1 / 0.5 + 1 / 0.25)
    expected = torch.tensor([[1, 6 / 7, 0.75], [2 / 3, middle, 0.375], [0.5, 1 / 3, 0.25]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_map_against_a_loop() -> None:
    grid, windows = (5, 4), window_patches((5, 4), 3)
    scores = torch.rand(2, len(windows), generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    found = harmonic_map(scores, windows, grid)
    for picture in range(2):
        for patch in range(20):
            over = [float(scores[picture, i]) for i, one in enumerate(windows.tolist()) if patch in one]
            assert float(found[picture, patch // 4, patch % 4]) == pytest.approx(
                len(over) / sum(1 / score for score in over), abs=1e-6
            )


def test_zero_stays_zero() -> None:
    found = harmonic_map(torch.tensor([[0.0, 1.0]]), window_patches((1, 2), 1), (1, 2))
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1.0]]]), rtol=0, atol=1e-6)
    assert float(harmonic_mean(torch.tensor([[[[0.0]]], [[[0.9]]]]))) == pytest.approx(0, abs=1e-6)


def test_mean_of_scales() -> None:
    values = torch.tensor([0.2, 0.5, 1.0]).reshape(3, 1, 1, 1)
    assert float(harmonic_mean(values)) == pytest.approx(3 / (5 + 2 + 1), abs=1e-6)
