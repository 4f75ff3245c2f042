"""Any encoder can begin stage 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anomaly_ov.cli.main import run
from anomaly_ov.errors import WeightsError
from anomaly_ov.models.create import create_model
from anomaly_ov.models.model import AnomalyModel


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino") / "checkpoint"
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    Dinov2Model(Dinov2Config(**shape)).save_pretrained(folder)
    return folder


def test_a_transformer_with_an_untrained_expert_runs(dino: Path, tmp_path: Path) -> None:
    assert run(["models", "create", str(dino), "--out", str(tmp_path / "made"), "--levels", "1,2", "--final", "3"]) == 0
    model = AnomalyModel.from_pretrained(tmp_path / "made")
    output = model(torch.zeros(3, 28, 28, 3, dtype=torch.uint8), [1, 2])
    assert output.map_Nhw.shape == (3, 4, 4)
    assert torch.isfinite(output.score_B).all()
    assert "untrained" in (tmp_path / "made" / "README.md").read_text()


def test_bad_requests(dino: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "made")]
    assert run(["models", "create", str(dino), *out, "--levels", "a,b"]) == 2
    assert run(["models", "create", str(dino), *out, "--levels", "7,13", "--final", "26"]) == 2
    with pytest.raises(WeightsError):
        create_model(tmp_path / "nothing", tmp_path / "made", (1,), 1)
    assert "Traceback" not in capsys.readouterr().err
