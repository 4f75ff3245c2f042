"""The verb: what it lists, what it converts, what it says of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from anomaly_ov.errors import CheckpointMismatch, UsageError
from anomaly_ov.images.sources import expand
from anomaly_ov_lab.baselines.load import load_baseline
from anomaly_ov_lab.baselines.open_clip import ARCHITECTURES, Architecture, expected_shapes
from anomaly_ov_lab.cli.baselines import app


def run(*args: str) -> str:
    result = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_every_method() -> None:
    lines = run("list").splitlines()
    assert [line.split(":")[0] for line in lines] == ["clip", "clip-ensemble", "winclip", "anomalyclip", "endpoint"]


def test_weights_to_a_working_winclip(
    clip_folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Architecture("small", 20, 32, 8, 24, 1, 16, 1, vocabulary=80, head_width=8)
    monkeypatch.setitem(ARCHITECTURES, "small", sizes)
    torch.save({name: torch.randn(shape) * 0.3 for name, shape in expected_shapes(sizes).items()}, tmp_path / "w.pt")
    options = ("--tokenizer", str(clip_folder), "--architecture", "small")
    out = tmp_path / "out"
    assert "written to" in run("convert-clip", str(tmp_path / "w.pt"), "--out", str(out), *options)
    found = list(load_baseline(f"winclip:{out}", "cpu").stream(expand([pictures])))
    assert all(one.score is not None and 0 < one.score < 1 for one in found)


def test_mistakes(clip_folder: Path, tmp_path: Path) -> None:
    torch.save({"prompt_learner": {"ctx_pos": torch.zeros(1, 1, 12, 24)}}, tmp_path / "p.pth")
    base = ("convert-prompts", str(tmp_path / "p.pth"), "--clip", str(clip_folder), "--out", str(tmp_path / "o"))
    with pytest.raises(UsageError, match="--layers 6;12 is no list"):
        run(*base, "--layers", "6;12")
    with pytest.raises(CheckpointMismatch, match="7 missing: ctx_neg"):
        run(*base)


def test_prompts_to_a_working_anomalyclip(clip_folder: Path, pictures: Path, tmp_path: Path) -> None:
    from anomaly_ov_lab.baselines.clip_towers import load_towers

    towers = load_towers(clip_folder, "cpu")
    table = towers.text.embeddings.token_embedding.weight.detach()
    tensors = {}
    for state, text in (("pos", "xx object."), ("neg", "xx damaged object.")):
        tokens = towers.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
        embedded = table[tokens][:, None]
        tensors |= {
            f"tokenized_prompts_{state}": tokens[:, None],
            f"token_prefix_{state}": embedded[:, :, :1],
            f"ctx_{state}": torch.randn(1, 1, 2, 24),
            f"token_suffix_{state}": embedded[:, :, 3:],
        }
    torch.save({"prompt_learner": tensors}, tmp_path / "epoch_15.pth")
    out = tmp_path / "prompts"
    where = ("--clip", str(clip_folder), "--out", str(out), "--changed", "2", "--layers", "2,3", "--image-size", "64")
    assert "written to" in run("convert-prompts", str(tmp_path / "epoch_15.pth"), *where)
    detector = load_baseline(f"anomalyclip:{out}", "cpu")
    (found,) = detector.stream(expand([pictures / "p1.png"]))
    assert found.significance_map is not None
    assert found.significance_map.shape == (64, 96)
    assert found.map is not None
    assert found.map.grid == (8, 8)
    assert detector.info.name == "anomalyclip on small-clip"
