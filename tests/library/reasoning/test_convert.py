"""LLaVA-OneVision checkpoints in both layouts become model folders with the same numbers as the stock model.

What is converted is compared with what transformers computes from the very same weights; what is refused is in
test_convert_refusals.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import SiglipVisionModel

from anomaly_ov.errors import UsageError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import RELEASED_SCORING, ExpertConfig, ModelConfig, ScoringConfig
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.encoder import encoder_from_pretrained
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.reasoning.checkpoint import Checkpoint
from anomaly_ov.reasoning.convert import convert_llava
from llava_fixtures import (
    LEVELS,
    ROWS,
    Stock,
    converted,
    make_next,
    refused,
    rewrite,
    same_language,
    same_tower,
    shard,
    stock_model,
    tensors_of,
    to_new,
)


@pytest.mark.parametrize("names", ["old", "old with vision_model", "new"])
def test_hugging_face_layouts_give_the_stock_models_numbers(
    stock: Stock, folder: Path, tmp_path: Path, names: str
) -> None:
    if names == "new":
        rewrite(folder, lambda tensors: {to_new(name): tensor for name, tensor in tensors.items()})
    elif names == "old with vision_model":
        rewrite(folder, lambda ts: {n.replace("vision_tower.", "vision_tower.vision_model."): t for n, t in ts.items()})
    ours = converted(stock, folder, tmp_path / "out")
    same_language(ours, stock)
    same_tower(ours, stock, 3)
    given = torch.load(stock.expert, weights_only=True)
    expert = ours.model.model.detector.expert.state_dict()
    assert all(torch.equal(expert[key], given[key]) for key in given)


@pytest.mark.parametrize("model_type", ["llava_qwen", "qwen2", "llava"])
@pytest.mark.parametrize("sharded", [False, True])
def test_llava_next_layout_gives_the_stock_models_numbers(
    stock: Stock, folder: Path, tmp_path: Path, model_type: str, sharded: bool
) -> None:
    make_next(folder, model_type, architectures=["LlavaQwenForCausalLM"])
    if sharded:
        shard(folder)
    ours = converted(stock, folder, tmp_path / "out", encoder=stock.siglip)
    same_language(ours, stock)
    same_tower(ours, stock, 2)  # its code drops the last block
    assert ours.model.config.text_config.rope_parameters["rope_theta"] == 1e6
    text = "a scratch 123\n there's <image> a <|im_end|> plate: u\u0308"
    assert ours.tokenizer.encode(text) == stock.tokenizer.encode(text)  # as its file says, whatever class is named


def test_a_tower_that_is_not_in_the_checkpoint_comes_from_its_own(stock: Stock, folder: Path, tmp_path: Path) -> None:
    make_next(folder)
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "vision_tower" not in name})
    ours = converted(stock, folder, tmp_path / "out", encoder=stock.siglip)
    same_language(ours, stock)
    same_tower(ours, stock, 2, SiglipVisionModel.from_pretrained(stock.siglip).eval())


@pytest.mark.parametrize("prefix", ["anomaly_encoder.", "model.anomaly_encoder."])
def test_an_expert_inside_the_checkpoint_is_taken(stock: Stock, folder: Path, tmp_path: Path, prefix: str) -> None:
    make_next(folder)
    own = {key: tensor + 1 for key, tensor in torch.load(stock.expert, weights_only=True).items()}
    rewrite(folder, lambda tensors: tensors | {prefix + key: tensor for key, tensor in own.items()})
    ours = converted(stock, folder, tmp_path / "out", expert=None, encoder=stock.siglip)
    expert = ours.model.model.detector.expert.state_dict()
    assert all(torch.equal(expert[key], own[key]) for key in own)
    assert "has an expert of its own" in refused(stock, folder, UsageError, encoder=stock.siglip)


def test_an_expert_of_our_own_keeps_its_scoring_only_behind_its_own_encoder(
    stock: Stock, folder: Path, tmp_path: Path
) -> None:
    tower = encoder_from_pretrained(stock.siglip, LEVELS, 2)
    settings = ModelConfig("mine", encoder=tower.config, expert=expert_for(tower, ExpertConfig(hidden=8)))
    settings = replace(settings, views=ViewsConfig(28, cap=200), scoring=ScoringConfig(top=0.25))
    donor = AnomalyModel(settings, tower)
    donor.save_pretrained(tmp_path / "mine", dtype=torch.float16)
    make_next(folder)
    given = {"expert": tmp_path / "mine", "encoder": stock.siglip, "levels": None, "final": None}
    other = converted(stock, folder, tmp_path / "other", **given).model.model.detector
    assert other.config.scoring == RELEASED_SCORING
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "vision_tower" not in name})
    same = converted(stock, folder, tmp_path / "same", **given).model.model.detector
    assert (same.config.scoring.top, same.config.views.cap, same.config.name) == (0.25, 200, "same")
    mine = AnomalyModel.from_pretrained(tmp_path / "mine")
    for made in (other, same):
        assert made.config.encoder.levels == LEVELS
        assert made.config.revision != mine.config.revision
        given = mine.expert.state_dict()
        assert all(torch.equal(tensor, given[key]) for key, tensor in made.expert.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_tied_head_is_stored_once_in_the_type_asked_for(
    stock: Stock, tmp_path: Path, dtype: Literal["bfloat16", "float16"]
) -> None:
    model = stock_model(tie=True)
    model.save_pretrained(tmp_path / "tied")
    stock.tokenizer.save_pretrained(tmp_path / "tied")
    assert "language_model.lm_head.weight" not in tensors_of(tmp_path / "tied")
    ours = converted(stock, tmp_path / "tied", tmp_path / "out", dtype=dtype)
    assert ours.model.lm_head.weight is ours.model.model.language_model.embed_tokens.weight
    stored = {k: t for file in (tmp_path / "out/language").glob("*.safetensors") for k, t in load_file(file).items()}
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
    assert sum(tensor.shape[0] == ROWS for tensor in stored.values()) == 1
    # The stock model rounded the same way gives the same numbers.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(getattr(torch, dtype)))
    same_language(ours, stock, model)


def test_what_is_in_the_way_stays(stock: Stock, folder: Path, tmp_path: Path) -> None:
    for taken in (tmp_path / "folder", tmp_path / "file"):
        if taken.name == "folder":
            taken.mkdir()
            (taken / "mine.txt").write_text("mine")
        else:
            taken.write_text("mine")
        with pytest.raises(UsageError, match="exists already"):
            converted(stock, folder, taken)
    assert (tmp_path / "folder/mine.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="no folder"):
        converted(stock, folder, tmp_path / "model.safetensors")
    (tmp_path / "empty").mkdir()
    same_language(converted(stock, folder, tmp_path / "empty"), stock)


def test_the_folder_says_where_it_comes_from(stock: Stock, folder: Path, tmp_path: Path) -> None:
    ours = converted(stock, folder, tmp_path / "deep" / "model")
    card = (tmp_path / "deep/model/README.md").read_text()
    for fact in ("# model", "`checkpoint`", "Hugging Face", "`expert.pth`", "1, 2 and 3", "not calibrated"):
        assert fact in card
    assert ours.model.config.detector_revision == ours.model.model.detector.config.revision != ""
    assert {path.name for path in (tmp_path / "deep/model").iterdir()} == {
        "README.md", "config.json", "language", "model.safetensors"
    }  # fmt: skip


def test_converting_takes_about_the_memory_of_one_model(
    stock: Stock, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_stored, detectors = weakref.WeakSet[Tensor](), weakref.WeakSet[torch.nn.Module]()
    alive: list[tuple[int, int]] = []
    finite, save = Checkpoint._finite, AnomalyModel.save_pretrained

    def read(self: Checkpoint, name: str, stored: Tensor, dtype: torch.dtype) -> Tensor:
        if dtype == torch.bfloat16:  # the language side
            as_stored.add(stored)
            alive.append((len(as_stored), len(detectors)))
        return finite(self, name, stored, dtype)

    def saved(self: AnomalyModel, *args: Any, **options: Any) -> Path:
        detectors.add(self.encoder)
        return save(self, *args, **options)

    monkeypatch.setattr(Checkpoint, "_finite", read)
    monkeypatch.setattr(AnomalyModel, "save_pretrained", saved)
    convert_llava(folder, tmp_path / "out", expert=stock.expert, levels=LEVELS, final=3)
    # A tensor lives as stored until the next one is read; the detector is gone before the first.
    assert len(alive) == 32
    assert max(tensors for tensors, _ in alive) <= 2
    assert max(encoders for _, encoders in alive) == 0
