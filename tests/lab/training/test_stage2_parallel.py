"""Two processes train as one: the same curve, split parameters, and checkpoints that any number of processes takes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from anomaly_ov.errors import ConfigError, UsageError
from anomaly_ov_lab.training.checkpoint import load_checkpoint
from anomaly_ov_lab.training.parallel import joined
from anomaly_ov_lab.training.passes import Passes
from anomaly_ov_lab.training.recipe import Stage2Recipe, read_recipe
from anomaly_ov_lab.training.stage2 import Stage2Config
from anomaly_ov_lab.training.stage2_run import train_stage2
from anomaly_ov_lab.training.tracker import METRICS
from parallel_worker import __file__ as worker
from talk_fixtures import recipe_of, small_talker, talk_data

pytestmark = pytest.mark.timeout(600)  # two more processes that import torch, perhaps on a busy machine
STEPS = 4
"""15 samples, 4 in a step: the last holds one that teaches nothing."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the runs of two processes, and ``whole``, that of one with the steps in one pass each."""
    folder = tmp_path_factory.mktemp("parallel")
    talk_data(folder / "data")
    small_talker(folder / "model")
    # One sample in a pass: one process may read text alone while the other reads pictures.
    for name, loop in (("one", {"batch": 4}), ("many", {"batch": 1, "accumulate": 4})):
        values = recipe_of(loop=loop | {"steps": STEPS, "checkpoint_seconds": 0.0}, epochs=1.0)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    plan = read_recipe(Stage2Recipe, folder / "one.yaml")
    for name, how in (("whole", "full"), ("one-lora", "lora"), ("one-projector", "projector")):
        stage2 = Stage2Config(how, lora_rank=2)  # type: ignore[arg-type]
        train_stage2(replace(plan, stage2=stage2), folder / "data", folder / "model", folder / name)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", worker]
    command += [str(folder / name) for name in ("many.yaml", "data", "model")] + [str(folder)]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_the_guides_line_starts_two_processes(tmp_path: Path) -> None:
    """argparse takes ``--start`` for torchrun's ``--start-method`` unless ``--`` stands before the module."""
    talk_data(tmp_path / "data")
    small_talker(tmp_path / "start")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(loop={"steps": 2, "batch": 2, "parallel": "ddp"})))
    guide = (Path(__file__).parents[3] / "docs/guides/full-size.md").read_text()
    (line,) = (line for line in guide.splitlines() if line.startswith("torchrun "))
    values = {
        "--nproc-per-node=8": "--nproc-per-node=2",
        "recipes/ov-7b.yaml": str(tmp_path / "recipe.yaml"),
        "DATA": str(tmp_path / "data"),
        "runs/start": str(tmp_path / "start"),
        "runs/ov-7b": str(tmp_path / "out"),
    }
    words = [values.pop(word, word) for word in shlex.split(line)[1:]]
    assert not values, "the line has changed"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(curve(tmp_path / "out")) == 2
    record = json.loads((tmp_path / "out" / METRICS).read_text().splitlines()[0])
    assert record["loss"] > 0


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / METRICS).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "saving", "again"])
def test_two_processes_learn_as_one(runs: Path, name: str) -> None:
    assert curve(runs / name) == pytest.approx(curve(runs / "whole"), abs=1e-5)
    assert len(curve(runs / name)) == STEPS
    ours, single = (load_file(runs / one / "model/language/model.safetensors") for one in (name, "whole"))
    assert ours.keys() == single.keys()
    for key, value in single.items():
        if not key.endswith("k_proj.bias"):  # attention does not depend on it, so its gradients are rounding errors
            torch.testing.assert_close(ours[key].float(), value.float(), atol=2e-3, rtol=0, msg=key)


@pytest.mark.parametrize("how", ["lora", "projector"])
def test_a_part_of_the_model_learns_as_in_one_process(runs: Path, how: str) -> None:
    assert curve(runs / how) == pytest.approx(curve(runs / f"one-{how}"), abs=1e-5)
    ours, single = (load_file(runs / name / "model/language/model.safetensors") for name in (how, f"one-{how}"))
    assert ours.keys() == single.keys()


def test_a_stopped_run_goes_on_to_the_identical_curve(runs: Path) -> None:
    assert curve(runs / "again") == curve(runs / "saving")


def test_one_process_resumes_what_two_began(runs: Path) -> None:
    checkpoint = load_checkpoint(runs / "alone")
    assert checkpoint is not None
    assert checkpoint.step == 2
    plan = read_recipe(Stage2Recipe, runs / "many.yaml", {"loop.parallel": "none"})
    train_stage2(plan, runs / "data", runs / "model", runs / "alone")
    assert curve(runs / "alone") == pytest.approx(curve(runs / "whole"), abs=1e-5)


def test_the_first_process_alone_logs(runs: Path) -> None:
    assert {path.name for path in (runs / "ddp").iterdir()} >= {"run.json", METRICS, "checkpoint.pt", "model"}
    lines = (runs / "ddp/skipped.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines))


def test_a_wrong_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="torchrun"), joined("ddp", "cpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"loop\.parallel"), joined("none", "cpu"):
        pass


def test_processes_share_a_step_without_loss_or_overlap() -> None:
    for world, batch, total in ((1, 4, 8), (2, 4, 8), (2, 4, 4), (4, 3, 12), (2, 2, 6)):
        shares = [Passes(batch, total, 0, 3, rank, world).of(1) for rank in range(world)]
        assert len({len(passes) for passes in shares}) == 1
        found = [index for passes in shares for one in passes for index in one]
        assert sorted(found) == list(range(total, 2 * total))
        assert all(0 < len(one) <= batch for passes in shares for one in passes)
    with pytest.raises(UsageError, match="shared evenly"):
        Passes(3, 3, 0, 1, 0, 2)


def test_shards_and_averaged_weights_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(loop={"ema": 0.9, "parallel": "fsdp"})))
    with pytest.raises(ConfigError, match="ema"):
        read_recipe(Stage2Recipe, path)
