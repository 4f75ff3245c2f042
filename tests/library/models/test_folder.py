"""folder.py: a model folder's files without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anomaly_ov.errors import CheckpointMismatch, WeightsError
from anomaly_ov.models import weights
from anomaly_ov.models.folder import digest, is_derived, read_config, with_own_weights


def test_digest_depends_on_the_tensors_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.ones(2, 3), "b": torch.zeros(1)}
    digests = set()
    for note in ("one", "two", "three"):
        weights.write(path, tensors, {"transformers": note, "note": note})
        digests.add(digest(path))
    assert len(digests) == 1
    weights.write(path, tensors | {"b": torch.ones(1)})
    assert digest(path) not in digests
    weights.write(path, {"a": torch.ones(3, 2), "b": torch.zeros(1)})
    assert digest(path) not in digests


def test_weights_of_the_folder_and_of_another(small_folder: Path, tmp_path: Path) -> None:
    config = read_config(small_folder)
    found = digest(small_folder / "model.safetensors")
    assert with_own_weights(small_folder, config) == (config, found)  # a chosen name: nothing to compare
    assert with_own_weights(small_folder, replace(config, revision=""))[0].revision == found
    assert with_own_weights(small_folder, replace(config, revision=found))[0].revision == found
    with pytest.raises(CheckpointMismatch, match=f"has digest {found}, but config.json was saved with 0123456789ab"):
        with_own_weights(small_folder, replace(config, revision="0123456789ab"))
    with pytest.raises(WeightsError, match="no weights at"):
        with_own_weights(tmp_path, config)


def test_what_counts_as_a_digest() -> None:
    assert is_derived("af3621ae741a")
    assert not is_derived("2026-01")
    assert not is_derived("af3621ae741a0")


def test_it_needs_no_torch() -> None:
    code = "import sys, anomaly_ov.models.folder; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
