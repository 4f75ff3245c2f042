"""Stage 1 end to end on a small labelled folder: live, with adapters, and from cached features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anomaly_ov.errors import CheckpointMismatch, ConfigError, DataError, LeakageError, WeightsError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import ExpertConfig, ModelConfig
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.export.folder import export_folder
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov_lab.training.checkpoint import RUN
from anomaly_ov_lab.training.defect_samples import MixConfig
from anomaly_ov_lab.training.leave_one_out import fold, leave_one_set_out, require_fold
from anomaly_ov_lab.training.loop import LoopConfig
from anomaly_ov_lab.training.recipe import ExpertRecipe
from anomaly_ov_lab.training.runs import labelled_sets, train_expert
from anomaly_ov_lab.training.stage1 import Stage1Config, prepare_encoder
from anomaly_ov_lab.training.tracker import METRICS
from training_fixtures import encoder_config, labelled_folder

VIEWS = ViewsConfig(base_size=32, grids=((1, 1), (2, 1), (2, 2)), cap=64)
LOOP = LoopConfig(steps=4, batch=4, workers=0, log_every=1, warmup_steps=1, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("one", "two", "three")):
        labelled_folder(root / name, seed=seed)
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights."""
    torch.manual_seed(0)
    expert = expert_for(Encoder(encoder_config()), ExpertConfig(hidden=64))
    model = AnomalyModel(ModelConfig(encoder=encoder_config(), expert=expert, views=ViewsConfig(base_size=32)))
    return model.save_pretrained(tmp_path_factory.mktemp("start"), torch.float16)  # as trained models are


def recipe(**changes: object) -> ExpertRecipe:
    plain = ExpertRecipe("small", ("one", "two"), expert=ExpertConfig(hidden=8), views=VIEWS, loop=LOOP)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "switch",
    [
        {"look_back": False},
        {"embeddings": False},
        {"q_former": False},
        {"match": "covariance"},
        {"passes": 2},
    ],
    ids=lambda switch: next(iter(switch)),
)
def test_every_ablation_trains_and_is_exported(
    data: Path, start: Path, tmp_path: Path, switch: dict[str, object]
) -> None:
    expert = ExpertConfig(hidden=8, **switch)  # type: ignore[arg-type]
    two = replace(LOOP, steps=2)
    folder = train_expert(
        recipe(loop=two, expert=expert, stage1=Stage1Config(map_loss_weight=1.0)), data, start, tmp_path
    )
    model = AnomalyModel.from_pretrained(folder)
    assert all(getattr(model.config.expert, name) == value for name, value in switch.items())
    torch.manual_seed(two.seed)
    fresh = Expert(model.config.expert).state_dict()
    # Every part of the expert has learnt: at a rate of 0.01 no weight that gets a gradient stays where it was.
    still = [name for name, value in model.expert.state_dict().items() if torch.allclose(value, fresh[name], atol=1e-3)]
    assert [name for name in still if "bias" not in name] == []
    output = model(torch.zeros(3, 32, 32, 3, dtype=torch.uint8), [2, 1])
    assert torch.isfinite(output.map_Nhw).all()
    assert torch.isfinite(output.score_B).all()


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / METRICS).read_text().splitlines()]


def test_cached_training_learns_and_leaves_the_encoder_alone(data: Path, start: Path, tmp_path: Path) -> None:
    long = replace(LOOP, steps=60, batch=8)
    folder = train_expert(recipe(loop=long, stage1=Stage1Config(map_loss_weight=1.0)), data, start, tmp_path)
    curve = losses(tmp_path)
    assert sum(curve[-10:]) < 0.8 * sum(curve[:10])
    before, after = (AnomalyModel.from_pretrained(f).encoder.state_dict() for f in (start, folder))
    assert all(torch.equal(before[name], after[name]) for name in before)
    record = json.loads((tmp_path / RUN).read_text())
    assert record["recipe"]["loop"]["steps"] == 60
    assert {"one", "two", "start"} <= set(record["data"])
    assert record["provenance"]["seed"] == 0


def test_a_second_run_reads_the_cache(data: Path, start: Path, tmp_path: Path) -> None:
    train_expert(recipe(), data, start, tmp_path / "first", cache=tmp_path / "cache")
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    stamps = [file.stat().st_mtime_ns for file in files]
    train_expert(recipe(), data, start, tmp_path / "second", cache=tmp_path / "cache")
    assert len(files) == 24
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "cache").rglob("*.safetensors"))] == stamps
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


@pytest.mark.parametrize("mode", ["none", "full", "lora"])
def test_live_training_of_the_encoder(data: Path, start: Path, tmp_path: Path, mode: str) -> None:
    stage1 = Stage1Config(train_encoder=mode, lora_rank=2, map_loss_weight=1.0)  # type: ignore[arg-type]
    live = recipe(cached=False, stage1=stage1, mix=MixConfig(synthetic=0.0))
    folder = train_expert(live, data, start, tmp_path)
    before, after = (AnomalyModel.from_pretrained(f).encoder.state_dict() for f in (start, folder))
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert bool(changed) == (mode != "none")


@pytest.fixture(scope="module")
def with_graphs(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with ONNX graphs beside its weights."""
    folder = tmp_path_factory.mktemp("graphs") / "start"
    export_folder(start, folder)
    return folder


@pytest.mark.slow
def test_features_come_from_the_graphs_where_there_are_any(
    data: Path, start: Path, with_graphs: Path, tmp_path: Path
) -> None:
    for name, folder in (("torch", start), ("onnx", with_graphs), ("again", with_graphs)):
        train_expert(recipe(), data, folder, tmp_path / name, cache=tmp_path / "cache")
    engines = {name: json.loads((tmp_path / name / RUN).read_text())["data"]["engine"] for name in ("torch", "onnx")}
    assert engines == {"torch": "torch", "onnx": "onnx"}
    assert losses(tmp_path / "onnx") == pytest.approx(losses(tmp_path / "torch"), abs=1e-2)
    assert losses(tmp_path / "onnx") == losses(tmp_path / "again")
    # Each engine has entries of its own: one run never mixes what two of them compute.
    caches = [sorted(folder.rglob("*.safetensors")) for folder in (tmp_path / "cache").iterdir()]
    assert [len(files) for files in caches] == [24, 24]
    for one, other in zip(*caches, strict=True):
        ours, theirs = load_file(one), load_file(other)
        assert all(torch.allclose(ours[key], theirs[key], rtol=2e-3, atol=1e-3) for key in theirs)


def test_a_run_does_not_go_on_with_another_engine(data: Path, start: Path, with_graphs: Path, tmp_path: Path) -> None:
    train_expert(recipe(), data, start, tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"data\.engine"):
        train_expert(recipe(), data, with_graphs, tmp_path)


def test_leave_one_set_out_never_trains_on_the_set_it_leaves_out(data: Path, start: Path, tmp_path: Path) -> None:
    models = leave_one_set_out(recipe(), data, start, tmp_path, tmp_path / "cache")
    assert models == {name: fold(tmp_path, name) for name in ("one", "two")}
    for name, other in (("one", "two"), ("two", "one")):
        assert require_fold(tmp_path, name) == models[name]
        trained_on = json.loads((tmp_path / f"without-{name}" / RUN).read_text())["data"]
        assert other in trained_on
        assert name not in trained_on
    with pytest.raises(WeightsError, match="without-three"):
        require_fold(tmp_path, "three")


def test_the_card_lies_beside_the_model(data: Path, start: Path, tmp_path: Path) -> None:
    folder = train_expert(recipe(), data, start, tmp_path, card="# Card")
    assert (folder / "README.md").read_text().startswith("# Card")


def test_a_warm_start_begins_with_the_expert_of_the_start_model(data: Path, start: Path, tmp_path: Path) -> None:
    still = replace(LOOP, steps=1, learning_rate=0.0)
    expert = ExpertConfig(hidden=64)
    folder = train_expert(recipe(loop=still, expert=expert, warm_start=True), data, start, tmp_path / "warm")
    before, after = (AnomalyModel.from_pretrained(f).expert.state_dict() for f in (start, folder))
    assert all(torch.allclose(before[name], after[name], rtol=1e-3, atol=1e-4) for name in before)  # saved as fp16
    with pytest.raises(CheckpointMismatch, match="expert of"):
        train_expert(recipe(warm_start=True), data, start, tmp_path / "other")


def test_a_test_picture_among_the_training_pictures_is_refused(data: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakageError):
        train_expert(recipe(), data, start, tmp_path, test=[data / "two"])


def test_a_test_picture_among_the_photographs_is_refused(data: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakageError):
        train_expert(recipe(photos=("three",)), data, start, tmp_path, test=[data / "three"])


def test_a_folder_without_photographs_is_named(data: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pictures in .*nowhere"):
        train_expert(recipe(photos=("nowhere",)), data, start, tmp_path)
    assert not (tmp_path / RUN).exists()


def test_leaving_out_an_unknown_set_is_refused(data: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nine"):
        train_expert(recipe(), data, start, tmp_path, leave_out=["nine"])


def test_another_recipe_does_not_overwrite_the_record_of_a_run(data: Path, start: Path, tmp_path: Path) -> None:
    train_expert(recipe(), data, start, tmp_path)
    before = (tmp_path / RUN).read_text()
    with pytest.raises(CheckpointMismatch, match=r"recipe\.loop\.seed differ"):
        train_expert(recipe(loop=replace(LOOP, seed=1)), data, start, tmp_path)
    assert (tmp_path / RUN).read_text() == before
    train_expert(recipe(), data, start, tmp_path)
    record = json.loads((tmp_path / RUN).read_text())
    resumed = record.pop("resumed")
    assert record == json.loads(before)
    assert [entry["seed"] for entry in resumed] == [0]


def test_relabelled_data_are_other_data(data: Path, start: Path, tmp_path: Path) -> None:
    labelled_folder(tmp_path / "data/one")
    train_expert(recipe(sets=("one",)), tmp_path / "data", start, tmp_path / "run")
    next((tmp_path / "data/one/ground_truth/spot").iterdir()).unlink()
    with pytest.raises(CheckpointMismatch, match=r"data\.one"):
        train_expert(recipe(sets=("one",)), tmp_path / "data", start, tmp_path / "run")


def test_leave_one_set_out_does_not_go_on_with_an_earlier_recipes_experts(
    data: Path, start: Path, tmp_path: Path
) -> None:
    models = leave_one_set_out(recipe(), data, start, tmp_path, tmp_path / "cache")
    before = {name: load_file(folder / "model.safetensors") for name, folder in models.items()}
    again = leave_one_set_out(recipe(), data, start, tmp_path, tmp_path / "cache")
    after = {name: load_file(folder / "model.safetensors") for name, folder in again.items()}
    assert all(torch.equal(value, after[name][key]) for name in before for key, value in before[name].items())
    with pytest.raises(CheckpointMismatch, match="another recipe"):
        leave_one_set_out(recipe(expert=ExpertConfig(hidden=4)), data, start, tmp_path, tmp_path / "cache")


def test_views_of_another_size_than_the_encoders_are_refused_before_training(
    data: Path, start: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="base_size = 64"):
        train_expert(recipe(views=replace(VIEWS, base_size=64)), data, start, tmp_path)
    assert not (tmp_path / METRICS).exists()


def test_sets_that_cannot_be_trained_on_are_refused(data: Path, start: Path, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "half")
    for picture in (folder / "test/spot").iterdir():
        picture.unlink()
    with pytest.raises(DataError, match="6 normal and 0 anomalous"):
        labelled_sets([folder])
    labelled_folder(tmp_path / "other/one")
    with pytest.raises(DataError, match="several data sets are called one"):
        labelled_sets([data / "one", tmp_path / "other/one"])
    with pytest.raises(DataError, match="no set is left"):
        train_expert(recipe(), data, start, tmp_path, leave_out=["one", "two"])


@pytest.mark.parametrize("mode", ["none", "lora"])
def test_a_frozen_encoders_batch_norms_do_not_follow_the_batches(mode: str) -> None:
    encoder = Encoder(encoder_config()).train()
    prepare_encoder(encoder, Stage1Config(train_encoder=mode))  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
