"""onnx_folder.py, linked.py, traced.py: a folder with graphs that hold no weights, or a folder as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from anomaly_ov.errors import CheckpointMismatch, UsageError, WeightsError
from anomaly_ov.models.arrays import FeatureArrays
from anomaly_ov.models.engines.interface import forward
from anomaly_ov.models.engines.onnx import open_onnx
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.export import onnx_folder
from anomaly_ov.models.export.linked import link, precision_of
from anomaly_ov.models.export.onnx_folder import STEPS, export_onnx
from anomaly_ov.models.export.traced import trace_encoder
from anomaly_ov.models.model import AnomalyModel
from engine_fixtures import LITE, SIGLIP, pictures, random_detector, same_outputs


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without graphs, float32."""
    return random_detector(LITE).save_pretrained(tmp_path_factory.mktemp("export") / "plain", card="# A card")


@pytest.fixture(scope="module")
def exported(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(plain, tmp_path_factory.mktemp("export") / "deep" / "out")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_a_whole_model(plain: Path, exported: Path) -> None:
    assert files(exported) == ["README.md", "config.json", "encoder.onnx", "expert.onnx", "model.safetensors"]
    for file in ("README.md", "config.json", "model.safetensors"):
        assert (exported / file).read_bytes() == (plain / file).read_bytes()
    assert AnomalyModel.from_pretrained(exported).config == open_onnx(exported).config


def test_weights_are_stored_once_and_nothing_of_this_machine(exported: Path) -> None:
    for name in ("encoder.onnx", "expert.onnx"):
        graph = onnx.load(exported / name, load_external_data=False).graph
        inside = sum(len(one.raw_data) for one in graph.initializer if not one.external_data)
        outside = [one for one in graph.initializer if one.external_data]
        assert outside
        assert inside < 4096
        assert {entry.value for one in outside for entry in one.external_data if entry.key == "location"} == {
            "model.safetensors"
        }
        content = (exported / name).read_bytes()
        assert not [part for part in (b"site-packages", b".py", os.fsencode(Path.cwd())) if part in content]


def test_the_graph_tells_how_it_is_fed(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / "encoder.onnx"))
    (pixels,) = session.get_inputs()
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(uint8)", [64, 64, 3])
    assert isinstance(pixels.shape[0], str)
    assert [output.name for output in session.get_outputs()] == ["final", "level_0", "level_1"]
    told = json.loads(session.get_modelmeta().custom_metadata_map["anomaly_ov"])
    config = json.loads((exported / "config.json").read_text())
    assert (told["name"], told["revision"], told["precision"]) == ("random", config["revision"], "fp32")
    assert told["encoder"] == config["encoder"]
    assert told["views"] == config["views"]
    assert (told["grid_hw"], told["patch"]) == ([4, 4], None)
    assert "calibration" not in told


def test_in_place_only_the_graphs_are_new(plain: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(plain, tmp_path / "model"))
    (folder / "language").mkdir()
    before = {name: (folder / name).stat().st_mtime_ns for name in ("config.json", "model.safetensors", "README.md")}
    steps = list[tuple[int, int]]()
    assert export_onnx(folder, folder, progress=lambda done, total: steps.append((done, total))) == folder
    assert steps == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert sorted(set(files(folder)) - before.keys()) == ["encoder.onnx", "expert.onnx", "language"]
    with pytest.raises(UsageError, match=r"already holds encoder\.onnx"):
        export_onnx(folder, folder)
    with pytest.raises(UsageError, match="would make another model of it"):
        export_onnx(folder, folder, "fp16", overwrite=True)
    # Saving other weights takes the graphs away: they would point into the wrong bytes.
    random_detector(LITE, seed=1).save_pretrained(folder)
    assert files(folder) == ["README.md", "config.json", "language", "model.safetensors"]


def test_half_precision_is_another_revision(plain: Path, tmp_path: Path) -> None:
    out = export_onnx(plain, tmp_path / "half", "fp16")
    assert precision_of(out / "model.safetensors") == "fp16"
    assert (out / "model.safetensors").stat().st_size < 0.6 * (plain / "model.safetensors").stat().st_size
    assert (out / "README.md").read_text().startswith("# A card")
    graphs, before = open_onnx(out), AnomalyModel.from_pretrained(plain)
    assert graphs.config.revision != before.config.revision
    views = pictures(64)
    same_outputs(forward(graphs, views), forward(TorchEngine(before, "cpu"), views), atol=0.05)


def test_nothing_is_overwritten_unasked(plain: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"already holds config\.json") as raised:
        export_onnx(plain, exported)
    assert "--overwrite" in raised.value.hint
    export_onnx(plain, exported, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        export_onnx(plain, tmp_path / "file")
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        export_onnx(plain, tmp_path / "out", "int4")


def test_graphs_that_deviate_are_not_kept(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = TorchEngine.encode

    def off(self: TorchEngine, pixels_NHW3: np.ndarray) -> FeatureArrays:
        features = encode(self, pixels_NHW3)
        return FeatureArrays(features.final_NPD * 1.01, features.levels_NPD, features.grid_hw)

    monkeypatch.setattr(TorchEngine, "encode", off)
    with pytest.raises(WeightsError, match=r"deviate from the model: .* by"):
        export_onnx(plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_the_old_files(plain: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (exported / name).read_bytes() for name in files(exported)}

    def fails(*args: object) -> None:
        raise WeightsError("late")

    monkeypatch.setattr(onnx_folder, "trace_expert", fails)
    with pytest.raises(WeightsError, match="late"):
        export_onnx(plain, exported, overwrite=True)
    assert {name: (exported / name).read_bytes() for name in files(exported)} == before


def test_networks_that_cannot_be_traced(tmp_path: Path) -> None:
    naflex = {key: value for key, value in SIGLIP["backbone"].items() if key != "image_size"}
    naflex |= {"model_type": "siglip2_vision_model", "num_patches": 25}
    folder = random_detector(SIGLIP | {"backbone": naflex}).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="siglip2_vision_model cannot be written as an ONNX graph") as raised:
        export_onnx(folder, folder)
    assert "torch" in raised.value.hint
    assert files(folder) == ["README.md", "config.json", "model.safetensors"]


def test_weights_of_other_shapes_are_no_link(plain: Path, tmp_path: Path) -> None:
    wider = random_detector(LITE | {"backbone": LITE["backbone"] | {"width": 0.5}})
    with pytest.raises(CheckpointMismatch, match="not a float of shape"):
        link(trace_encoder(wider.encoder), plain / "model.safetensors")


def test_tensors_kept_in_float32_are_not_cast(tmp_path: Path) -> None:
    model = random_detector(LITE)
    with torch.no_grad():
        model.encoder.network.stem.convolution.weight.mul_(1e6)  # type: ignore[union-attr,operator]
    folder = model.save_pretrained(tmp_path / "mixed", torch.float16)
    assert "kept in float32" in (folder / "README.md").read_text()
    export_onnx(folder, folder)
    views = pictures(64)
    model = AnomalyModel.from_pretrained(folder)
    same_outputs(forward(open_onnx(folder), views), forward(TorchEngine(model, "cpu"), views))
