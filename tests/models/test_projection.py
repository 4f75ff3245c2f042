"""The projection: fitted parts, raw levels, fixed directions, and the model folder that holds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_ov.errors import CheckpointMismatch, ConfigError
from anomaly_ov.models.config import ModelConfig, ProjectionPart
from anomaly_ov.models.features import Features
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.projection import Projection
from anomaly_ov.models.token_maps import RANDOM_WIDTH, TokenMaps, unit
from model_fixtures import small_config, small_model

WIDTHS = (5, 7)
PARTS = (ProjectionPart((0,), 4), ProjectionPart((0, 1), 6))


def features(*widths: int, views: int = 3, patches: int = 9, dtype: torch.dtype = torch.float32) -> Features:
    generator = torch.Generator().manual_seed(1)
    levels = tuple(torch.randn(views, patches, width, generator=generator).to(dtype) for width in widths)
    return Features(levels[-1], levels, (3, 3))


def assert_unit(vectors: Tensor) -> None:
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


def fitted(seed: int = 0) -> Projection:
    torch.manual_seed(seed)
    return Projection(PARTS, WIDTHS).eval()


@torch.no_grad()
def test_fitted_parts_are_linear_then_unit() -> None:
    projection, given = fitted(), features(*WIDTHS)
    first, second = given.levels_NPD
    parts = [
        F.normalize(first @ projection.maps[0].weight.T + projection.maps[0].bias, dim=-1),
        F.normalize(torch.cat([first, second], -1) @ projection.maps[1].weight.T + projection.maps[1].bias, dim=-1),
    ]
    found = projection(given)
    torch.testing.assert_close(found, torch.cat(parts, -1) / 2**0.5)
    assert found.shape == (3, 9, 10) == (3, 9, projection.width)
    assert_unit(found)


@torch.no_grad()
def test_cosine_of_tokens_is_the_mean_of_the_parts_cosines() -> None:
    found = fitted()(features(*WIDTHS))
    whole = found[0, 0] @ found[1, 1]
    parts = [F.cosine_similarity(found[0, 0, part], found[1, 1, part], dim=0) for part in (slice(0, 4), slice(4, 10))]
    assert whole.item() == pytest.approx(sum(parts).item() / 2, abs=1e-6)


def test_raw_levels_where_nothing_is_fitted() -> None:
    given = features(*WIDTHS)
    projection = Projection((), WIDTHS)
    expected = torch.cat([F.normalize(level, dim=-1) for level in given.levels_NPD], -1) / 2**0.5
    torch.testing.assert_close(projection(given), expected)
    assert projection.width == sum(WIDTHS)
    assert not list(projection.parameters())


def test_wide_raw_levels_go_through_fixed_directions() -> None:
    wide = 3 * RANDOM_WIDTH
    torch.manual_seed(1)
    first = Projection((), (wide, 5))
    torch.manual_seed(2)
    second = Projection((), (wide, 5))
    given = features(wide, 5, patches=60)
    found = first(given)
    assert found.shape == (3, 60, RANDOM_WIDTH + 5)
    assert_unit(found)
    assert torch.equal(second(given), found)
    assert not first.state_dict()
    # Angles survive about as well as one over the square root of the width says.
    cosine = F.normalize(given.levels_NPD[0][0], dim=-1)
    kept = F.normalize(found[0, :, :RANDOM_WIDTH], dim=-1)
    assert (kept @ kept.T - cosine @ cosine.T).std() < 1.5 * RANDOM_WIDTH**-0.5


def test_directions_are_the_same_in_every_version() -> None:
    """Context files hold what they made of pictures: these numbers are part of the format."""
    wide = 3 * RANDOM_WIDTH
    basis_1PD = torch.eye(wide)[None]
    (found_PD,) = Projection((), (wide,))._parts(Features(basis_1PD, (basis_1PD,), (1, wide)))[0]
    assert found_PD.dtype == torch.float32
    corners = [found_PD[0, 0].item(), found_PD[0, 1].item(), found_PD[-1, -1].item()]
    assert corners == pytest.approx([-0.061592, 0.081726, -0.038298], abs=1e-6)
    other = 2 * RANDOM_WIDTH
    basis_1PD = torch.eye(other)[None]
    (narrower_PD,) = Projection((), (other,))._parts(Features(basis_1PD, (basis_1PD,), (1, other)))[0]
    assert not torch.allclose(narrower_PD, found_PD[:other], atol=0.01)


def test_directions_move_with_the_model() -> None:
    projection = Projection((), (3 * RANDOM_WIDTH, 5)).to("meta")
    assert {buffer.device.type for buffer in projection.buffers()} == {"meta"}


def test_construction_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy()
    Projection((), (3 * RANDOM_WIDTH,))
    assert torch.equal(torch.rand(1), expected)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_any_floating_type_comes_out_as_float32(dtype: torch.dtype) -> None:
    for projection in (fitted(), Projection((), WIDTHS)):
        found = projection(features(*WIDTHS, dtype=dtype))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, projection(features(*WIDTHS)), atol=0.03, rtol=0)


@torch.no_grad()
def test_descriptor_is_one_unit_vector_per_view() -> None:
    given = features(*WIDTHS)
    for projection in (fitted(), Projection((), WIDTHS)):
        found = projection.descriptor(given)
        assert found.shape == (3, 2 * projection.width)
        assert_unit(found)
        alone = Features(given.final_NPD[1:2], tuple(level[1:2] for level in given.levels_NPD), given.grid_hw)
        torch.testing.assert_close(projection.descriptor(alone)[0], found[1])


def test_descriptor_does_not_see_where_but_how_mixed() -> None:
    given, projection = features(*WIDTHS), Projection((), WIDTHS)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    moved = Features(given.final_NPD, tuple(level[:, order] for level in given.levels_NPD), given.grid_hw)
    torch.testing.assert_close(projection.descriptor(moved), projection.descriptor(given))
    means = tuple(level.mean(1, keepdim=True).expand_as(level) for level in given.levels_NPD)
    even = Features(given.final_NPD, means, given.grid_hw)
    assert F.cosine_similarity(projection.descriptor(even), projection.descriptor(given)).max() < 0.9


def test_features_stay_as_they_are() -> None:
    given = features(*WIDTHS)
    before = [level.clone() for level in given.levels_NPD]
    projection = Projection((), WIDTHS)
    projection(given)
    projection.descriptor(given)
    assert all(torch.equal(level, old) for level, old in zip(given.levels_NPD, before, strict=True))


def test_tokens_without_direction_stay_finite() -> None:
    zero = Features(torch.zeros(1, 9, 7), (torch.zeros(1, 9, 5), torch.zeros(1, 9, 7)), (3, 3))
    projection = Projection((), WIDTHS)
    assert projection(zero).isfinite().all()
    assert projection.descriptor(zero).isfinite().all()


# ---- in plain arrays ------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [PARTS, ()], ids=["fitted", "raw"])
def test_the_arrays_say_what_the_module_says(parts: tuple[ProjectionPart, ...], dtype: torch.dtype) -> None:
    widths = WIDTHS if parts else (5, 2 * RANDOM_WIDTH)
    torch.manual_seed(0)
    projection, given = Projection(parts, widths), features(*widths, dtype=dtype)
    maps, levels_NPL = projection.arrays(), given.level_arrays()
    for found, expected in (
        (maps.tokens(levels_NPL), projection(given)),
        (maps.descriptor(levels_NPL), projection.descriptor(given)),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_arrays_are_a_copy() -> None:
    projection, levels_NPL = fitted(), features(*WIDTHS).level_arrays()
    maps = projection.arrays()
    before = maps.tokens(levels_NPL)
    with torch.no_grad():
        for parameter in projection.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(maps.tokens(levels_NPL), before)


def test_raw_levels_need_no_module() -> None:
    widths = (5, 2 * RANDOM_WIDTH)
    levels_NPL = features(*widths).level_arrays()
    found, expected = (maps.tokens(levels_NPL) for maps in (TokenMaps.raw(widths), Projection((), widths).arrays()))
    np.testing.assert_array_equal(found, expected)


def test_arrays_without_direction_stay_finite_and_all_stay_as_they_are() -> None:
    for levels_NPL in ([np.zeros((1, 9, width), np.float32) for width in WIDTHS], features(*WIDTHS).level_arrays()):
        before = [level_NPL.copy() for level_NPL in levels_NPL]
        for maps in (fitted().arrays(), TokenMaps.raw(WIDTHS)):
            assert np.isfinite(maps.tokens(levels_NPL)).all()
            assert np.isfinite(maps.descriptor(levels_NPL)).all()
        np.testing.assert_array_equal(unit(levels_NPL[0]), unit(before[0]))
        assert all(np.array_equal(one, other) for one, other in zip(levels_NPL, before, strict=True))


# ---- in a model folder ---------------------------------------------------------------------------------------------


def config_with(*parts: ProjectionPart) -> ModelConfig:
    return replace(small_config(), projection=parts)


def model_with(*parts: ProjectionPart) -> AnomalyModel:
    torch.manual_seed(0)
    return AnomalyModel(config_with(*parts)).eval()


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 2e-3)])
def test_saved_and_loaded_with_its_parts(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    model, given = model_with(*PARTS), features(8, 16)
    model.save_pretrained(tmp_path / "m", dtype)
    loaded = AnomalyModel.from_pretrained(tmp_path / "m")
    assert loaded.config.projection == PARTS
    torch.testing.assert_close(loaded.projection(given), model.projection(given), atol=tolerance, rtol=0)


def test_fitting_a_projection_makes_another_revision(tmp_path: Path) -> None:
    """A context belongs to the projection it was made with."""
    revisions = set()
    for shift in (0.0, 0.1):
        model = model_with(*PARTS)
        model.config = replace(model.config, revision="")
        with torch.no_grad():
            model.projection.maps[0].bias.add_(shift)
        model.save_pretrained(tmp_path / str(shift))
        revisions.add(AnomalyModel.from_pretrained(tmp_path / str(shift)).config.revision)
    assert len(revisions) == 2


def test_a_model_without_parts_has_no_weights_for_them(tmp_path: Path) -> None:
    model = small_model()
    assert not [name for name in model.state_dict() if name.startswith("projection")]
    model.save_pretrained(tmp_path)
    assert AnomalyModel.from_pretrained(tmp_path).config.projection == ()


def test_parts_that_the_weights_lack(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    text = config.read_text()
    assert '"projection": []' in text
    config.write_text(text.replace('"projection": []', '"projection": [{"levels": [0], "width": 4}]'))
    with pytest.raises(CheckpointMismatch, match="projection"):
        AnomalyModel.from_pretrained(tmp_path)


def test_a_level_that_the_encoder_lacks() -> None:
    with pytest.raises(ConfigError, match="projection reads level 2, the encoder gives 2"):
        model_with(ProjectionPart((0,), 4), ProjectionPart((1, 2), 4))


@pytest.mark.parametrize(
    "part", ['{"levels": [], "width": 4}', '{"levels": [-1], "width": 4}', '{"levels": [0], "width": 0}']
)
def test_parts_that_make_no_sense(tmp_path: Path, part: str) -> None:
    small_model().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"projection": []', f'"projection": [{part}]'))
    with pytest.raises(ConfigError, match="projection"):
        AnomalyModel.from_pretrained(tmp_path)
