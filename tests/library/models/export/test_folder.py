"""folder.py, linked.py, traced.py: a folder with graphs that hold no weights, or a folder as it was."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from anomaly_ov.errors import CheckpointMismatch, MissingExtra, UsageError, WeightsError
from anomaly_ov.images.sources import Source, expand
from anomaly_ov.models.arrays import FeatureArrays
from anomaly_ov.models.engines.interface import forward
from anomaly_ov.models.engines.onnx import open_onnx
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.export import folder as export_module
from anomaly_ov.models.export.folder import STEPS, export_folder
from anomaly_ov.models.export.linked import link, precision_of
from anomaly_ov.models.export.traced import trace_encoder
from anomaly_ov.models.model import AnomalyModel
from engine_fixtures import LITE, SIGLIP, pictures, random_detector, same_outputs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without graphs, float32."""
    return random_detector(LITE).save_pretrained(tmp_path_factory.mktemp("export") / "plain", card="# A card")


@pytest.fixture(scope="module")
def exported(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "deep" / "out"
    assert export_folder(plain, out) is None
    return out


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_a_whole_model(plain: Path, exported: Path) -> None:
    assert files(exported) == ["README.md", "config.json", "encoder.onnx", "expert.onnx", "model.safetensors"]
    for file in ("README.md", "config.json", "model.safetensors"):
        assert (exported / file).read_bytes() == (plain / file).read_bytes()
        assert not (exported / file).samefile(plain / file)
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
    export_folder(folder, folder, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert sorted(set(files(folder)) - before.keys()) == ["encoder.onnx", "expert.onnx", "language"]
    with pytest.raises(UsageError, match=r"already holds encoder\.onnx"):
        export_folder(folder, folder)
    with pytest.raises(UsageError, match="would make another model of it"):
        export_folder(folder, folder, precision="fp16", overwrite=True)
    # Saving other weights takes the graphs away: they would point into the wrong bytes.
    random_detector(LITE, seed=1).save_pretrained(folder)
    assert files(folder) == ["README.md", "config.json", "language", "model.safetensors"]


def test_half_precision_is_another_revision(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    export_folder(plain, out, precision="fp16")
    assert precision_of(out / "model.safetensors") == "fp16"
    assert (out / "model.safetensors").stat().st_size < 0.6 * (plain / "model.safetensors").stat().st_size
    assert (out / "README.md").read_text().startswith("# A card")
    graphs, before = open_onnx(out), AnomalyModel.from_pretrained(plain)
    assert graphs.config.revision != before.config.revision
    views = pictures(64)
    same_outputs(forward(graphs, views), forward(TorchEngine(before, "cpu"), views), atol=0.05)


def test_nothing_is_overwritten_unasked(plain: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"already holds config\.json") as raised:
        export_folder(plain, exported)
    assert "--overwrite" in raised.value.hint
    export_folder(plain, exported, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        export_folder(plain, tmp_path / "file")
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        export_folder(plain, tmp_path / "out", precision="int4")
    with pytest.raises(UsageError, match="unknown format 'tflite'"):
        export_folder(plain, tmp_path / "out", "tflite")


def test_graphs_that_deviate_are_not_kept(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = TorchEngine.encode

    def off(self: TorchEngine, pixels_NHW3: np.ndarray) -> FeatureArrays:
        features = encode(self, pixels_NHW3)
        return FeatureArrays(features.final_NPD * 1.01, features.levels_NPD, features.grid_hw)

    monkeypatch.setattr(TorchEngine, "encode", off)
    with pytest.raises(WeightsError, match=r"deviate from the model: .* by"):
        export_folder(plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_the_old_files(plain: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (exported / name).read_bytes() for name in files(exported)}

    def fails(*args: object) -> None:
        raise WeightsError("late")

    monkeypatch.setattr(export_module, "trace_expert", fails)
    with pytest.raises(WeightsError, match="late"):
        export_folder(plain, exported, overwrite=True)
    assert {name: (exported / name).read_bytes() for name in files(exported)} == before


def test_networks_that_cannot_be_traced(tmp_path: Path) -> None:
    naflex = {key: value for key, value in SIGLIP["backbone"].items() if key != "image_size"}
    naflex |= {"model_type": "siglip2_vision_model", "num_patches": 25}
    folder = random_detector(SIGLIP | {"backbone": naflex}).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="siglip2_vision_model cannot be written as an ONNX graph") as raised:
        export_folder(folder, folder)
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
    export_folder(folder, folder)
    views = pictures(64)
    model = AnomalyModel.from_pretrained(folder)
    same_outputs(forward(open_onnx(folder), views), forward(TorchEngine(model, "cpu"), views))


# --- eight bits --------------------------------------------------------------------------------------------------


def save_pictures(folder: Path, count: int = 3) -> list[Source]:
    folder.mkdir()
    for index, one in enumerate(pictures(96)[2][:count]):
        Image.fromarray(one).save(folder / f"p{index}.png")
    (folder / "torn.png").write_bytes(b"no picture")
    return expand(folder)


def test_an_encoder_in_eight_bits(plain: Path, tmp_path: Path) -> None:
    sources, steps = save_pictures(tmp_path / "pictures"), list[tuple[int, int]]()
    deviation = export_folder(
        plain,
        tmp_path / "out",
        precision="int8",
        pictures=sources,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(step, 12) for step in range(1, 13)]
    assert deviation is not None
    assert deviation.pictures == 3
    assert 0 < deviation.map_mean <= deviation.map_largest < 0.5
    assert deviation.score_largest < 0.2
    assert files(tmp_path / "out") == ["README.md", "config.json", "encoder.onnx", "expert.onnx", "model.safetensors"]
    graph = onnx.load(tmp_path / "out" / "encoder.onnx")
    kinds = {one.data_type for one in graph.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert not [one for one in graph.graph.initializer if one.external_data]
    engine, model = open_onnx(tmp_path / "out"), AnomalyModel.from_pretrained(plain)
    assert engine.dtype == "int8"
    views = pictures(64)
    for found, want in zip(forward(engine, views), forward(TorchEngine(model, "cpu"), views), strict=True):
        assert float(np.abs(found.map_Nhw - want.map_Nhw).mean()) < 0.1


def test_eight_bits_of_a_transformer_touch_its_products_alone(tmp_path: Path) -> None:
    folder = random_detector(SIGLIP).save_pretrained(tmp_path / "siglip")
    export_folder(folder, folder, precision="int8", pictures=save_pictures(tmp_path / "pictures", 1))
    graph = onnx.load(folder / "encoder.onnx").graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    dequantised = {made.get(name) for node in graph.node if node.op_type == "LayerNormalization" for name in node.input}
    assert "DequantizeLinear" not in dequantised
    assert open_onnx(folder).patch == 8.0


def test_eight_bits_and_pictures_go_together(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ranges of its numbers from pictures"):
        export_folder(plain, tmp_path / "out", precision="int8")
    sources = save_pictures(tmp_path / "pictures", 0)
    with pytest.raises(UsageError, match="from pictures"):
        export_folder(plain, tmp_path / "out", precision="fp16", pictures=sources)
    with pytest.raises(UsageError, match="none of 1 pictures could be read"):
        export_folder(plain, tmp_path / "out", precision="int8", pictures=sources)
    assert not (tmp_path / "out").exists()


# --- OpenVINO ----------------------------------------------------------------------------------------------------


def test_openvino_without_the_package(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra) as raised:
        export_folder(plain, tmp_path / "out", "openvino")
    assert raised.value.hint == 'pip install "anomaly-ov[openvino]"'
    assert not (tmp_path / "out").exists()


def test_a_folder_for_openvino(plain: Path, exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from anomaly_ov.models.engines.openvino import open_openvino

    out = tmp_path / "out"
    export_folder(plain, out, "openvino")
    assert [name for name in files(out) if name.startswith("e")] == [
        "encoder.bin",
        "encoder.xml",
        "expert.bin",
        "expert.xml",
    ]
    views = pictures(64)
    want = forward(TorchEngine(AnomalyModel.from_pretrained(plain), "cpu"), views, features=True)
    for folder in (out, exported):
        engine = open_openvino(folder, views_per_forward=2)
        assert (engine.name, engine.device, engine.dtype) == ("openvino", "cpu", "float32")
        same_outputs(forward(engine, views, features=True), want)
    export_folder(plain, out, overwrite=True)
    assert "encoder.xml" not in files(out)
    (out / "encoder.onnx").unlink()
    with pytest.raises(WeightsError, match="no graph at"):
        open_openvino(out)
