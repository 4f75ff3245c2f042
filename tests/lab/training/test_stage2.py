"""Stage 2: its loss is the stock model's, weighed by tokens; runs resume exactly and export what talks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from anomaly_ov.errors import CheckpointMismatch, WeightsError
from anomaly_ov.reasoning.folder import Reasoner, load_reasoner
from anomaly_ov_lab.training import stage2 as module
from anomaly_ov_lab.training import stage2_run
from anomaly_ov_lab.training.checkpoint import CHECKPOINT, load_checkpoint
from anomaly_ov_lab.training.conversations import cut
from anomaly_ov_lab.training.recipe import Stage2Recipe, read_recipe
from anomaly_ov_lab.training.stage2 import Stage2, Stage2Config, prepare, token_loss
from anomaly_ov_lab.training.stage2_run import train_stage2
from anomaly_ov_lab.training.tracker import METRICS
from model_fixtures import small_decoder, small_reasoner
from talk_fixtures import recipe_of, small_talker, talk_data


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data`` and a ``model``."""
    folder = tmp_path_factory.mktemp("stage2")
    talk_data(folder / "data")
    small_talker(folder / "model")
    return folder


def train(place: Path, out: Path, overrides: dict[str, Any] | None = None, **changes: Any) -> list[dict[str, float]]:
    """Rows of the curve."""
    out.parent.mkdir(exist_ok=True)
    path = out.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(**changes)))
    loop = {f"loop.{name}": value for name, value in (overrides or {}).items()}
    train_stage2(read_recipe(Stage2Recipe, path, loop), place / "data", place / "model", out)
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


def losses(rows: list[dict[str, float]]) -> list[float]:
    return [row["loss"] for row in rows]


def language(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model/language/model.safetensors")


def batch_of(reasoner: Reasoner, mask: str = "answers", pictures: bool = True) -> dict[str, torch.Tensor]:
    """Unequal answers, one sample without a picture."""
    detector = reasoner.model.model.detector
    assert detector is not None
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    views = cut([pixels], detector.config.views) if pictures else []
    marker = "<image>\n" if pictures else ""
    told = [
        (
            [("user", f"{marker}Is there a defect?"), ("assistant", "Yes, a scratch. Where is it? There is a defect.")],
            views,
        ),
        ([("user", "Where is it?"), ("assistant", "No.")], []),
    ]
    samples = [reasoner.processor.encode(messages, seen, mask=mask) for messages, seen in told]
    return reasoner.processor.collate(samples)


@pytest.mark.parametrize("mask", ["answers", "released"])
@pytest.mark.parametrize("pictures", [True, False])
@pytest.mark.parametrize("at_once", [2048, 3])
def test_the_loss_and_its_gradients_are_the_stock_models(
    monkeypatch: pytest.MonkeyPatch, mask: str, pictures: bool, at_once: int
) -> None:
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once)
    reasoner = small_reasoner()
    model = prepare(reasoner.model, Stage2Config()).train()
    batch = batch_of(reasoner, mask, pictures)
    stock = model(**batch, use_cache=False).loss
    stock.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    ours = token_loss(model, batch)
    ours.backward()
    assert ours.item() == pytest.approx(stock.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} got no gradient, which processes that train together would miss"
        expected = wanted.get(name, torch.zeros_like(parameter))
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-5, msg=name)


def test_a_batch_that_teaches_nothing_costs_nothing() -> None:
    reasoner = small_reasoner()
    batch = batch_of(reasoner)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = token_loss(prepare(reasoner.model, Stage2Config()), batch)
    loss.backward()
    assert loss.item() == 0.0


@pytest.mark.parametrize("changes", [{}, {"group_by_length": True}])
def test_passes_of_a_step_weigh_by_tokens(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = train(place, tmp_path / "whole", loop={"batch": 4})
    parts = train(place, tmp_path / "parts", loop={"batch": 2, "accumulate": 2} | changes)
    # The first step's loss and, through its gradients, the second's; Adam then enlarges rounding errors.
    assert losses(parts)[:2] == pytest.approx(losses(whole)[:2], abs=1e-6)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)


def test_a_step_is_one_gradient_however_it_is_cut() -> None:
    reasoner = small_reasoner()
    model = prepare(reasoner.model, Stage2Config()).train()
    task = Stage2(model, reasoner.processor, Stage2Config(), samples=[])  # type: ignore[arg-type]
    batch = batch_of(reasoner)
    task.losses(batch)["loss"].backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    words = ("input_ids", "attention_mask", "labels")
    parts = [{k: v[:1] if k in words else v for k, v in batch.items()}, {k: batch[k][1:] for k in words}]
    weights = [task.weigh(part) for part in parts]
    assert weights[0] != weights[1]
    for part, weight in zip(parts, weights, strict=True):
        (task.losses(part)["loss"] * weight / sum(weights)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-5, msg=name)


class Stopped(Stage2):
    """Gets a Ctrl-C in its second step."""

    calls = 0

    def weigh(self, batch: Any) -> float:
        Stopped.calls += 1
        if Stopped.calls == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().weigh(batch)


def test_a_stopped_run_says_so_and_resumes_exactly(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"epochs": 1.0, "loop": {"batch": 2, "accumulate": 2, "group_by_length": True}}
    whole = train(place, tmp_path / "whole", **changes)
    assert len(whole) == 4  # 15 samples, 4 of them in a step
    with monkeypatch.context() as patch:
        patch.setattr(stage2_run, "Stage2", Stopped)
        with pytest.raises(KeyboardInterrupt):
            train(place, tmp_path / "parts", **changes)
    assert "stopped after step 2 of 4; the same command resumes from" in " ".join(capfd.readouterr().err.split())
    assert train(place, tmp_path / "parts", **changes) == whole
    ours, undisturbed = language(tmp_path / "parts"), language(tmp_path / "whole")
    assert all(torch.equal(ours[name], value) for name, value in undisturbed.items())
    resumed = json.loads((tmp_path / "parts/run.json").read_text())["resumed"]
    assert len(resumed) == 1


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.timeout(600)
def test_a_killed_run_resumes_exactly(place: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"loop": {"steps": 40, "workers": 1, "checkpoint_seconds": 0.0}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(**changes)))
    command = [sys.executable, "-m", "anomaly_ov.cli.main", "train", "stage2"]
    command += ["--recipe", str(tmp_path / "recipe.yaml")]
    command += ["--data", str(place / "data"), "--start", str(place / "model"), "--out", str(tmp_path / "parts")]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "parts" / METRICS
    try:
        while process.poll() is None and not (metrics.is_file() and metrics.read_text().count("\n") >= 2):
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() < 0, "the run ended by itself"
    checkpoint = load_checkpoint(tmp_path / "parts")
    assert checkpoint is not None
    assert 0 < checkpoint.step < 40
    whole = train(place, tmp_path / "whole", loop=changes["loop"] | {"checkpoint_seconds": 60.0, "workers": 0})
    assert train(place, tmp_path / "parts", **changes) == whole


@pytest.mark.slow
def test_a_run_from_before_a_field_was_added_resumes(place: Path, tmp_path: Path) -> None:
    train(place, tmp_path / "run", {"steps": 2})
    path = tmp_path / "run" / CHECKPOINT
    state = torch.load(path, weights_only=True)
    before = json.loads(state["fingerprint"])
    for name in ("accumulate", "group_by_length", "warmup_ratio"):
        del before["recipe"]["loop"][name]
    del before["recipe"]["epochs"]
    torch.save(state | {"fingerprint": json.dumps(before, sort_keys=True)}, path)
    train(place, tmp_path / "run", {"steps": 2})
    with pytest.raises(CheckpointMismatch, match=r"loop\.accumulate"):
        train(place, tmp_path / "run", {"steps": 2, "accumulate": 2})


@pytest.mark.parametrize("how", ["full", "lora", "projector"])
def test_only_what_should_learn_does_and_the_folder_loads(place: Path, tmp_path: Path, how: str) -> None:
    train(place, tmp_path / "run", {"steps": 2}, stage2={"train": how, "lora_rank": 2})
    reasoner = load_reasoner(tmp_path / "run/model")
    before, after = load_file(place / "model/language/model.safetensors"), language(tmp_path / "run")
    assert before.keys() == after.keys(), "adapters are merged into the weights they sit on"
    changed = {name for name, value in after.items() if not torch.equal(value, before[name].to(value.dtype))}
    of_language = {name for name in changed if "language_model" in name}
    assert any("multi_modal_projector" in name for name in changed)
    assert bool(of_language) == (how != "projector")
    if how == "lora":
        assert all("_proj." in name for name in of_language)
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == (place / "model/model.safetensors").read_bytes()
    assert not reasoner.model.training
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    assert config == json.loads((place / "model/config.json").read_text()) | {"name": "told"}
    assert (tmp_path / "run/model/README.md").read_text().startswith("# told\n")


def test_another_decoder_learns_behind_the_detector(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_OV_CACHE", str(tmp_path))
    changes: dict[str, Any] = {"stage2": {"train": "lora", "lora_rank": 2}, "language": {"decoder": "talk"}}
    with pytest.raises(WeightsError, match="SmolLM2-135M-Instruct is not on this machine"):
        train(place, tmp_path / "none", **changes)
    small_decoder(tmp_path / "talk")
    curve = losses(train(place, tmp_path / "run", loop={"steps": 8}, **changes))
    assert np.mean(curve[-2:]) < 0.99 * curve[0]
    assert load_reasoner(tmp_path / "run/model").model.config.text_config.model_type == "llama"


@pytest.mark.parametrize("how", ["full", "lora"])
def test_recomputed_activations_and_bf16_change_little(place: Path, tmp_path: Path, how: str) -> None:
    plain = losses(train(place, tmp_path / "a", {"steps": 2}, stage2={"train": how, "lora_rank": 2}))
    saving = {"train": how, "lora_rank": 2, "gradient_checkpointing": True}
    assert losses(train(place, tmp_path / "b", {"steps": 2}, stage2=saving)) == pytest.approx(plain, abs=1e-6)
    half = losses(train(place, tmp_path / "c", {"steps": 2}, stage2=saving, loop={"precision": "bf16"}))
    assert half == pytest.approx(plain, rel=0.02)
    assert half != plain


def test_the_loss_falls(place: Path, tmp_path: Path) -> None:
    curve = losses(train(place, tmp_path / "run", loop={"steps": 12}))
    assert np.mean(curve[-3:]) < 0.5 * curve[0]
