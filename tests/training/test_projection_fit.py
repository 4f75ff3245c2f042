"""Least squares against numpy's, and the projection fitted with it: exact where it can be, and nothing else touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from anomaly_ov.data.hashing import sha256_file
from anomaly_ov.errors import ConfigError, LeakageError
from anomaly_ov.models.config import ContextConfig, ProjectionPart
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.features import Features
from anomaly_ov.models.folder import digest
from anomaly_ov.models.hub import WEIGHTS_FILE
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.training import projection_fit
from anomaly_ov.training.crops import Crops
from anomaly_ov.training.distill import UNSEEN
from anomaly_ov.training.projection_fit import Sums, fit_projection
from anomaly_ov.training.recipe import ProjectionPartRecipe, ProjectionRecipe
from anomaly_ov.training.teacher import MobileNetEdgeTPU, load_teacher
from model_fixtures import small_model

Array = npt.NDArray[np.float64]
PARTS = (ProjectionPartRecipe((0,), ("block7",)), ProjectionPartRecipe((0, 1), ("block11", "block19")))
RECIPE = ProjectionRecipe("made", ("photos",), PARTS, crops=40, ridge=1e-3, smallest=0.5, synthetic=0.25, seed=3)


def rows(count: int = 200, inputs: int = 5, targets: int = 3) -> tuple[Array, Array]:
    """Inputs of unlike means and spreads, and targets that they explain in part."""
    rng = np.random.default_rng(0)
    x = rng.normal(rng.normal(0, 5, inputs), rng.uniform(0.5, 3, inputs), (count, inputs))
    return x, x @ rng.normal(size=(inputs, targets)) + rng.normal(4, 0.7, (count, targets))


def summed(x: Array, y: Array, pieces: int = 1) -> Sums:
    sums = Sums(x.shape[1], y.shape[1])
    for xs, ys in zip(np.array_split(x, pieces), np.array_split(y, pieces), strict=True):
        sums.add(torch.from_numpy(xs), torch.from_numpy(ys))
    return sums


def by_numpy(x: Array, y: Array, ridge: float) -> tuple[Array, Array]:
    """Weight (targets, inputs) and bias: centred rows, with the penalty as further rows."""
    xc, yc = x - x.mean(0), y - y.mean(0)
    penalty = np.sqrt(ridge * len(x) * xc.var(0).mean()) * np.eye(x.shape[1])
    weight = np.linalg.lstsq(np.vstack([xc, penalty]), np.vstack([yc, np.zeros((len(penalty), y.shape[1]))]))[0]
    return weight.T, y.mean(0) - x.mean(0) @ weight


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 0.5, 100.0])
def test_sums_solve_like_numpy(ridge: float) -> None:
    x, y = rows()
    weight, bias = summed(x, y, pieces=7).solve(ridge)
    expected_weight, expected_bias = by_numpy(x, y, ridge)
    assert weight.dtype == bias.dtype == torch.float32
    np.testing.assert_allclose(weight, expected_weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bias, expected_bias, rtol=1e-5, atol=1e-5)


def test_neither_the_order_nor_the_pieces_matter() -> None:
    x, y = rows()
    order = np.random.default_rng(1).permutation(len(x))
    whole, turned = summed(x, y).solve(1e-3), summed(x[order], y[order], pieces=31).solve(1e-3)
    for one, other in zip(whole, turned, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_inputs_that_say_nothing_get_no_weight() -> None:
    x, y = rows()
    x[:, 2] = 0  # a channel that never fires
    x[:, 4] = x[:, 3]
    weight, bias = summed(x, y).solve(0.0)
    assert float(weight[:, 2].abs().max()) < 1e-6
    torch.testing.assert_close(weight[:, 4], weight[:, 3], rtol=1e-4, atol=1e-5)
    best = by_numpy(x[:, [0, 1, 3]], y, 0.0)
    said = x @ weight.double().numpy().T + bias.double().numpy()
    np.testing.assert_allclose(said, x[:, [0, 1, 3]] @ best[0].T + best[1], rtol=1e-4, atol=1e-4)


def test_explained_is_the_share_of_variance_on_those_rows() -> None:
    x, y = rows()
    weight, bias = summed(x[:100], y[:100]).solve(0.0)
    held_out = summed(x[100:], y[100:], pieces=3)
    misses = x[100:] @ weight.double().numpy().T + bias.double().numpy() - y[100:]
    expected = 1 - np.square(misses).sum() / np.square(y[100:] - y[100:].mean(0)).sum()
    assert 0.5 < expected < 0.99
    assert held_out.explained(weight, bias) == pytest.approx(expected, abs=1e-9)
    assert held_out.explained(weight * 0, torch.from_numpy(y[100:].mean(0))) == pytest.approx(0, abs=1e-9)
    assert held_out.explained(weight, bias + 100) < 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(root / "photos" / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(MobileNetEdgeTPU().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that already has a projection, and a fusion that belongs to it."""
    plain = small_model()
    config = replace(plain.config, projection=(ProjectionPart((1,), 4),), context=ContextConfig(usual=0.7))
    model = AnomalyModel(config, plain.encoder)
    model.expert.load_state_dict(plain.expert.state_dict())
    return model.save_pretrained(tmp_path_factory.mktemp("base"), card="# Its card")


@pytest.fixture(autouse=True)
def few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection_fit, "HELD_OUT", 24)


def looked_at(encoder: Encoder, data: Path, indices: range, recipe: ProjectionRecipe = RECIPE) -> tuple[Tensor, Tensor]:
    """The crops that the fit sees, and their pixels in -1..1."""
    crops = Crops(
        sorted((data / "photos").iterdir()),
        size=encoder.image_size,
        seed=recipe.seed,
        smallest=recipe.smallest,
        synthetic=recipe.synthetic,
    )
    stacked = torch.stack([crops[k] for k in indices])
    return stacked, stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def cells(map_NChw: Tensor) -> Array:
    """Teacher's map on the student's grid of 4 x 4, one row per cell: pooled or enlarged by whole factors."""
    size = map_NChw.shape[-1]
    if size < 4:
        map_NChw = nn.functional.interpolate(map_NChw, (4, 4), mode="bilinear", align_corners=False)
    elif size > 4:
        map_NChw = nn.functional.avg_pool2d(map_NChw, size // 4)
    flat: Array = map_NChw.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    return flat


def test_the_fit_is_numpys_on_the_same_crops(data: Path, base: Path, teacher: Path, tmp_path: Path) -> None:
    explained = fit_projection(RECIPE, data, base, teacher, tmp_path)
    fitted, network = AnomalyModel.from_pretrained(tmp_path), load_teacher(teacher)
    pairs = []
    for indices in (range(RECIPE.crops), range(UNSEEN, UNSEEN + 24)):
        crops, pixels = looked_at(fitted.encoder, data, indices)
        with torch.inference_mode():
            levels = fitted.encoder(fitted.encoder.normalise(crops)).levels_NPD
            taps = network(pixels)
        inputs = [torch.cat([levels[k] for k in part.levels], -1).flatten(0, 1).double().numpy() for part in PARTS]
        pairs.append([(x, np.hstack([cells(taps[tap]) for tap in p.taps])) for x, p in zip(inputs, PARTS, strict=True)])
    for k, (linear, share) in enumerate(zip(fitted.projection.maps, explained, strict=True)):
        weight, bias = by_numpy(*pairs[0][k], RECIPE.ridge)
        scale = np.abs(weight).max()
        np.testing.assert_allclose(linear.weight.detach(), weight, atol=2e-3 * scale)  # saved as fp16
        x, y = pairs[1][k]
        misses = x @ weight.T + bias - y
        expected = 1 - np.square(misses).sum() / np.square(y - y.mean(0)).sum()
        assert share == pytest.approx(expected, abs=1e-3)


class Linear(nn.Module):
    """A teacher whose taps are linear in the student's levels."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        torch.manual_seed(1)
        self.maps = nn.ModuleDict({f"block{7 + k}": nn.Linear(w, 6) for k, w in enumerate(encoder.level_widths)})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        levels = self.encoder(pixels).levels_NPD
        pairs = zip(self.maps.items(), levels, strict=True)
        return {name: linear(tokens).mT.unflatten(-1, (4, 4)) for (name, linear), tokens in pairs}


def test_an_exactly_linear_teacher_is_recovered(
    data: Path, base: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = Linear(AnomalyModel.from_pretrained(base).encoder)
    monkeypatch.setattr(projection_fit, "load_teacher", lambda path: linear)
    parts = (ProjectionPartRecipe((0, 1), ("block7",)), ProjectionPartRecipe((1,), ("block8",)))
    recipe = replace(RECIPE, parts=parts, ridge=0.0, synthetic=0.5)
    assert fit_projection(recipe, data, base, teacher, tmp_path) == pytest.approx((1, 1), abs=1e-4)
    model = AnomalyModel.from_pretrained(tmp_path)
    crops, pixels = looked_at(model.encoder, data, range(1000, 1008), recipe)
    with torch.inference_mode():
        tokens = model.projection(model.encoder(model.encoder.normalise(crops)))
        taps = linear(pixels)
    for found, name in zip(tokens.split(6, -1), ("block7", "block8"), strict=True):
        wanted = taps[name].flatten(2).mT
        assert float(nn.functional.cosine_similarity(found, wanted, dim=-1).min()) > 0.999


def test_only_the_projection_changes_and_what_hung_on_the_old_one(
    data: Path, base: Path, teacher: Path, tmp_path: Path
) -> None:
    fit_projection(RECIPE, data, base, teacher, tmp_path)
    before, after = AnomalyModel.from_pretrained(base), AnomalyModel.from_pretrained(tmp_path)
    for part in ("encoder", "expert"):
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert old.keys() == new.keys()
        for name in old:  # saved as fp16, unlike its start
            torch.testing.assert_close(new[name], old[name], rtol=1e-3, atol=1e-6)
    widths = (48, 96 + 160)
    assert after.config.projection == tuple(ProjectionPart(p.levels, w) for p, w in zip(PARTS, widths, strict=True))
    assert after.config.context == ContextConfig()
    assert after.config.revision == digest(tmp_path / WEIGHTS_FILE)
    unchanged = {"projection": (), "context": ContextConfig(), "revision": ""}
    assert replace(after.config, **unchanged) == replace(before.config, **unchanged)  # type: ignore[arg-type]
    assert (tmp_path / "README.md").read_text().startswith("# Its card")
    features: Features = after.encoder(torch.zeros(1, 3, 32, 32))
    assert after.projection(features).shape == (1, 16, sum(widths))


def test_the_record_says_where_the_projection_comes_from(data: Path, base: Path, teacher: Path, tmp_path: Path) -> None:
    explained = fit_projection(RECIPE, data, base, teacher, tmp_path)
    record = json.loads((tmp_path / "projection.json").read_text())
    assert record["explained"] == list(explained)
    assert record["recipe"]["parts"] == [{"levels": list(p.levels), "taps": list(p.taps)} for p in PARTS]
    assert record["data"]["teacher"] == sha256_file(teacher)
    assert record["data"]["start"] == digest(base / WEIGHTS_FILE)
    assert {"command", "commit", "seed", "versions", "machine"} <= record["provenance"].keys()
    assert record["provenance"]["seed"] == RECIPE.seed


def test_two_fits_are_one(data: Path, base: Path, teacher: Path, tmp_path: Path) -> None:
    first, again = (fit_projection(RECIPE, data, base, teacher, tmp_path / name) for name in ("first", "again"))
    assert first == again
    assert digest(tmp_path / "first" / WEIGHTS_FILE) == digest(tmp_path / "again" / WEIGHTS_FILE)
    fit_projection(replace(RECIPE, seed=1), data, base, teacher, tmp_path / "other")
    assert digest(tmp_path / "first" / WEIGHTS_FILE) != digest(tmp_path / "other" / WEIGHTS_FILE)


def test_a_model_without_a_card_gets_the_plain_one(data: Path, base: Path, teacher: Path, tmp_path: Path) -> None:
    for name in ("config.json", WEIGHTS_FILE):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    fit_projection(RECIPE, data, tmp_path, teacher, tmp_path / "out")
    assert "No card was written" in (tmp_path / "out" / "README.md").read_text()


def test_the_teacher_sees_its_own_range_of_pixels(data: Path, base: Path, teacher: Path, tmp_path: Path) -> None:
    """Also where the encoder normalises otherwise."""
    model = AnomalyModel.from_pretrained(base)
    config = replace(model.config, encoder=replace(model.config.encoder, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    shifted = AnomalyModel(replace(config, revision="shifted"))
    shifted.load_state_dict(model.state_dict())
    shifted.save_pretrained(tmp_path / "shifted")
    fit_projection(RECIPE, data, tmp_path / "shifted", teacher, tmp_path / "out")
    fitted = AnomalyModel.from_pretrained(tmp_path / "out")
    crops, pixels = looked_at(fitted.encoder, data, range(RECIPE.crops))
    with torch.inference_mode():
        x = fitted.encoder(fitted.encoder.normalise(crops)).levels_NPD[0].flatten(0, 1).double().numpy()
        weight, _ = by_numpy(x, cells(load_teacher(teacher)(pixels)["block7"]), RECIPE.ridge)
    np.testing.assert_allclose(fitted.projection.maps[0].weight.detach(), weight, atol=2e-3 * np.abs(weight).max())


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (ProjectionPartRecipe((0,), ("block7", "block99")), "no tap or level block99"),
        (ProjectionPartRecipe((0, 2), ("block7",)), "no tap or level 2"),
    ],
)
def test_a_tap_or_level_that_does_not_exist_is_named(
    data: Path, base: Path, teacher: Path, tmp_path: Path, part: ProjectionPartRecipe, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        fit_projection(replace(RECIPE, parts=(*PARTS, part)), data, base, teacher, tmp_path / "out")
    assert "block20" in str(caught.value.hint)
    assert "levels: 0..1" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_projection_is_not_fitted_on_test_pictures(data: Path, base: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/copy.png").write_bytes((data / "photos/2.png").read_bytes())
    with pytest.raises(LeakageError):
        fit_projection(RECIPE, data, base, teacher, tmp_path / "out", test=[tmp_path / "test"])
    assert not (tmp_path / "out").exists()
