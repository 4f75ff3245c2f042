"""LLaVA-OneVision checkpoints in both layouts: the same numbers as the stock model, or an error that says what is lost.

Stock models of two or three layers stand in for the released ones; what is converted is compared with what
transformers computes from the very same weights.
"""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from anomaly_ov.errors import (
    AnomalyOVError,
    CheckpointMismatch,
    ConfigError,
    UnsafeCheckpoint,
    UsageError,
    WeightsError,
)
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import CalibrationConfig, ExpertConfig, ModelConfig, ProjectionPart
from anomaly_ov.models.create import expert_for
from anomaly_ov.models.encoder import encoder_from_pretrained
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.reasoning.checkpoint import Checkpoint
from anomaly_ov.models.reasoning.config import prompt_ids_of
from anomaly_ov.models.reasoning.convert import convert_llava
from anomaly_ov.models.reasoning.folder import Reasoner, load_reasoner
from anomaly_ov.models.reasoning.processor import CHATML
from anomaly_ov.models.reasoning.tokenizer import train_tokenizer

LEVELS = (1, 2)
ROWS = 340  # of the embeddings; the tokenizer's ids end before that
TEXT = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 1e6,
    "max_position_embeddings": 512,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}


@dataclass(frozen=True)
class Stock:
    """A stock model and the folders that hold it."""

    model: Any
    tokenizer: Any
    folder: Path
    siglip: Path
    expert: Path


def stock_model(tie: bool = False, rows: int = ROWS, head: bool = False) -> Any:
    """Random weights far from their defaults, so that none can be mistaken for a fresh one."""
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=head).to_dict(),
        text_config=Qwen2Config(**(TEXT | {"vocab_size": rows}), tie_word_embeddings=tie).to_dict(),
        image_token_index=rows - 1,
        tie_word_embeddings=tie,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["the small scratch on the left side of the metal plate"], 320)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Stock:
    """In Hugging Face's layout as transformers writes it."""
    root = tmp_path_factory.mktemp("stock")
    model = stock_model()
    model.save_pretrained(root / "llava")
    tokenizer.save_pretrained(root / "llava")
    siglip = SiglipVisionModel(SiglipVisionConfig(**VISION))
    siglip.save_pretrained(root / "siglip")
    tower = encoder_from_pretrained(root / "siglip", LEVELS, 3)
    torch.manual_seed(1)
    torch.save(Expert(expert_for(tower, ExpertConfig())).state_dict(), root / "expert.pth")
    return Stock(model, tokenizer, root / "llava", root / "siglip", root / "expert.pth")


@pytest.fixture
def folder(stock: Stock, tmp_path: Path) -> Path:
    """A copy of the stock model's folder to spoil."""
    return Path(shutil.copytree(stock.folder, tmp_path / "checkpoint"))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    tensors = change(tensors_of(folder))
    save_file(
        {key: t.contiguous().clone() for key, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def rewrite_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def to_next(name: str) -> str:
    """transformers' saved name -> LLaVA-NeXT's."""
    for old, new in (
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("image_newline", "model.image_newline"),
        ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise AssertionError(name)


def to_new(name: str) -> str:
    """transformers' saved name -> what the module itself calls it."""
    for old, new in (("language_model.model.", "model.language_model."), ("language_model.lm_head.", "lm_head.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return f"model.{name}"


def make_next(folder: Path, model_type: str = "llava_qwen", **fields: Any) -> Path:
    """The folder in LLaVA-NeXT's layout."""
    rewrite(folder, lambda tensors: {to_next(name): tensor for name, tensor in tensors.items()})
    settings = {
        "model_type": model_type,
        "mm_vision_tower": "a/local/tower",
        "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "anyres_max_9",
    }
    (folder / "config.json").write_text(json.dumps(TEXT | settings | fields))
    return folder


def shard(folder: Path, count: int = 3) -> None:
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    listed = {}
    for index in range(count):
        name = f"model-{index + 1:05d}-of-{count:05d}.safetensors"
        part = dict(list(tensors.items())[index::count])
        save_file(part, folder / name, {"format": "pt"})
        listed |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))


def converted(stock: Stock, folder: Path, out: Path, **options: Any) -> Reasoner:
    path = folder / "config.json"
    final = 2 if path.is_file() and "llava_onevision" not in path.read_text() else 3
    defaults = {"expert": stock.expert, "dtype": "float32", "levels": LEVELS, "final": final}
    return load_reasoner(convert_llava(folder, out, **(defaults | options)))


def refused(stock: Stock, folder: Path, kind: type[AnomalyOVError], **options: Any) -> str:
    """The error's message; nothing may be left behind."""
    out = folder.parent / "refused"
    with pytest.raises(kind) as caught:
        converted(stock, folder, out, **options)
    assert not out.exists()
    assert not list(folder.parent.glob(".converting-*"))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value.message


def ids_of(tokenizer: Any) -> Tensor:
    return torch.tensor([tokenizer.encode("the small scratch on the left side, 12 of 40")])


def same_language(ours: Reasoner, stock: Stock, model: Any = None) -> None:
    """Logits of text and the projector's output equal the stock model's to the last bit."""
    model = stock.model if model is None else model
    ids = ids_of(stock.tokenizer)
    with torch.no_grad():
        assert torch.equal(ours.model(input_ids=ids).logits, model(input_ids=ids).logits)
        tokens = torch.randn(5, VISION["hidden_size"])
        projected = model.model.multi_modal_projector(tokens)
        assert torch.equal(ours.model.model.multi_modal_projector(tokens), projected)
    assert torch.equal(ours.model.model.image_newline, model.model.image_newline)


def same_tower(ours: Reasoner, stock: Stock, final: int, tower: Any = None) -> None:
    """Every hidden state that we keep equals the stock tower's."""
    tower = stock.model.model.vision_tower if tower is None else tower
    pixels = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True).hidden_states
        features = ours.model.model.detector.encoder(pixels)
    assert torch.allclose(features.final_NPD, states[final], atol=1e-5)
    for level, tokens in zip(LEVELS, features.levels_NPD, strict=True):
        assert torch.allclose(tokens, states[level], atol=1e-5)


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


@pytest.mark.parametrize("model_type", ["llava_qwen", "qwen2"])
@pytest.mark.parametrize("sharded", [False, True])
def test_llava_next_layout_gives_the_stock_models_numbers(
    stock: Stock, folder: Path, tmp_path: Path, model_type: str, sharded: bool
) -> None:
    make_next(folder, model_type)
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


def test_an_expert_of_our_own_keeps_its_calibration_only_behind_its_own_encoder(
    stock: Stock, folder: Path, tmp_path: Path
) -> None:
    tower = encoder_from_pretrained(stock.siglip, LEVELS, 2)
    settings = ModelConfig("mine", encoder=tower.config, expert=expert_for(tower, ExpertConfig(hidden=8)))
    settings = replace(settings, views=ViewsConfig(28, cap=200), calibration=CalibrationConfig(threshold=0.25))
    settings = replace(settings, projection=(ProjectionPart((0, 1), 4),))
    donor = AnomalyModel(settings, tower)
    donor.save_pretrained(tmp_path / "mine", dtype=torch.float16)
    make_next(folder)
    given = {"expert": tmp_path / "mine", "encoder": stock.siglip, "levels": None, "final": None}
    other = converted(stock, folder, tmp_path / "other", **given).model.model.detector
    assert other.config.calibration == CalibrationConfig()
    assert other.config.projection == ()
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "vision_tower" not in name})
    same = converted(stock, folder, tmp_path / "same", **given).model.model.detector
    assert (same.config.calibration.threshold, same.config.views.cap, same.config.name) == (0.25, 200, "same")
    mine = AnomalyModel.from_pretrained(tmp_path / "mine")
    for made in (other, same):
        assert made.config.encoder.levels == LEVELS
        assert made.config.revision != mine.config.revision
        given = mine.expert.state_dict()
        assert all(torch.equal(tensor, given[key]) for key, tensor in made.expert.state_dict().items())
    assert torch.equal(same.projection.maps[0].weight, mine.projection.maps[0].weight)


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


def test_a_head_saved_beside_what_it_is_tied_to_must_be_the_same(stock: Stock, tmp_path: Path) -> None:
    folder, key = tmp_path / "tied", "language_model.model.embed_tokens.weight"
    stock_model(tie=True).save_pretrained(folder)
    stock.tokenizer.save_pretrained(folder)
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors[key]})
    converted(stock, folder, tmp_path / "out")
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors[key] * 2})
    assert "lm_head.weight is not language_model" in refused(stock, folder, CheckpointMismatch)


def test_only_what_the_tower_never_reads_may_be_left_over(stock: Stock, folder: Path, tmp_path: Path) -> None:
    make_next(folder)
    names = [f"head.{n}" for n in ("probe", "mlp.fc1.weight")] + ["post_layernorm.weight", "embeddings.position_ids"]
    prefix = "model.vision_tower.vision_tower.vision_model."
    extra = {prefix + name: torch.ones(2) for name in names}
    extra["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    rewrite(folder, lambda tensors: tensors | extra)
    same_language(converted(stock, folder, tmp_path / "out", encoder=stock.siglip), stock)
    rewrite(folder, lambda tensors: tensors | {f"{prefix}encoder.layers.3.mlp.fc1.bias": torch.ones(24)})
    said = refused(stock, folder, CheckpointMismatch, encoder=stock.siglip)
    assert "1 unexpected: " + prefix + "encoder.layers.3.mlp.fc1.bias" in said


MISSING = {
    "one tensor": (
        lambda n: "layers.1.mlp.up_proj" not in n,
        "1 of 26 of the language model: model.language",
    ),
    "head": (lambda n: "lm_head" not in n, "all 1 of the language model's head"),
    "newline": (lambda n: n != "image_newline", "all 1 of the image newline"),
    "projector": (lambda n: "projector" not in n, "all 4 of the projector"),
    "half the tower": (lambda n: "tower.encoder.layers.2" not in n, "16 of 51 of the vision tower"),
    "tower": (lambda n: "tower" not in n, "all 51 of the vision tower"),
    "language model": (lambda n: "language_model.model" not in n, "all 26 of the language model"),
    "all but the projector": (lambda n: "projector" in n, "all 26 of the language model"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_named(stock: Stock, folder: Path, what: str) -> None:
    keep, expected = MISSING[what]
    rewrite(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if keep(name)})
    assert expected in refused(stock, folder, CheckpointMismatch)


def test_all_that_is_wrong_is_named_at_once(stock: Stock, folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors["image_newline"] = torch.ones(31)
        tensors["multi_modal_projector.linear_1.bias"] = torch.ones(32, dtype=torch.int8)
        tensors["model.multi_modal_projector.linear_2.bias"] = torch.ones(32)
        tensors["language_model.model.layers.0.mlp.extra"] = torch.ones(3)
        return tensors

    rewrite(folder, spoil)
    said = refused(stock, folder, CheckpointMismatch)
    assert "1 unexpected: language_model.model.layers.0.mlp.extra" in said
    assert "1 there twice: model.multi_modal_projector.linear_2.bias and multi_modal_projector.linear_2.bias" in said
    assert "1 of another shape: image_newline is [31], must be [32]" in said
    assert "1 not floating point: multi_modal_projector.linear_1.bias is I8" in said


def test_shapes_are_refused_before_anything_is_read(
    stock: Stock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly_ov.models.reasoning.checkpoint.Checkpoint.read", lambda *a: pytest.fail("was read"))
    rewrite_config(folder, text_config=Qwen2Config(**(TEXT | {"vocab_size": ROWS + 1})).to_dict())
    said = refused(stock, folder, CheckpointMismatch)
    assert f"embed_tokens.weight is [{ROWS}, 32], must be [{ROWS + 1}, 32]" in said


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin", "mm_projector.bin"])
@pytest.mark.parametrize("beside", ["nothing", "a configuration", "a whole model"])
def test_adapters_are_never_dropped(stock: Stock, folder: Path, file: str, beside: str) -> None:
    if beside != "a whole model":
        (folder / "model.safetensors").unlink()
    if beside == "nothing":
        (folder / "config.json").unlink()
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({key: torch.ones(4, 32)}, folder / file)
    said = refused(stock, folder, WeightsError)
    if file.endswith(".bin"):
        assert file in said or "config.json is missing" in said
    elif beside == "a whole model":
        assert f"1 unexpected: {key}" in said
    else:
        assert "language model" in said
        assert "missing" in said


def test_a_tuned_tower_is_not_replaced(stock: Stock, folder: Path) -> None:
    make_next(folder, mm_tunable_parts="mm_vision_tower,mm_mlp_adapter,mm_language_model")
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "vision_tower" not in name})
    assert "vision tower, which was tuned" in refused(stock, folder, CheckpointMismatch, encoder=stock.siglip)


def test_shards(stock: Stock, folder: Path, tmp_path: Path) -> None:
    shard(folder)
    same_language(converted(stock, folder, tmp_path / "out"), stock)
    second, index = folder / "model-00002-of-00003.safetensors", folder / "model.safetensors.index.json"
    content, listed = second.read_bytes(), index.read_text()
    second.write_bytes(content[: len(content) // 2])
    assert second.name in refused(stock, folder, UnsafeCheckpoint)
    second.unlink()
    assert f"1 of 3 shards are missing ({second.name})" in refused(stock, folder, WeightsError)
    index.unlink()
    assert "missing" in refused(stock, folder, CheckpointMismatch)
    second.write_bytes(content)
    index.write_text(listed.replace(second.name, "../" + second.name))
    assert "not files beside it" in refused(stock, folder, UnsafeCheckpoint)
    index.write_text(listed.replace('"image_newline"', '"image_newlines"'))
    assert "lack what model.safetensors.index.json lists: image_newlines" in refused(stock, folder, CheckpointMismatch)
    index.write_text(listed)
    shutil.copy(folder / "model-00001-of-00003.safetensors", second)
    assert "is in both model-0000" in refused(stock, folder, CheckpointMismatch)
    index.write_text("[]")
    assert "no index of shards" in refused(stock, folder, UnsafeCheckpoint)


def test_a_truncated_file_and_no_file(stock: Stock, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "no complete safetensors file" in refused(stock, folder, UnsafeCheckpoint)
    path.unlink()
    assert "no weights" in refused(stock, folder, WeightsError)


@pytest.mark.parametrize(("value", "dtype", "expected"), [
    (float("nan"), "float32", "image_newline holds values that are not finite"),
    (1e9, "float16", "float16 cannot hold image_newline"),
])  # fmt: skip
def test_values_must_be_finite(stock: Stock, folder: Path, value: float, dtype: str, expected: str) -> None:
    rewrite(folder, lambda tensors: tensors | {"image_newline": torch.full((32,), value)})
    assert expected in refused(stock, folder, CheckpointMismatch, dtype=dtype)


def without_marker(tokenizer: Any, words: Sequence[str] = ()) -> Any:
    """The tokenizer as a plain language model has it."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<image>"]
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] = vocabulary.pop("<image>")  # leaves no gap
    content["model"]["merges"] = [m for m in content["model"]["merges"] if "".join(m) != last]
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    plain.chat_template = CHATML
    return plain


@pytest.mark.parametrize("spare", [True, False])
def test_a_marker_is_added_with_a_row_of_its_own(stock: Stock, tmp_path: Path, spare: bool) -> None:
    plain, folder = without_marker(stock.tokenizer), tmp_path / "plain"
    rows = len(plain) + int(spare)
    model = stock_model(rows=rows)
    model.save_pretrained(folder)
    plain.save_pretrained(folder)
    ours = converted(stock, folder, tmp_path / "out")
    marker = ours.tokenizer.convert_tokens_to_ids("<image>")
    assert marker == ours.model.config.image_token_id == len(plain)
    assert ours.tokenizer.encode("a<image>b").count(marker) == 1
    assert ours.model.config.text_config.vocab_size == len(plain) + 1
    ids = torch.tensor([plain.encode("the small scratch")])
    with torch.no_grad():
        logits = ours.model(input_ids=ids).logits
        assert torch.equal(logits[..., :rows], model(input_ids=ids).logits)
    assert (logits[..., marker] < logits.amax(-1)).all()


def test_the_tokenizer_is_kept(stock: Stock, folder: Path, tmp_path: Path) -> None:
    ours = converted(stock, folder, tmp_path / "out")
    text = "<|im_start|>user\n<image>\nIs there a scratch? Ünï 123  \n<|im_end|>"
    assert ours.tokenizer.encode(text) == stock.tokenizer.encode(text)
    assert ours.model.config.image_token_id == stock.tokenizer.convert_tokens_to_ids("<image>")
    assert ours.model.config.prompt_ids == prompt_ids_of(stock.tokenizer)
    assert ours.model.generation_config.eos_token_id == [stock.tokenizer.eos_token_id]


LISTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} "
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] }}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(("template", "kept"), [
    (CHATML.replace("{% for", "{# mine #}{% for", 1), True),
    (LISTS, False),
    ("{{ raise_exception('no') }}", False),
    (None, False),
])  # fmt: skip
def test_a_chat_template_is_kept_if_it_writes_plain_texts(
    stock: Stock, folder: Path, tmp_path: Path, template: str | None, kept: bool
) -> None:
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    ours = converted(stock, folder, tmp_path / "out")
    assert ours.tokenizer.chat_template == (template if kept else CHATML)
    assert "said so" in ours.processor.text([("user", "said so")])


@pytest.mark.parametrize(("fields", "expected"), [
    ({"model_type": "llava"}, "model_type = 'llava' is no LLaVA-OneVision"),
    ({"text_config": None}, "text_config is missing"),
    ({"text_config": TEXT | {"model_type": "qwen2", "hidden_size": 10**9}}, "hidden_size = 1000000000 is out of range"),
    ({"text_config": TEXT | {"model_type": "no-such"}}, "refuses it"),
    ({"vision_feature_layer": [-1, -2]}, "vision_feature_layer = [-1, -2]"),
    ({"vision_feature_layer": -2}, "reads hidden state 2 of the vision tower, not 3"),
    ({"vision_feature_select_strategy": "default"}, "strategy 'default'"),
])  # fmt: skip
def test_a_configuration_that_cannot_be_followed(
    stock: Stock, folder: Path, fields: dict[str, Any], expected: str
) -> None:
    rewrite_config(folder, **fields)
    assert expected in refused(stock, folder, ConfigError)


@pytest.mark.parametrize(("fields", "expected"), [
    ({"mm_projector_type": "linear"}, "mm_projector_type = 'linear'"),
    ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type = 'flat'"),
    ({"mm_resampler_type": "qformer"}, "mm_resampler_type = 'qformer'"),
    ({"mm_hidden_size": 1152}, "mm_hidden_size = 1152, but the vision tower's width is 16"),
    ({"vocab_size": 0}, "vocab_size = 0 is out of range"),
    ({"num_attention_heads": "many"}, "num_attention_heads = 'many' is out of range"),
])  # fmt: skip
def test_a_llava_next_configuration_that_cannot_be_followed(
    stock: Stock, folder: Path, fields: dict[str, Any], expected: str
) -> None:
    make_next(folder, **fields)
    assert expected in refused(stock, folder, ConfigError, encoder=stock.siglip)


def test_the_released_tower_is_known_and_another_must_be_named(stock: Stock, folder: Path) -> None:
    make_next(folder)
    assert "mm_vision_tower = 'a/local/tower' does not say" in refused(stock, folder, ConfigError)
    make_next_config = {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_hidden_size": 1152}
    rewrite_config(folder, **make_next_config)
    said = refused(stock, folder, CheckpointMismatch, levels=None, final=26)
    assert "of the vision tower: tower.encoder.layers.3." in said
    assert "patch_embedding.weight is [16, 3, 7, 7], must be [1152, 3, 14, 14]" in said


def test_sources_that_are_none_or_one_too_many(stock: Stock, folder: Path, tmp_path: Path) -> None:
    assert "has no anomaly expert" in refused(stock, folder, UsageError, expert=None)
    assert "no checkpoint file" in refused(stock, folder, WeightsError, expert=tmp_path / "none.pth")
    assert "has a vision tower of its own" in refused(stock, folder, UsageError, encoder=stock.siglip)
    assert "dtype = 'int8' is unknown" in refused(stock, folder, UsageError, dtype="int8")
    wide = tmp_path / "wide"
    SiglipVisionModel(SiglipVisionConfig(**(VISION | {"hidden_size": 32}))).save_pretrained(wide)
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if "vision_tower" not in name})
    assert "32 wide, the projector of" in refused(stock, folder, ConfigError, encoder=wide)
    assert "cannot load the encoder" in refused(stock, folder, WeightsError, encoder=tmp_path / "nowhere")


def test_tokenizers_that_do_not_serve(stock: Stock, folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = path.read_text()
    settings = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text(settings.replace("<|im_start|>", "<|start|>"))
    path.write_text(content.replace("<|im_start|>", "<|start|>"))
    assert "the tokenizer has no <|im_start|>" in refused(stock, folder, ConfigError)
    path.write_text(content[:100])
    assert "no tokenizer that can be read" in refused(stock, folder, WeightsError)
    path.unlink()
    assert "no tokenizer that can be read" in refused(stock, folder, WeightsError)
    pairs = [a + b for a in "abcdefghijklm" for b in "nopqrstuvwxyz"]
    train_tokenizer([f"{pair} {pair}" for pair in pairs], 900).save_pretrained(folder)
    assert f"the embeddings {ROWS} rows" in refused(stock, folder, ConfigError)


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
