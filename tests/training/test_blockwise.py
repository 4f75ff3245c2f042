"""blockwise.py: who learns what from whom, and that a perfect student has nothing left to learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from anomaly_ov.errors import ConfigError
from anomaly_ov.models.config import EncoderConfig
from anomaly_ov.models.edgetpu import EdgeTPUConfig, config_from
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.training import blockwise, checkpoint
from anomaly_ov.training.blockwise import HELD_OUT, Blockwise, Group, Pupil, groups, read_held_out, stage_ends
from anomaly_ov.training.distill import UNSEEN, DistillConfig
from anomaly_ov.training.loop import LoopConfig, run
from anomaly_ov.training.recipe import EncoderRecipe
from anomaly_ov.training.runs import train_encoder
from anomaly_ov.training.teacher import MobileNetEdgeTPU
from training_fixtures import encoder_config, labelled_folder

SHAPE: dict[str, Any] = {
    "embedding_size": 4,
    "stem_size": 6,
    "hidden_sizes": [8, 8, 12],
    "depths": [2, 3, 2],
    "strides": [2, 2, 1],
    "kernels": [3, 3, 5],
    "fused": 1,
    "first_expansion": 3,
    "expansion": 2,
}
TEACHER = config_from(SHAPE)
METHODS = ("blockwise", "whole")
LOOP = LoopConfig(steps=16, batch=4, workers=0, log_every=4, warmup_steps=2, learning_rate=1e-2, clip_norm=50.0)


class Pictures(Dataset[Tensor]):
    """Blobs of colour, a function of the index alone; ``seen`` lists the indices asked for."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __getitem__(self, index: int) -> Tensor:
        self.seen.append(index)
        coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(index % 2**31))
        fine = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")
        return (fine[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8)


def teacher() -> MobileNetEdgeTPU:
    torch.manual_seed(1)
    network = MobileNetEdgeTPU(TEACHER)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "dw.weight" in name:  # depthwise convolutions start so small that their blocks would say nothing
                parameter.mul_(4.0)
            elif "bias" in name:
                parameter.uniform_(-0.2, 0.2)
    return network.eval().requires_grad_(False)


def student(levels: tuple[int, ...] = (1, 2), final: int = 3, **changes: Any) -> Encoder:
    torch.manual_seed(2)
    backbone = {"model_type": "mobilenet_edgetpu"} | SHAPE | changes
    return Encoder(EncoderConfig(backbone=backbone, levels=levels, final=final, image_size=32, grid_hw=(4, 4)))


def clone_of_the_teacher() -> Encoder:
    encoder, network = student(), teacher()
    named = dict(zip(encoder.network.state_dict(), network.state_dict().values(), strict=True))
    encoder.network.load_state_dict(named)
    return encoder


def task(encoder: Encoder, method: Any, crops: int = 40, pictures: Pictures | None = None) -> Blockwise:
    return Blockwise(encoder, teacher(), DistillConfig(statistics_crops=crops, method=method), pictures or Pictures())


def batch(count: int = 4) -> Tensor:
    pictures = Pictures()
    return torch.stack([pictures[index] for index in range(count)])


# --- who learns what ---------------------------------------------------------------------------------------------


def test_a_group_is_a_block_where_depths_agree_and_else_the_stage() -> None:
    assert groups((2, 1, 1), (2, 3, 1)) == (
        Group("stage1.block1", 0, 0, 1, None, 0),
        Group("stage1.block2", 0, 1, 2, 0, 1),
        Group("stage2", 1, 0, 1, 1, 4),
        Group("stage3.block1", 2, 0, 1, 4, 5),
    )
    assert groups((1,), (4, 4)) == (Group("stage1", 0, 0, 1, None, 3),)
    assert [group.residual for group in groups((2, 2, 1), (2, 3, 1))] == [False, True, False, False]


def test_the_teachers_stage_ends_are_the_published_taps() -> None:
    assert stage_ends(EdgeTPUConfig().depths) == {1: 3, 2: 7, 3: 11, 4: 15, 5: 19, 6: 20}


@pytest.mark.parametrize(("depth", "count"), [(3, 7), (2, 5)])
def test_no_gradient_leaves_its_group(depth: int, count: int) -> None:
    encoder = student(depths=[2, depth, 2])
    found = task(encoder, "blockwise").losses(batch())
    learning = {}
    for name in found.keys() - {"loss"}:
        encoder.zero_grad()
        found[name].backward(retain_graph=True)  # type: ignore[no-untyped-call]
        parameters = encoder.network.named_parameters()
        learning[name] = {key.rpartition(".")[0] for key, p in parameters if p.grad is not None and p.grad.any()}
    assert len(learning) == count
    everyone = sorted(key for keys in learning.values() for key in keys)
    assert everyone == sorted({key.rpartition(".")[0] for key, _ in encoder.network.named_parameters()})
    assert {key.split(".")[0] for key in learning["stage1.block1"]} == {"stem", "stages"}
    if depth == 2:
        assert {".".join(key.split(".")[:3]) for key in learning["stage2"]} == {"stages.1.0", "stages.1.1"}


def test_end_to_end_everything_learns_from_the_levels_and_the_final_state() -> None:
    encoder = student(levels=(0, 1), final=3)
    found = task(encoder, "whole").losses(batch())
    assert list(found) == ["loss", "stage1", "stage3"]
    torch.testing.assert_close(found["loss"], found["stage1"] + found["stage3"])
    found["stage3"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in encoder.network.parameters())


def test_stages_beyond_the_encoders_deepest_are_not_taught() -> None:
    found = task(student(levels=(1,), final=2), "blockwise").losses(batch())
    assert list(found) == ["loss", *(f"stage1.block{k}" for k in (1, 2)), *(f"stage2.block{k}" for k in (1, 2, 3))]
    torch.testing.assert_close(found["loss"], sum(value for name, value in found.items() if name != "loss"))


# --- what is measured --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_student_with_the_teachers_weights_has_nothing_left_to_learn(method: str) -> None:
    encoder = clone_of_the_teacher()
    perfect = task(encoder, method)
    assert all(value < 5e-3 for value in perfect.losses(batch()).values())  # what is left: the teacher's bfloat16
    assert set(perfect.unexplained(encoder)) == {"stage1", "stage2", "stage3"}
    assert all(share < 5e-3 for share in perfect.unexplained(encoder).values())


def test_a_residual_block_that_adds_nothing_has_everything_left_to_learn() -> None:
    """Its error is measured against what the teacher adds, however little that is beside what it is added to."""
    encoder = clone_of_the_teacher()
    learning = task(encoder, "blockwise", crops=64)
    for parameter in encoder.network.get_submodule("stages.1.2.project").parameters():
        parameter.data.zero_()
    taught = learning._taught(encoder.normalise(torch.stack([Pictures()[UNSEEN + k] for k in range(64)])))
    added = (taught[4].float() - taught[3].float()).double()
    variance = added.var((0, 2, 3), correction=0)
    found = learning.losses(torch.stack([Pictures()[UNSEEN + k] for k in range(64)]))["stage2.block3"]
    assert found.item() == pytest.approx(float((added.square().mean((0, 2, 3)) / variance).mean()), rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_variances_are_those_of_the_teacher_on_crops_that_are_never_trained_on(method: str) -> None:
    pictures = Pictures()
    learning = task(student(), method, crops=40, pictures=pictures)  # no multiple of the batch
    assert pictures.seen == [UNSEEN + index for index in range(40)]
    pixels = torch.stack([pictures[UNSEEN + index] for index in range(40)])
    module = learning.module
    assert isinstance(module, Pupil)
    maps = learning._taught(module.encoder.normalise(pixels))
    ends = [maps[1], maps[4], maps[6]]
    if method == "blockwise":
        ends = [maps[0], maps[1].float() - maps[0].float(), maps[2]]
        ends += [maps[k].float() - maps[k - 1].float() for k in (3, 4)] + [maps[5], maps[6].float() - maps[5].float()]
    wanted = torch.cat([x.double().var((0, 2, 3), correction=0) for x in ends]).float().clamp_min(1e-4)
    torch.testing.assert_close(module.variances, wanted, rtol=1e-4, atol=1e-6)


def test_a_channel_that_never_moves_counts_but_does_not_blow_up() -> None:
    still = blockwise._Moments()
    still.add([torch.full((2, 3, 4, 4), 7.0)])
    assert still.variances()[0].tolist() == [1e-4] * 3


# --- runs --------------------------------------------------------------------------------------------------------


def losses_of(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_losses_fall(method: str, precision: Any, tmp_path: Path) -> None:
    learning = task(student(depths=[2, 2, 2]), method)
    before = learning.unexplained(student(depths=[2, 2, 2]))
    trained = run(learning, replace(LOOP, precision=precision), tmp_path, {})
    assert isinstance(trained, Pupil)
    curve = losses_of(tmp_path)
    assert curve[-1] < 0.6 * curve[0]
    after = learning.unexplained(trained.encoder)
    assert all(after[name] < before[name] for name in before)


def test_a_resumed_run_has_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = replace(LOOP, steps=8, log_every=2, checkpoint_seconds=0.0)
    whole = run(task(student(), "blockwise"), loop, tmp_path / "whole", {})
    save = checkpoint.save_checkpoint

    def save_and_stop(folder: Path, state: checkpoint.Checkpoint) -> None:
        save(folder, state)
        if state.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("anomaly_ov.training.loop.save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(task(student(), "blockwise"), loop, tmp_path / "halves", {})
    halves = run(task(student(), "blockwise"), loop, tmp_path / "halves", {})
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "halves")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, halves.state_dict()[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_is_trained_exported_and_measured(method: Any, tmp_path: Path) -> None:
    labelled_folder(tmp_path / "one")
    save_file(MobileNetEdgeTPU().state_dict(), tmp_path / "teacher.safetensors")
    backbone = {"model_type": "mobilenet_edgetpu", "depths": [1, 1, 1, 1, 1, 1]}
    config = EncoderConfig(backbone=backbone, levels=(1, 2), final=3, image_size=32, grid_hw=(4, 4))
    distill = DistillConfig(method=method, statistics_crops=4)
    recipe = EncoderRecipe("small", config, distill, ("one",), replace(LOOP, steps=1, ema=0.5))
    folder = train_encoder(recipe, tmp_path, tmp_path / "teacher.safetensors", tmp_path / "run")
    shares = read_held_out(tmp_path / "run")
    assert shares is not None
    assert list(shares) == ["stage1", "stage2", "stage3"]
    assert AnomalyModel.from_pretrained(folder).encoder.model_type == "mobilenet_edgetpu"
    assert (tmp_path / "run" / HELD_OUT).is_file()
    assert read_held_out(tmp_path) is None


# --- what does not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text", "hint"),
    [
        ({"hidden_sizes": [8, 9, 12]}, r"hidden_sizes = \[8, 9, 12\] are not the teacher's", "[8, 8, 12]"),
        ({"strides": [2, 1, 2]}, r"strides = \[2, 1, 2\]", "[2, 2, 1]"),
        ({"depths": [2, 4, 1]}, r"depths = \[2, 4, 1\] are more", "[2, 3, 2]"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_shape_that_does_not_fit_the_teacher_is_named(
    changes: dict[str, Any], text: str, hint: str, method: str
) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        task(student(**changes), method)
    assert hint in str(caught.value.hint)


def test_another_kind_of_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_type = 'resnet'") as caught:
        task(Encoder(encoder_config()), "blockwise")
    assert "mobilenet_edgetpu" in str(caught.value.hint)


def test_other_pixels_than_the_teachers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"-1\.\.1"):
        task(Encoder(replace(student().config, mean=(0.4, 0.4, 0.4))), "whole")


def test_an_encoder_without_stages_has_nothing_to_regress() -> None:
    with pytest.raises(ConfigError, match="levels and final are all 0"):
        task(student(levels=(0,), final=0), "whole")


def test_kernels_stem_and_expansion_are_the_students_own() -> None:
    other = student(kernels=[5, 3, 3], embedding_size=8, stem_size=10, expansion=3, first_expansion=2, fused=0)
    assert all(torch.isfinite(value) for value in task(other, "blockwise").losses(batch()).values())
