"""onnx.py: the graphs give what torch gives, need no torch, and are opened only with their own weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_ov.errors import CheckpointMismatch, DeviceError, UsageError, WeightsError
from anomaly_ov.models.engines.graphs import GraphEngine
from anomaly_ov.models.engines.interface import forward
from anomaly_ov.models.engines.onnx import open_onnx
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.model import AnomalyModel
from engine_fixtures import LITE, pictures, random_detector, same_outputs


@pytest.fixture
def copied(lite_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lite_folder, tmp_path / "copy"))


def in_torch(folder: Path) -> TorchEngine:
    return TorchEngine(AnomalyModel.from_pretrained(folder), "cpu", "float32")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["lite_folder", "siglip_folder"])
def test_same_as_torch(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    graphs, torch = open_onnx(folder), in_torch(folder)
    views = pictures(graphs.config.encoder.image_size)
    found, want = forward(graphs, views, features=True), forward(torch, views, features=True)
    same_outputs(found, want)
    spread = max(float(np.ptp(output.map_Nhw)) for output in want)
    assert spread > 0.01, "a flat map would agree with anything"
    assert (graphs.device, graphs.dtype, graphs.name) == ("cpu", "float32", "onnx")
    assert graphs.config == torch.config
    assert graphs.patch == torch.patch
    assert (graphs.patch is None) == (which == "lite_folder")


def test_a_view_does_not_depend_on_its_neighbours(lite_folder: Path) -> None:
    views = pictures(64)
    together = forward(open_onnx(lite_folder), views, features=True)
    one_by_one = open_onnx(lite_folder, views_per_forward=2)
    same_outputs([forward(one_by_one, [one], features=True)[0] for one in views], together, atol=1e-5)
    assert one_by_one.views_per_forward == 2


def test_neither_torch_nor_transformers_is_imported(lite_folder: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\n"
        "from anomaly_ov.models.engines.opening import open_engine\n"
        "from anomaly_ov.models.engines.interface import forward\n"
        f"engine = open_engine(Path({str(lite_folder)!r}), device='cpu')\n"
        "forward(engine, [np.zeros((2, 64, 64, 3), np.uint8)], features=True)\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxscript', 'scipy'} & sys.modules.keys()\n"
        "print(engine.name, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "onnx []", done.stderr


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_folder_without_graphs(copied: Path) -> None:
    (copied / "expert.onnx").unlink()
    with pytest.raises(WeightsError, match=r"no graph at .*expert\.onnx") as raised:
        open_onnx(copied)
    assert "anomaly-ov models export" in raised.value.hint


def test_graphs_of_other_weights(copied: Path, tmp_path: Path) -> None:
    other = random_detector(LITE, seed=1).save_pretrained(tmp_path / "other")
    for file in ("model.safetensors", "config.json"):
        shutil.copy(other / file, copied / file)
    with pytest.raises(WeightsError, match="onnx"):  # in float32 the file is even laid out in another way
        open_onnx(copied)


def test_graphs_of_other_weights_laid_out_alike(copied: Path) -> None:
    path = copied / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    values = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(values | {"revision": "mine"}))
    with pytest.raises(CheckpointMismatch, match=r"was made from weights [0-9a-f]{12}, this folder holds") as raised:
        open_onnx(copied)
    assert "--overwrite" in raised.value.hint
    (copied / "config.json").write_text(json.dumps(values))  # with its digest the configuration refuses first
    with pytest.raises(CheckpointMismatch, match=r"config\.json was saved with"):
        open_onnx(copied)


@pytest.mark.parametrize(("part", "field", "value"), [("encoder", "mean", [0, 0, 0]), ("views", "cap", 100)])
def test_graphs_of_other_settings(copied: Path, part: str, field: str, value: Any) -> None:
    values = json.loads((copied / "config.json").read_text())
    values[part][field] = value
    (copied / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointMismatch, match=rf"other settings than config\.json has: {part}"):
        open_onnx(copied)


def test_scoring_is_no_part_of_a_graph(copied: Path) -> None:
    values = json.loads((copied / "config.json").read_text())
    values["scoring"]["slope"] = 9.0
    (copied / "config.json").write_text(json.dumps(values))
    assert open_onnx(copied).config.scoring.slope == 9.0


def test_torn_swapped_and_foreign_graphs(copied: Path, lite_folder: Path) -> None:
    whole = (copied / "encoder.onnx").read_bytes()
    (copied / "encoder.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"encoder\.onnx cannot be opened"):
        open_onnx(copied)
    shutil.copy(copied / "expert.onnx", copied / "encoder.onnx")
    with pytest.raises(CheckpointMismatch, match=r"encoder\.onnx is no graph of ours: .*expert, not"):
        open_onnx(copied)
    import onnx

    graph = onnx.load(lite_folder / "encoder.onnx", load_external_data=False)
    del graph.metadata_props[:]
    (copied / "encoder.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(CheckpointMismatch, match="no graph of ours"):
        open_onnx(copied)


def test_bad_arrays_and_numbers(lite_folder: Path) -> None:
    engine = open_onnx(lite_folder)
    for wrong in (
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="pixels must be uint8"):
            engine.encode(wrong)
    features = engine.encode(np.zeros((3, 64, 64, 3), np.uint8))
    with pytest.raises(UsageError, match="does not describe 3 views"):
        engine.expert(features, [1, 1])
    with pytest.raises(UsageError, match="views_per_forward"):
        open_onnx(lite_folder, views_per_forward=0)


# --- memory ------------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_halves_the_views(lite_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    run, most = onnxruntime.InferenceSession.run, [2]

    def small(self: Any, names: Any, inputs: dict[str, np.ndarray]) -> Any:
        if len(next(iter(inputs.values()))) > most[0]:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return run(self, names, inputs)

    engine = open_onnx(lite_folder)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", small)
    assert len(engine.encode(np.zeros((5, 64, 64, 3), np.uint8))) == 5
    assert engine.views_per_forward == 2
    most[0] = 0
    with pytest.raises(DeviceError, match="out of memory on cpu"):
        engine.encode(np.zeros((5, 64, 64, 3), np.uint8))
    features = FeaturesOf(engine)
    with pytest.raises(DeviceError, match="out of memory on cpu"):
        engine.expert(features.made, [1])


class FeaturesOf:
    """Zeros of the right shapes."""

    def __init__(self, engine: GraphEngine) -> None:
        from anomaly_ov.models.arrays import FeatureArrays

        config = engine.config.expert
        widths = config.level_widths or (config.width,) * config.levels
        cells = config.grid_hw[0] * config.grid_hw[1]
        levels = tuple(np.zeros((1, cells, width), np.float32) for width in widths)
        self.made = FeatureArrays(np.zeros((1, cells, config.width), np.float32), levels, config.grid_hw)


def test_other_failures_are_not_hidden(lite_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def broken(self: Any, *args: Any) -> Any:
        raise RuntimeError("a kernel failed")

    engine = open_onnx(lite_folder)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", broken)
    with pytest.raises(RuntimeError, match="kernel"):
        engine.encode(np.zeros((1, 64, 64, 3), np.uint8))
