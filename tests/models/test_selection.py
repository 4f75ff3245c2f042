"""The selection layer: whose shares it shows, on which scale, where in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_ov.errors import UsageError
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.maps import significance_map
from anomaly_ov.images.views import ViewsConfig, anyres_geometry
from anomaly_ov.inspector import load
from anomaly_ov.models.selection import EVEN, HALF, patch_shares, selection_map
from anomaly_ov.models.selector import Selector
from model_fixtures import CELLS, SIDE

WIDTH, PATCHES = 6, CELLS * CELLS
ONE_VIEW = Geometry((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), (0, 0, SIDE, SIDE), (0, 0), SIDE)


def selector(attend: bool, seed: int = 0) -> Selector:
    torch.manual_seed(seed)
    return Selector(WIDTH, 5, (CELLS, CELLS), attend).eval().requires_grad_(False)


def views(count: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    tokens_NPD = torch.randn(count, PATCHES, WIDTH, generator=generator)
    return tokens_NPD, torch.rand(count, CELLS, CELLS, generator=generator).numpy()


@pytest.mark.parametrize("attend", [True, False])
def test_shares_are_what_the_tokens_are_made_of(attend: bool) -> None:
    """The mean of a view's four tokens is the mean of its patches by their shares."""
    own, (tokens_NPD, map_Nhw) = selector(attend), views(3)
    share_NP = patch_shares(own, tokens_NPD, map_Nhw)
    assert torch.allclose(share_NP.sum(-1), torch.ones(3))
    local_NQD = own(tokens_NPD, torch.from_numpy(map_Nhw).flatten(1).log()).local_NQD
    made_ND = torch.einsum("np,npd->nd", share_NP, tokens_NPD)
    assert torch.allclose(made_ND, local_NQD.mean(1), atol=1e-5)


def test_patches_that_count_the_same_are_shown_as_stated() -> None:
    """Tokens that are all alike draw the same attention, whatever the map says; so does an even map without it."""
    tokens_NPD, map_Nhw = views(1)
    alike = selection_map(selector(True), torch.ones_like(tokens_NPD), map_Nhw, ONE_VIEW)
    even = selection_map(selector(False), tokens_NPD, np.full_like(map_Nhw, 0.3), ONE_VIEW)
    for found in (alike, even):
        assert found.shape == (SIDE, SIDE)
        assert found.dtype == np.float32
        assert found == pytest.approx(EVEN, abs=1e-5)


def test_the_scale_is_absolute() -> None:
    """One patch that has all of a quadrant's weight: 4 of 16 even shares, wherever it lies and whatever else is."""
    map_Nhw = np.full((1, CELLS, CELLS), 0.5, np.float32)
    map_Nhw[0, :2, :2] = 1e-20
    map_Nhw[0, 1, 0] = 1
    found = selection_map(selector(False), views(1)[0], map_Nhw, ONE_VIEW)
    cell = SIDE // CELLS
    centre = found[cell + cell // 2 - 1 : cell + cell // 2 + 1, cell // 2 - 1 : cell // 2 + 1]
    expected = 4 / (4 + HALF)
    assert centre.mean() == pytest.approx(expected, abs=0.03)
    assert found.max() <= expected + 1e-6
    assert found[: cell // 2, : cell // 2].max() == pytest.approx(0, abs=1e-3)
    assert found[-1, -1] == pytest.approx(EVEN)


def test_a_map_that_has_underflowed_counts_all_patches_the_same() -> None:
    tokens_NPD, map_Nhw = views(1)
    found = selection_map(selector(False), tokens_NPD, np.zeros_like(map_Nhw), ONE_VIEW)
    assert found == pytest.approx(EVEN, abs=1e-5)


def test_views_are_blended_as_maps_are() -> None:
    geometry = anyres_geometry((90, 60), ViewsConfig(base_size=SIDE, grids=((1, 1), (2, 1), (3, 2)), cap=None))
    tokens_NPD, map_Nhw = views(geometry.views)
    own = selector(True)
    found = selection_map(own, tokens_NPD, map_Nhw, geometry)
    share_NP = patch_shares(own, tokens_NPD, map_Nhw).numpy()
    ratio_HW = significance_map(share_NP.reshape(map_Nhw.shape), geometry) * PATCHES
    assert found.shape == (60, 90)
    assert np.allclose(found, ratio_HW / (ratio_HW + HALF), atol=1e-6)
    assert found.std() > 0.001
    with pytest.raises(UsageError, match="views"):
        selection_map(own, tokens_NPD[:1], map_Nhw[:1], geometry)


@pytest.mark.parametrize("name", ["p1.png", "p2.png", "p5.png"])
def test_of_an_inspector(small_folder: Path, pictures: Path, name: str) -> None:
    """On the pixels of the finding's map; a finding that kept its features is not looked at again."""
    inspector = load(str(small_folder), device="cpu")
    path = pictures / name
    found = inspector.selection_map(path)
    (finding,) = inspector.inspect_views([path])
    assert finding.significance_map is not None
    assert found.shape == finding.significance_map.shape
    assert 0 < found.min() <= found.max() < 1
    calls: list[int] = []
    hook = inspector.encoder.register_forward_hook(lambda *_: calls.append(1))
    again = inspector.selection_map(finding)
    hook.remove()
    assert calls == []
    assert np.array_equal(again, found)
    with pytest.raises(UsageError, match="has not kept"):
        inspector.selection_map(inspector.inspect(path))
