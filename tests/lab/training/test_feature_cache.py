"""The cache of features: what its key depends on, what it keeps, and the samples that read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.errors import DataError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.features import Features
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.training import multi_view_samples
from anomaly_ov_lab.training.feature_cache import Encode, FeatureCache, feature_key
from anomaly_ov_lab.training.multi_view_samples import MultiViewSamples
from training_fixtures import encoder_config, labelled_folder

VIEWS = ViewsConfig(base_size=32, grids=((1, 1), (2, 1), (2, 2)), cap=64)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(encoder_config())


def encode_with(encoder: Encoder) -> Encode:
    def encode(pixels_NHW3: np.ndarray) -> Features:
        with torch.inference_mode():
            return encoder(encoder.normalise(torch.from_numpy(pixels_NHW3)))

    return encode


@pytest.mark.parametrize("change", [{"levels": (2, 1)}, {"mean": (0.4, 0.4, 0.4)}, {"grid_hw": (2, 2)}])
def test_the_same_weights_read_otherwise_have_another_key(encoder: Encoder, change: dict[str, object]) -> None:
    other = Encoder(replace(encoder_config(), **change))  # type: ignore[arg-type]
    other.load_state_dict(encoder.state_dict())
    assert feature_key(other, VIEWS, "torch") != feature_key(encoder, VIEWS, "torch")


def test_the_key_follows_weights_views_and_engine_and_nothing_else(encoder: Encoder) -> None:
    same, other = Encoder(encoder_config()), Encoder(encoder_config())
    same.load_state_dict(encoder.state_dict())
    assert feature_key(same, VIEWS, "torch") == feature_key(encoder, VIEWS, "torch")
    assert feature_key(other, VIEWS, "torch") != feature_key(encoder, VIEWS, "torch")
    assert feature_key(encoder, replace(VIEWS, cap=128), "torch") != feature_key(encoder, VIEWS, "torch")
    assert feature_key(encoder, VIEWS, "onnx") != feature_key(encoder, VIEWS, "torch")


def test_features_come_back_and_a_damaged_entry_is_made_again(encoder: Encoder, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "key")
    assert cache.get("ab" * 32) is None
    made = cache.get_or_encode("ab" * 32, encode_with(encoder), PIXELS)
    live = encode_with(encoder)(PIXELS)
    assert made.grid_hw == (4, 4)
    for stored, own in zip((made.final_NPD, *made.levels_NPD), (live.final_NPD, *live.levels_NPD), strict=True):
        assert stored.dtype == torch.float16
        assert torch.equal(stored, own.half())
    path = cache.path("ab" * 32)
    path.write_bytes(path.read_bytes()[:-10])
    assert cache.get("ab" * 32) is None
    assert torch.equal(cache.get_or_encode("ab" * 32, encode_with(encoder), PIXELS).final_NPD, live.final_NPD.half())


def test_what_float16_cannot_hold_is_kept_in_float32(encoder: Encoder, tmp_path: Path) -> None:
    loud = Encoder(encoder_config())
    loud.load_state_dict(
        {k: v * 1e6 if k.endswith("normalization.weight") else v for k, v in encoder.state_dict().items()}
    )
    made = FeatureCache(tmp_path, "key").get_or_encode("ab" * 32, encode_with(loud), PIXELS)
    assert made.final_NPD.dtype == torch.float32
    assert torch.isfinite(made.final_NPD).all()
    assert made.final_NPD.abs().max() > 65504


def test_a_filled_cache_is_not_decoded_for_again(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = discover(labelled_folder(tmp_path / "set"))
    one = one.keep(replace(sample, mask=None) for sample in one)
    cache = FeatureCache(tmp_path / "cache", "key")
    MultiViewSamples(cache, VIEWS, [one], 0).fill(encode_with(encoder))
    monkeypatch.setattr(multi_view_samples, "read", lambda path: pytest.fail(f"{path} was decoded"))
    samples = MultiViewSamples(cache, VIEWS, [one], 0)
    samples.fill(encode_with(encoder))
    assert {float(samples[k].label) for k in range(20)} == {0.0, 1.0}
    next((tmp_path / "cache").rglob("*.safetensors")).unlink()
    with pytest.raises(DataError, match="are gone"):
        [samples[k] for k in range(200)]


def test_targets_of_masks_of_another_shape(encoder: Encoder, tmp_path: Path) -> None:
    """Half the resolution gives the same targets; another aspect, and an empty mask, give unknown ones."""
    folder = labelled_folder(tmp_path / "set", count=3)
    masks = sorted((folder / "ground_truth/spot").iterdir())

    def targets() -> dict[str, torch.Tensor]:
        samples = MultiViewSamples(FeatureCache(tmp_path / "cache", "key"), VIEWS, [discover(folder)], 0)
        samples.fill(encode_with(encoder))
        return {
            str(sample.image): torch.from_numpy(samples._target(sample, features))
            for sample in discover(folder)
            if sample.label
            for features in [samples._cache.get(samples._shas[sample.image])]
            if features is not None
        }

    before = list(targets().values())
    assert all(torch.isfinite(target).all() and target.max() == 1 for target in before)
    with Image.open(masks[0]) as mask:
        mask.resize((mask.width * 2, mask.height * 2), Image.Resampling.NEAREST).save(masks[0])
    Image.fromarray(np.full((48, 20), 255, np.uint8)).save(masks[1])
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(masks[2])
    after = list(targets().values())
    assert [target.shape for target in after] == [target.shape for target in before]
    assert torch.equal(after[0], before[0])
    assert torch.isnan(after[1]).all()
    assert torch.isnan(after[2]).all()
