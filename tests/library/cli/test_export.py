"""``anomaly-ov models export``, and examples/onnx_only.py on what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.cli.main import run
from anomaly_ov.images.read import read
from anomaly_ov.images.views import anyres
from anomaly_ov.models.engines.interface import forward
from anomaly_ov.models.engines.opening import open_engine
from engine_fixtures import LITE, random_detector

EXAMPLE = Path(__file__).parents[3] / "examples" / "onnx_only.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_detector(LITE).save_pretrained(tmp_path_factory.mktemp("cli") / "model")


@pytest.mark.slow
def test_the_example_runs_what_the_command_writes(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "exported"
    assert run(["models", "export", str(model), "--out", str(out), "--precision", "fp16"]) == 0
    assert capsys.readouterr().err == f"written to {out}\n"
    names = [str(pictures / f"p{index}.png") for index in range(3)]
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE), str(out), *names],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    revision = json.loads((out / "config.json").read_text())["revision"]
    assert header == f"random {revision}, weights in fp16, map of [4, 4] cells"
    engine = open_engine(out, "onnx")
    for name, line in zip(names, lines, strict=True):
        view = anyres(read(name).pixels_HW3, engine.config.views).pixels_NHW3[:1]
        (said,) = forward(engine, [view])
        assert line.startswith(f"{name}: score {said.score_raw:.3f}, highest {said.map_Nhw.max():.3f} in row")
        with Image.open(tmp_path / f"{Path(name).stem}.map.png") as image, Image.open(name) as picture:
            assert image.size == (picture.size if max(picture.size) <= 128 else image.size)
            assert np.asarray(image).dtype == np.uint8


def test_the_example_imports_nothing_of_ours() -> None:
    assert "anomaly_ov." not in EXAMPLE.read_text().replace('anomaly_ov"]', "")
    assert "import torch" not in EXAMPLE.read_text()


@pytest.mark.slow
def test_eight_bits_say_how_far_they_are_off(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["models", "export", str(model), "--out", str(tmp_path / "out"), "--precision", "int8"]
    assert run(args) == 2
    assert "--calibrate" in capsys.readouterr().err
    assert run([*args, "--calibrate", str(pictures)]) == 0
    said = capsys.readouterr().err
    assert "against the model, on 6 pictures: maps differ by 0." in said
    assert open_engine(tmp_path / "out", device="cpu").dtype == "int8"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["no-such-model", "--out", "x"], 4, "no-such-model"),
        (["MODEL", "--out", "x", "--format", "tflite"], 2, "unknown format 'tflite'"),
        (["MODEL", "--out", "x", "--precision", "int4"], 2, "unknown precision 'int4'"),
        (["MODEL", "--out", "x", "--precision", "int8", "--calibrate", "nothing*"], 2, "nothing"),
        (["MODEL", "--out", "MODEL", "--precision", "fp16"], 2, "another folder"),
    ],
)
def test_requests_that_cannot_be(
    model: Path,
    args: list[str],
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["models", "export", *(str(model) if arg == "MODEL" else arg for arg in args)]) == code
    said = capsys.readouterr().err
    assert text in said
    assert said.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_the_options_arrive(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[tuple[object, ...]]()

    def export(folder: Path, out: Path, target: str, precision: str | None, **options: object) -> None:
        calls.append((folder, out, target, precision, options["overwrite"], options["pictures"]))

    monkeypatch.setattr("anomaly_ov.models.export.folder.export_folder", export)
    assert run(["models", "export", str(model), "--out", "x", "--format", "openvino", "--overwrite"]) == 0
    assert calls == [(model, Path("x"), "openvino", None, True, [])]
