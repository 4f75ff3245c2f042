"""Killed without warning (SIGKILL), the command line's run goes on to the identical curve and weights."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from anomaly_ov_lab.training.checkpoint import load_checkpoint
from anomaly_ov_lab.training.tracker import METRICS
from training_fixtures import labelled_folder

STEPS = 80


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_resumes_to_the_identical_curve(small_folder: Path, tmp_path: Path) -> None:
    from anomaly_ov.cli.main import run

    labelled_folder(tmp_path / "data/one")
    loop = {
        "steps": STEPS,
        "batch": 2,
        "log_every": 1,
        "ema": 0.9,
        "checkpoint_seconds": 0.0,
        "workers": 1,
        "threads": 1,
    }
    recipe = {
        "name": "killed",
        "sets": ["one"],
        "views": {"base_size": 32, "grids": [[1, 1], [2, 1]], "cap": 64},
        "expert": {"hidden": 8},
        "stage1": {"map_loss_weight": 1.0},
        "loop": loop,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ["train", "expert", "--recipe", str(tmp_path / "recipe.yaml"), "--data", str(tmp_path / "data")]
    command += ["--start", str(small_folder), "--cache", str(tmp_path / "cache")]
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    process = subprocess.Popen(
        [sys.executable, "-m", "anomaly_ov.cli.main", *command, "--out", str(parts)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None and _rows(parts) < 10:
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() < 0, "the run ended by itself"
    checkpoint = load_checkpoint(parts)
    assert checkpoint is not None
    assert 0 < checkpoint.step < STEPS

    assert run([*command, "--out", str(whole)]) == 0
    assert run([*command, "--out", str(parts)]) == 0
    assert (parts / METRICS).read_text() == (whole / METRICS).read_text()
    resumed, undisturbed = (load_file(folder / "model/model.safetensors") for folder in (parts, whole))
    assert all(torch.equal(value, resumed[name]) for name, value in undisturbed.items())


def _rows(folder: Path) -> int:
    path = folder / METRICS
    return path.read_text().count("\n") if path.is_file() else 0
