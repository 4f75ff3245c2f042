"""model.py: what is saved is what is loaded, exactly, or a named error."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anomaly_ov.errors import AnomalyOVError, CheckpointMismatch, ConfigError, UnsafeCheckpoint, WeightsError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models import weights
from anomaly_ov.models.config import EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.folder import digest, read_config
from anomaly_ov.models.model import AnomalyModel

WIDTHS = (8, 12, 16)
RESNET: dict[str, Any] = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 8,
    "hidden_sizes": list(WIDTHS),
    "depths": [1, 1, 1],
}
VIT: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 16,
    "image_size": 64,
}


def _config(kind: str = "resnet", **changes: Any) -> ModelConfig:
    backbone = {"resnet": RESNET, "vit": VIT}[kind]
    grid_hw = (4, 4)
    config = ModelConfig(
        name="test",
        encoder=EncoderConfig(backbone=backbone, levels=(1, 2, 3), final=3, image_size=64, grid_hw=grid_hw),
        expert=ExpertConfig(
            width=16, hidden=8, grid_hw=grid_hw, levels=3, level_widths=WIDTHS if kind == "resnet" else None
        ),
        views=ViewsConfig(base_size=64),
    )
    return replace(config, **changes)


def _trained(config: ModelConfig) -> AnomalyModel:
    """A model whose every weight and running statistic differs from its initial value."""
    model = AnomalyModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                module.num_batches_tracked.fill_(123)  # type: ignore[union-attr]
    return model


def _pixels(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_round_trip_in_float32_is_exact(tmp_path: Path, kind: str) -> None:
    model = _trained(_config(kind))
    folder = model.save_pretrained(tmp_path / "new" / "folder", card="# A card")
    loaded = AnomalyModel.from_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "README.md").read_text() == "# A card\n"
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    pixels = _pixels()
    with torch.inference_mode():
        want, got = model(pixels, (1, 2)), loaded(pixels, (1, 2))
    assert torch.equal(got.score_B, want.score_B)
    assert torch.equal(got.map_Nhw, want.map_Nhw)
    assert got.map_Nhw.shape == (3, 4, 4)


def test_config_comes_back_and_revision_is_the_digest(tmp_path: Path) -> None:
    model = _trained(_config())
    folder = model.save_pretrained(tmp_path)
    found = digest(folder / "model.safetensors")
    assert model.config.revision == found
    assert AnomalyModel.from_pretrained(folder).config == model.config == read_config(folder)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(folder)
    assert model.config.revision != found
    assert AnomalyModel.from_pretrained(folder).config.revision == model.config.revision


def test_a_chosen_revision_is_kept(tmp_path: Path) -> None:
    model = _trained(_config(revision="2026-01"))
    model.save_pretrained(tmp_path)
    assert AnomalyModel.from_pretrained(tmp_path).config.revision == "2026-01"


def test_a_folder_without_revision_gets_the_digest(tmp_path: Path) -> None:
    model = _trained(_config())
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["revision"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert AnomalyModel.from_pretrained(tmp_path).config.revision == model.config.revision


def test_half_on_disk_is_float32_in_memory(tmp_path: Path) -> None:
    model = _trained(_config())
    with torch.no_grad():
        model.expert.final_predictor[0].bias[0] = 70000.0
    full = (model.save_pretrained(tmp_path / "full") / "model.safetensors").stat().st_size
    folder = model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert (folder / "model.safetensors").stat().st_size < 0.8 * full
    loaded = AnomalyModel.from_pretrained(folder).state_dict()
    for name, value in model.state_dict().items():
        assert loaded[name].dtype == value.dtype, name
        torch.testing.assert_close(loaded[name], value, rtol=1e-3, atol=1e-4)
    assert "final_predictor.0.bias kept in float32" in (folder / "README.md").read_text()


def test_other_type_in_memory(tmp_path: Path) -> None:
    _trained(_config()).save_pretrained(tmp_path)
    model = AnomalyModel.from_pretrained(tmp_path, dtype=torch.float64)
    assert model(_pixels(1), (1,)).score_B.dtype == torch.float64


def test_encoder_and_expert_may_differ_in_type() -> None:
    model = _trained(_config())
    want = model(_pixels(1) * 0 + 100, (1,)).score_B.detach()
    model.encoder.bfloat16()
    got = model(_pixels(1) * 0 + 100, (1,)).score_B.detach()
    torch.testing.assert_close(got, want, rtol=0.1, atol=0.05)


def test_normalised_pixels_are_taken_as_they_are() -> None:
    model = _trained(_config())
    pixels = _pixels(2)
    with torch.inference_mode():
        assert torch.equal(model(pixels, (2,)).score_B, model(model.encoder.normalise(pixels), (2,)).score_B)


def test_saving_again_replaces_and_a_failure_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _trained(_config())
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        next(model.parameters()).add_(1)

    def full(*args: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("anomaly_ov.models.model.write_atomic", full)
        with pytest.raises(OSError, match="disk full"):
            model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() != before["model.safetensors"]


def test_weights_of_another_save_are_refused(tmp_path: Path) -> None:
    one = _trained(_config()).save_pretrained(tmp_path / "one")
    two = _trained(_config()).save_pretrained(tmp_path / "two")
    (one / "model.safetensors").write_bytes((two / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointMismatch, match="was saved with"):
        AnomalyModel.from_pretrained(one)


def test_wrong_names_and_shapes_are_named(tmp_path: Path) -> None:
    folder = _trained(_config(revision="mine")).save_pretrained(tmp_path)
    state = weights.read(folder / "model.safetensors")
    name = "encoder.network.embedder.embedder.convolution.weight"
    state["stray"] = torch.ones(1)
    state[name] = torch.ones(9, 3, 7, 7)
    del state["expert.final_predictor.2.bias"]
    weights.write(folder / "model.safetensors", state)
    with pytest.raises(CheckpointMismatch) as caught:
        AnomalyModel.from_pretrained(folder)
    for part in (name, "stray", "expert.final_predictor.2.bias", "[9, 3, 7, 7]", "transformers"):
        assert part in str(caught.value)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{'name': ")


def _a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def _binary(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")


def _huge(folder: Path) -> None:
    (folder / "config.json").write_text(" " * (5 * 2**20))


def _unknown_field(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text()) | {"colour": "red"}
    (folder / "config.json").write_text(json.dumps(values))


def _other_format(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text()) | {"format": "anomaly-ov/9"}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (_no_config, WeightsError, "config.json is missing"),
        (_no_weights, WeightsError, "no weights at"),
        (_truncated, UnsafeCheckpoint, "no complete safetensors"),
        (_no_json, ConfigError, "not valid JSON"),
        (_a_list, ConfigError, "must hold a mapping"),
        (_binary, ConfigError, "not valid JSON"),
        (_huge, ConfigError, "larger than"),
        (_unknown_field, ConfigError, "colour"),
        (_other_format, ConfigError, "format"),
    ],
)
def test_spoilt_folders(tmp_path: Path, spoil: Any, kind: type[AnomalyOVError], text: str) -> None:
    folder = _trained(_config(revision="mine")).save_pretrained(tmp_path)
    spoil(folder)
    with pytest.raises(kind, match=text) as caught:
        AnomalyModel.from_pretrained(folder)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"width": 15}, "expert.width is 15, the encoder gives 16"),
        ({"grid_hw": (4, 5)}, "expert.grid_hw"),
        ({"levels": 2, "level_widths": (8, 12)}, "expert.levels is 2"),
        ({"level_widths": None}, "expert.level_widths"),
    ],
)
def test_an_expert_that_does_not_fit_is_refused(changes: dict[str, Any], text: str) -> None:
    config = _config()
    with pytest.raises(ConfigError, match=text):
        AnomalyModel(replace(config, expert=replace(config.expert, **changes)))


def test_views_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"views\.base_size is 32, the encoder gives 64"):
        AnomalyModel(_config(views=ViewsConfig(base_size=32)))


def test_a_fused_encoder_infers_but_is_not_saved(tmp_path: Path) -> None:
    model = _trained(_config())
    pixels = _pixels(2)
    with torch.inference_mode():
        want = model(pixels, (2,)).score_B
        model.encoder = model.encoder.fuse()
        torch.testing.assert_close(model(pixels, (2,)).score_B, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointMismatch, match="the model in memory"):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_sensible_types_are_stored(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="float32 or float16"):
        _trained(_config()).save_pretrained(tmp_path, dtype=torch.bfloat16)


def test_a_residual_model_loads_without_transformers_or_the_compiler(tmp_path: Path) -> None:
    """The cold start of the embedded model: importing either takes longer than importing torch."""
    _trained(_config()).save_pretrained(tmp_path)
    script = (
        "import sys; from anomaly_ov.models.model import AnomalyModel; import torch\n"
        "model = AnomalyModel.from_pretrained(sys.argv[1])\n"
        "with torch.inference_mode(): model(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), (1,))\n"
        "print([name for name in ('transformers', 'torch._dynamo', 'sklearn', 'scipy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
