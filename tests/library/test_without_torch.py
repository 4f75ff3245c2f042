"""A picture is inspected without torch: the graphs of a model folder, plain arrays and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.inspector import load
from anomaly_ov.models.export.folder import export_folder
from model_fixtures import save_small_model

HEAVY = ("torch", "transformers")
INSPECT = """
import json, sys
import anomaly_ov
inspector = anomaly_ov.load({folder!r}, engine="onnx")
picture, references = {picture!r}, {references!r}
context = inspector.context(references)
folder = inspector.folder_context(references)
anomaly_ov.save_context({file!r}, context)
again = anomaly_ov.load_context({file!r})
found = [inspector.inspect(picture, one) for one in (None, context, folder, again)]
print(json.dumps({{
    "loaded": sorted({heavy!r} & sys.modules.keys()),
    "scores": [one.score for one in found],
    "regions": [len(one.regions) for one in found],
}}))
"""


def in_a_fresh_interpreter(code: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_small_model(tmp_path_factory.mktemp("exported") / "small")
    export_folder(folder, folder)
    return folder


@pytest.fixture
def shown(tmp_path: Path) -> list[str]:
    """A symmetric picture, whose mirror image is looked at, and five others."""
    paths = []
    for index in range(6):
        generator = np.random.default_rng(index)
        half = generator.integers(0, 256, (8, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        other = half[:, ::-1] if index == 0 else generator.integers(0, 256, half.shape, np.uint8)
        Image.fromarray(np.concatenate([half, other], 1)).save(tmp_path / f"{index}.png")
        paths.append(str(tmp_path / f"{index}.png"))
    return paths


@pytest.mark.slow
def test_inspecting_with_onnx_loads_no_torch_and_says_what_torch_says(
    exported: Path, shown: list[str], tmp_path: Path
) -> None:
    picture, references = shown[0], shown[1:]
    code = INSPECT.format(
        folder=str(exported), picture=picture, references=references, file=str(tmp_path / "part.ctx"), heavy=set(HEAVY)
    )
    found = in_a_fresh_interpreter(code)
    assert found["loaded"] == []
    inspector = load(str(exported), device="cpu", engine="torch")
    contexts = [None, inspector.context(references), inspector.folder_context(references)]
    expected = [inspector.inspect(picture, context).score for context in contexts]
    assert found["scores"][:3] == pytest.approx(expected, abs=1e-3)
    assert found["scores"][3] == found["scores"][1], "a context file scores as the context that was saved"
    assert [count > 0 for count in found["regions"]] == [score >= 0.5 for score in found["scores"]]


def test_importing_everything_that_inspects_loads_no_torch() -> None:
    rooms = {
        "scoring": ["anomaly_map", "cells", "conformal", "evidence", "regions", "score"],
        "context": ["build", "context", "context_file", "mirror"],
        "models": ["config", "engines.onnx", "engines.opening"],
    }
    modules = [f"{room}.{module}" for room, several in rooms.items() for module in several]
    modules += ["inspector", "look", "reasoning.session", "records"]
    code = f"""
import json, sys
import {", ".join(f"anomaly_ov.{module}" for module in modules)}
print(json.dumps({{"loaded": sorted({set(HEAVY)!r} & sys.modules.keys())}}))
"""
    assert in_a_fresh_interpreter(code) == {"loaded": []}
