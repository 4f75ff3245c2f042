"""The seeded parameters and inputs behind ``tests/golden``, drawn again instead of stored.

Only numpy's legacy ``RandomState`` is used: its stream is frozen across numpy versions. Values are rounded to float32
before use, so that runs in float32 and float64 start from the same numbers; ``params_check.json`` and ``meta.json``
hold checksums of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import ExpertConfig, ScoringConfig
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.features import Features

GOLDEN = Path(__file__).parents[1] / "golden" / "expert"
FUSION, TOKENIZER = GOLDEN.parent / "fusion", GOLDEN.parent / "tokenizer"
QWEN2_VOCABULARY, QWEN2_IMAGE = 151936, 151646
QWEN2_WORDS = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PICTURE = -200  # a picture among the recorded ids
WIDTH, SIDE, LEVELS = 1152, 27, 4


@cache
def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def outputs(name: str) -> dict[str, np.ndarray]:
    """All arrays of one golden file, for example ``s5_f32``."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


def released_shapes() -> dict[str, tuple[int, ...]]:
    """The 32 parameter names of a released checkpoint with their shapes, in its order."""
    return {name: tuple(shape) for name, shape in read_json("state_dict_shapes.json")["shapes"].items()}


def expert_parameters(shapes: Mapping[str, Sequence[int]], seed: int = 20250212) -> dict[str, np.ndarray]:
    """One normal draw per name in alphabetical order, scaled by role; the two embeddings lie close together."""
    stream = np.random.RandomState(seed)
    drawn = {name: _scale(name, stream.standard_normal(tuple(shapes[name]))) for name in sorted(shapes)}
    drawn["negative_embedding"] = drawn["positive_embedding"] + 0.25 * drawn["negative_embedding"]
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def _scale(name: str, value: np.ndarray) -> np.ndarray:
    if name.endswith(".bias"):
        return value * 0.1
    if not name.endswith(".weight"):
        return value
    value = value / np.sqrt(value.shape[1])
    if name == "final_predictor.2.weight":
        return value * 8.0
    return value * 1.5 if name.startswith("q_former.") else value


def expert_tokens(seed: int, views_per_image: Sequence[int]) -> np.ndarray:
    """(N, 729, 1152) float32: noise, a vector per image, a weaker one per view and a Gaussian blob per view."""
    stream = np.random.RandomState(seed)
    images, views = len(views_per_image), sum(views_per_image)
    owner_N = np.repeat(np.arange(images), views_per_image)
    per_image = stream.standard_normal((images, 1, WIDTH))
    per_view = stream.standard_normal((views, 1, WIDTH))
    direction = stream.standard_normal((images, 1, WIDTH))
    centre_N2 = 13 + 5 * stream.standard_normal((views, 2))
    tokens_NPD = stream.standard_normal((views, SIDE * SIDE, WIDTH))
    rows_P, columns_P = np.divmod(np.arange(SIDE * SIDE), SIDE)
    distance_NP = (rows_P - centre_N2[:, :1]) ** 2 + (columns_P - centre_N2[:, 1:]) ** 2
    blob_NP1 = np.exp(-distance_NP / 32.0)[..., None]
    # Added one after the other: float addition does not associate, and the checksums are exact.
    tokens_NPD += per_image[owner_N]
    tokens_NPD += 0.5 * per_view
    tokens_NPD += 1.5 * blob_NP1 * direction[owner_N]
    return tokens_NPD.astype(np.float32)


def expert_inputs(seed: int, views_per_image: Sequence[int], dtype: torch.dtype = torch.float32) -> Features:
    """Final features from ``seed``, the four levels from the four seeds after it."""
    final, *levels = (torch.from_numpy(expert_tokens(seed + i, views_per_image)).to(dtype) for i in range(LEVELS + 1))
    return Features(final, tuple(levels), (SIDE, SIDE))


def expert_state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A state dict as in a released checkpoint, with the seeded values."""
    drawn = expert_parameters(released_shapes())
    return {name: torch.from_numpy(drawn[name]).to(dtype) for name in released_shapes()}


@cache
def fusion_meta() -> Any:
    return json.loads((FUSION / "meta.json").read_text())


@cache
def tokenizer_json(name: str) -> Any:
    return json.loads((TOKENIZER / f"{name}.json").read_text())


def fusion_arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of one case of ``golden/fusion``; embeddings stored as bf16 bits come back as float32."""
    with np.load(FUSION / f"{name}.npz") as stored:
        arrays = dict(stored)
    if "embeds_bf16" in arrays:
        arrays["embeds_bf16"] = (arrays["embeds_bf16"].astype(np.uint32) << 16).view(np.float32)
    return arrays


def sketch(embeds_SE: np.ndarray) -> np.ndarray:
    """Two weighted sums of each embedding, so that every position can be compared without storing it."""
    return embeds_SE.astype(np.float64) @ np.random.RandomState(7).standard_normal((embeds_SE.shape[-1], 2))


@cache
def fusion_parameters(hidden: int) -> tuple[torch.Tensor, ...]:
    """Token embeddings, weight and bias of the (single, linear) projector, and the newline."""
    stream = np.random.RandomState(777)
    embed_VE = stream.standard_normal((QWEN2_VOCABULARY, hidden)) * 0.5
    weight_ED = stream.standard_normal((hidden, WIDTH)) / np.sqrt(WIDTH)
    bias_E, newline_E = stream.standard_normal(hidden) * 0.1, stream.standard_normal(hidden) * 0.5
    return tuple(torch.from_numpy(drawn.astype(np.float32)) for drawn in (embed_VE, weight_ED, bias_E, newline_E))


def language_parameters(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """The language model's seeded weights behind the recorded loss and greedy decode."""
    stream = np.random.RandomState(4242)
    found = {}
    for name in sorted(shapes):
        drawn = stream.standard_normal(tuple(shapes[name]))
        if drawn.ndim >= 2:
            drawn = drawn / np.sqrt(drawn.shape[1])
        else:
            drawn = 1 + 0.1 * drawn if name.endswith("norm.weight") else 0.1 * drawn
        found[name] = torch.from_numpy(drawn.astype(np.float32))
    return found


@cache
def qwen2_tokenizer() -> Any:
    """A tokenizer that cuts text as Qwen2's does and knows the recorded words by their recorded ids, no others."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
    recorded = tokenizer_json("prompt_tokens")
    vocabulary = dict(recorded["special"]) | {"<image>": QWEN2_IMAGE, "?": 30}

    def learn(text: str, ids: Sequence[int]) -> None:
        words = [word for word, _ in splitter.pre_tokenize_str(text)]
        assert len(words) == len(ids), (words, ids)
        vocabulary.update(zip(words, ids, strict=True))

    for prompt in recorded["prompts"].values():
        vocabulary.update(zip(prompt["pieces"], prompt["ids"], strict=True))
    for case in tokenizer_json("labels").values():
        said = [value.replace("<image>", "").strip() for value in case["values_after_preprocess_multimodal"]]
        said = said[1:] if case["conversation"][0]["from"] == "gpt" else said
        texts = ["system\nYou are a helpful assistant."]
        texts += [f"{role}\n{text}" for role, text in zip(["user", "assistant"] * len(said), said, strict=False)]
        for text, own in zip(texts, _messages(case["input_ids"]), strict=True):
            learn(text, own)
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    words.pre_tokenizer = splitter
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    extra = ["<|im_start|>", "<image>"]
    return PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=extra, **special)


def _messages(ids: Sequence[int]) -> list[list[int]]:
    """The ids of each message between its marks, without pictures and the line breaks that go with them."""
    start, end = (tokenizer_json("prompt_tokens")["special"][name] for name in ("<|im_start|>", "<|im_end|>"))
    found: list[list[int]] = []
    inside, picture = False, False
    for i in ids:
        if i == start:
            found.append([])
            inside = True
        elif i == end:
            inside = False
        elif i == PICTURE:
            picture = True
        elif inside and not (picture and i == 198):
            found[-1].append(i)
            picture = False
        else:
            picture = False
    return found


class SeededEncoder(nn.Module):
    """Stands in for the tower: gives the recorded features whatever the pixels, one row per view."""

    def __init__(self, seed: int, views_per_image: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.patch, self.device, self.dtype, self.grid_hw = None, torch.device("cpu"), dtype, (SIDE, SIDE)
        self._of = seed, views_per_image

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def fuse(self) -> SeededEncoder:
        return self

    def forward(self, pixels: torch.Tensor) -> Features:
        assert len(pixels) == sum(self._of[1])
        return expert_inputs(*self._of, self.dtype)


class SeededDetector(nn.Module):
    """``SeededEncoder`` and the seeded expert, for pictures of any size, as the goldens were made."""

    def __init__(self, seed: int, views_per_image: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = _Config()
        self.encoder = SeededEncoder(seed, views_per_image, dtype)
        self.expert = Expert(ExpertConfig())
        self.expert.load_state_dict({name: value.to(dtype) for name, value in _expert_state().items()}, assign=True)


class _Config:
    views = ViewsConfig(cap=None)
    scoring = ScoringConfig()
    revision = "golden"


@cache
def _expert_state() -> dict[str, torch.Tensor]:
    return expert_state()


def released_reasoner(detector: nn.Module, hidden: int = 64, layers: int = 1, width: int = WIDTH) -> Any:
    """The released fusion before a seeded Qwen2: its ids, its prompts, a single linear layer as projector.

    ``width``: of the detector's features. Embeddings and newline are the recorded ones where ``hidden`` is recorded.
    """
    from anomaly_ov.reasoning.config import AnomalyOVConfig
    from anomaly_ov.reasoning.model import AnomalyOV

    heads = max(1, hidden // 16)
    language = {
        "model_type": "qwen2",
        "vocab_size": QWEN2_VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    }
    prompts = {adverb: prompt["ids"] for adverb, prompt in tokenizer_json("prompt_tokens")["prompts"].items()}
    config = AnomalyOVConfig(text_config=language, image_token_index=QWEN2_IMAGE, prompt_ids=prompts)
    with torch.device("meta"):
        model = AnomalyOV(config)
    inner = model.model
    inner.multi_modal_projector = nn.Linear(width, hidden, device="meta")
    model = model.to_empty(device="cpu")
    rotary = inner.language_model.rotary_emb
    inner.language_model.rotary_emb = type(rotary)(rotary.config)  # its buffers are computed, not loaded
    inner.attach(detector)  # type: ignore[arg-type]
    return model.eval().requires_grad_(False)


def with_recorded_tokens(model: Any) -> Any:
    """``released_reasoner`` with the recorded embeddings, projector and newline."""
    inner = model.model
    embed_VE, weight_ED, bias_E, newline_E = fusion_parameters(inner.image_newline.shape[0])
    inner.get_input_embeddings().weight.copy_(embed_VE)
    inner.multi_modal_projector.weight.copy_(weight_ED)
    inner.multi_modal_projector.bias.copy_(bias_E)
    inner.image_newline.copy_(newline_E)
    return model
