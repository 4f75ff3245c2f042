"""A CLIP folder with random weights: 4 x 4 patches, 3 blocks, a vocabulary of single characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-'"


def small_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    pieces = [*CHARACTERS, *(f"{one}</w>" for one in CHARACTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[])


def small_clip(activation: str = "quick_gelu", seed: int = 0) -> Any:
    from transformers import CLIPConfig, CLIPModel

    words = len(small_tokenizer())
    shared = {"hidden_act": activation, "num_hidden_layers": 3, "num_attention_heads": 4, "projection_dim": 20}
    text = {
        "hidden_size": 24,
        "intermediate_size": 96,
        "vocab_size": words,
        "max_position_embeddings": 77,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
    }
    vision = {"hidden_size": 32, "intermediate_size": 128, "image_size": 32, "patch_size": 8}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=20))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.normal_(0, 0.3)
    return model.eval()


def save_clip(folder: Path, **options: Any) -> Path:
    small_clip(**options).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "small-clip")


@pytest.fixture(scope="session")
def other_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "other-clip", seed=1)


@pytest.fixture(scope="session")
def towers(clip_folder: Path) -> Any:
    from anomaly_ov_lab.baselines.clip_towers import load_towers

    return load_towers(clip_folder, "cpu")


@pytest.fixture
def pixels_b3ss() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield
