"""Tokens of an image and what it says by itself: scales, places, mirror images, its look as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.context.mirror import mirror_distance, symmetry
from anomaly_ov.context.own_patches import own_patch_distance
from anomaly_ov.context.tokens import MIRROR_SHARE, ImageTokens, image_tokens
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import ViewsConfig, anyres_geometry
from anomaly_ov.models.token_maps import unit_tokens
from anomaly_ov.scoring.cells import Cells, Floats, Scales
from anomaly_ov.scoring.evidence import FLOOR, log_distance
from context_fixtures import held, unit

CELLS, WIDTH = 4, 6
VIEWS = ViewsConfig(base_size=32, grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2, 3)), cap=96)
DIGEST = "ab" * 32


def geometry_of(width: int, height: int, *, single_crop: bool = True) -> Geometry:
    views = ViewsConfig(base_size=32, grids=VIEWS.grids, cap=96, single_crop=single_crop)
    return anyres_geometry((width, height), views)


def levels_of(geometry: Geometry, seed: int = 0, views: int | None = None) -> list[Floats]:
    generator = np.random.default_rng(seed)
    shape = (geometry.views if views is None else views, CELLS * CELLS, WIDTH)
    return [generator.normal(size=shape).astype(np.float32) for _ in range(2)]


def tokens_of(geometry: Geometry, levels: list[Floats] | None = None, **options: object) -> ImageTokens:
    return image_tokens(levels or levels_of(geometry), (CELLS, CELLS), geometry, DIGEST, **options)  # type: ignore[arg-type]


def test_tokens_are_unit_vectors_of_the_base_view_and_the_crops_in_order() -> None:
    geometry = geometry_of(64, 64)
    levels, found = levels_of(geometry), tokens_of(geometry)
    expected_NPD = unit_tokens(levels)
    np.testing.assert_array_equal(found.tokens.whole, expected_NPD[0])
    np.testing.assert_array_equal(found.tokens.detail, expected_NPD[1:].reshape(-1, 2 * WIDTH))
    np.testing.assert_allclose(np.linalg.norm(found.tokens.detail, axis=1), 1, atol=1e-6)
    assert found.digest == DIGEST


def test_padding_has_no_tokens() -> None:
    geometry = geometry_of(96, 40)
    found, cells = tokens_of(geometry), Cells.of(geometry, (CELLS, CELLS))
    assert found.tokens.map(len) == Scales(int(cells.shown_Nhw[0].sum()), int(cells.shown_Nhw[1:].sum()))
    assert len(found.tokens.detail) < 9 * CELLS * CELLS
    expected_NPD = unit_tokens(levels_of(geometry))
    np.testing.assert_array_equal(found.tokens.detail, expected_NPD[1:][cells.shown_Nhw[1:].reshape(-1, CELLS * CELLS)])


def test_an_image_that_fits_one_crop_has_no_details() -> None:
    found = tokens_of(geometry_of(30, 20, single_crop=False))
    assert found.tokens.map(np.shape) == Scales((16, 2 * WIDTH), (0, 2 * WIDTH))
    assert found.own.map(len) == Scales(16, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 90), (33, 97), (300, 301), (10, 10)])
@pytest.mark.parametrize("patch", [None, 7.0])
def test_images_of_all_shapes_have_tokens_and_evidence_that_is_a_number(
    size: tuple[int, int], patch: float | None
) -> None:
    found = tokens_of(geometry_of(*size), patch=patch)
    assert found.cells.patch == patch
    assert found.tokens.map(len) == found.own.map(len)
    for own in (found.own.whole, found.own.detail):
        assert len(own)
        assert own.dtype == np.float32
        assert np.isfinite(own).all()
        assert own.min() >= np.log(FLOOR) - 1e-5


# ---- what the image says by itself ----------------------------------------------------------------------------------


def test_own_evidence_is_the_logarithm_of_the_distance_to_the_images_other_patches_at_each_scale() -> None:
    geometry = geometry_of(96, 40)
    found = tokens_of(geometry)
    places = Scales(np.argwhere(found.cells.shown_Nhw[0]), found.cells.stitched())
    for scale in ("whole", "detail"):
        expected = log_distance(own_patch_distance(getattr(found.tokens, scale), getattr(places, scale)))
        np.testing.assert_array_equal(getattr(found.own, scale), expected)


def test_crops_are_one_image_a_patch_may_repeat_in_another_crop() -> None:
    geometry = geometry_of(64, 64)
    (level, other) = levels_of(geometry)
    for one in (level, other):
        one[4, 10] = one[1, 0]  # of the crop at the lower right and the one at the upper left
    found = tokens_of(geometry, [level, other]).own.detail.reshape(4, CELLS * CELLS)
    assert found[0, 0] == found[3, 10] == pytest.approx(np.log(FLOOR))
    assert np.delete(found.ravel(), [0, 3 * 16 + 10]).min() > -4


def test_a_neighbour_across_a_crops_border_does_not_count_as_repeating() -> None:
    geometry = geometry_of(64, 64)
    (level, other) = levels_of(geometry)
    for one in (level, other):
        one[2, 4] = one[1, 7]  # second row: last cell of the left crop, first cell of the right one
    found = tokens_of(geometry, [level, other]).own.detail.reshape(4, CELLS * CELLS)
    assert min(found[0, 7], found[1, 4]) > -4


def test_switched_off_there_is_no_own_evidence() -> None:
    found = tokens_of(geometry_of(64, 64), own_patches=False)
    assert found.own.map(len) == found.tokens.map(len)
    assert not found.own.whole.any()
    assert not found.own.detail.any()


def smooth_levels(geometry: Geometry) -> list[Floats]:
    """Cells that are all somewhat alike, as of an image that could be symmetric."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=WIDTH)
    return [(base + 0.5 * generator.normal(size=(geometry.views, 16, WIDTH))).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_the_mirror_image_shares_the_base_views_evidence_by_how_symmetric_the_image_is(noise: float) -> None:
    geometry = geometry_of(64, 64)
    levels = smooth_levels(geometry)
    generator = np.random.default_rng(1)
    mirrored = [level[:1] + noise * generator.normal(size=level[:1].shape).astype(np.float32) for level in levels]
    plain, found = tokens_of(geometry, levels), tokens_of(geometry, levels, mirrored_FPL=mirrored)
    own_Q = own_patch_distance(plain.tokens.whole, np.argwhere(plain.cells.shown_Nhw[0]))
    shape = (CELLS, CELLS, 2 * WIDTH)
    mirror_hw = mirror_distance(plain.tokens.whole.reshape(shape), unit_tokens(mirrored).reshape(1, *shape))
    share = MIRROR_SHARE * symmetry(own_Q, mirror_hw.ravel())
    assert 0 < share <= MIRROR_SHARE
    own, mirror = log_distance(own_Q), log_distance(mirror_hw.ravel())
    np.testing.assert_allclose(found.own.whole, (1 - share) * own + share * mirror, atol=1e-5)
    # The crops' cells change as the base view does beneath them, between its lowest and its highest change.
    change, beneath = share * (mirror - own), found.own.detail - plain.own.detail
    assert change.min() - 1e-5 <= beneath.min() < beneath.max() <= change.max() + 1e-5
    np.testing.assert_allclose(beneath, plain.cells.beneath(change.astype(np.float32)), atol=1e-5)


def test_a_mirror_image_that_is_no_likeness_changes_nothing() -> None:
    geometry = geometry_of(64, 64)
    levels = smooth_levels(geometry)
    strange = levels_of(geometry, seed=9, views=2)
    assert np.array_equal(
        tokens_of(geometry, levels, mirrored_FPL=strange).own.whole, tokens_of(geometry, levels).own.whole
    )


# ---- its look, and what is kept -------------------------------------------------------------------------------------


def test_descriptor_is_of_the_base_view() -> None:
    geometry = geometry_of(64, 64)
    found = tokens_of(geometry)
    crops, base = levels_of(geometry), levels_of(geometry)
    for level in crops:
        level[1:] = 1.0
    for level in base:
        level[0] = np.random.default_rng(9).normal(size=level[0].shape)
    np.testing.assert_allclose(tokens_of(geometry, crops).descriptor_E, found.descriptor_E, atol=1e-6)
    assert np.linalg.norm(found.descriptor_E) == pytest.approx(1, abs=1e-5)
    assert np.abs(tokens_of(geometry, base).descriptor_E - found.descriptor_E).max() > 0.01


def test_without_tokens_lets_go_of_them_and_keeps_what_maps_are_made_of() -> None:
    found = tokens_of(geometry_of(64, 64))
    light = found.without_tokens()
    assert held(light.tokens.whole) == held(light.tokens.detail) == 0
    assert light.own is found.own
    assert light.cells is found.cells
    assert light.descriptor_E is found.descriptor_E


def test_tokens_without_direction_stay_numbers() -> None:
    """A black image may give zero tokens; they look like nothing."""
    geometry = geometry_of(64, 64)
    found = tokens_of(geometry, [np.zeros_like(level) for level in levels_of(geometry)])
    assert np.isfinite(found.own.whole).all()
    assert np.isfinite(found.descriptor_E).all()
    assert not np.isnan(unit(np.zeros((2, 3)))).any()
