"""open_clip's ViT weights as a CLIP folder that transformers reads: every key and shape checked, values unchanged.

Layout of open_clip's state dict (model configuration ``ViT-B-16-plus-240``): ``visual.*``, ``transformer.*``,
``token_embedding.weight``, ``positional_embedding``, ``ln_final.*``, ``text_projection``, ``logit_scale``. What differs
from transformers': one ``in_proj_weight`` (3 width, width) holds query, key and value, in this order; both projections
are stored transposed; that model's activation is the exact GELU, not the quick one of OpenAI's CLIPs.

The weights hold no tokenizer: it comes from any CLIP folder, since all these models share one vocabulary of 49,408.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from anomaly_ov.errors import CheckpointMismatch, UsageError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.models import weights
from anomaly_ov.models.backbones import CLIP_STATISTICS
from anomaly_ov.models.fetching import sha256_of
from anomaly_ov.models.pickled import read_tensors, require_numbers

MAX_CLIP_BYTES = 16 * 2**30
HEAD_WIDTH = 64
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


@dataclass(frozen=True)
class Architecture:
    """Sizes of both towers, as in open_clip's model configurations; heads are ``head_width`` wide."""

    name: str
    joint: int
    image_size: int
    patch: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    activation: str = "gelu"
    vocabulary: int = 49408
    sentence: int = 77
    head_width: int = HEAD_WIDTH

    def __post_init__(self) -> None:
        if self.image_size % self.patch or self.vision_width % self.head_width or self.text_width % self.head_width:
            raise ValueError("image_size must be a multiple of patch, both widths of head_width")
        if self.activation not in ("gelu", "quick_gelu"):
            raise ValueError("activation must be gelu or quick_gelu")


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("ViT-B-16-plus-240", 640, 240, 16, 896, 12, 640, 12),
        Architecture("ViT-B-16", 512, 224, 16, 768, 12, 512, 12),
        Architecture("ViT-B-32", 512, 224, 32, 768, 12, 512, 12),
        Architecture("ViT-L-14", 768, 224, 14, 1024, 24, 768, 12),
        Architecture("ViT-L-14-336", 768, 336, 14, 1024, 24, 768, 12),
    )
}


def convert_open_clip(
    path: str | Path, out: str | Path, tokenizer: str | Path, architecture: Architecture | str = "ViT-B-16-plus-240"
) -> Path:
    """Writes the CLIP folder ``out`` from open_clip's weights in ``path`` (.pt or .safetensors); returns it.

    ``tokenizer``: a folder with a CLIP's tokenizer files. Raises ``CheckpointMismatch`` naming missing, unexpected and
    misshapen tensors, or for a tokenizer of another vocabulary; ``UsageError`` for an unknown architecture and where
    ``out`` is a file; what ``read_tensors`` raises.
    """
    source, target, sizes = Path(path), Path(out), _architecture(architecture)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{out} is a file, and a CLIP is a folder", hint="give --out a folder's name")
    texts = _tokenizer_files(Path(tokenizer).expanduser(), sizes.vocabulary)
    tensors = renamed(read_tensors(source, MAX_CLIP_BYTES), sizes, str(source))
    require_numbers(source, tensors)
    target.mkdir(parents=True, exist_ok=True)
    weights.write(target / "model.safetensors", tensors, {"source": source.name, "source_sha256": sha256_of(source)})
    files = {"preprocessor_config.json": preprocessor(sizes), "config.json": clip_config(sizes)}
    for name, values in files.items():
        texts[name] = (json.dumps(values, indent=1) + "\n").encode()
    for name, data in texts.items():
        write_atomic(target / name, data)
    return target


def renamed(tensors: Mapping[str, Tensor], sizes: Architecture, where: str) -> dict[str, Tensor]:
    """open_clip's tensors under transformers' names, float32. Raises ``CheckpointMismatch`` for any other layout."""
    weights.require_same(expected_shapes(sizes), weights.shapes_of(tensors), where)
    out = {
        "logit_scale": tensors["logit_scale"],
        "text_projection.weight": tensors["text_projection"].T,
        "visual_projection.weight": tensors["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": tensors["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": tensors["positional_embedding"],
        "vision_model.embeddings.class_embedding": tensors["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": tensors["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": tensors["visual.positional_embedding"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for theirs, ours in norms.items():
        out |= {f"{ours}.{part}": tensors[f"{theirs}.{part}"] for part in ("weight", "bias")}
    for theirs, ours, layers in (
        ("transformer.resblocks", "text_model.encoder.layers", sizes.text_layers),
        ("visual.transformer.resblocks", "vision_model.encoder.layers", sizes.vision_layers),
    ):
        for index in range(layers):
            out |= _block(tensors, f"{theirs}.{index}", f"{ours}.{index}")
    return weights.to_full({name: tensor.contiguous() for name, tensor in out.items()})


def expected_shapes(sizes: Architecture) -> weights.Shapes:
    """Every name and shape of open_clip's state dict for this architecture."""
    patches, width, text = (sizes.image_size // sizes.patch) ** 2, sizes.vision_width, sizes.text_width
    shapes: weights.Shapes = {
        "logit_scale": (),
        "positional_embedding": (sizes.sentence, text),
        "text_projection": (text, sizes.joint),
        "token_embedding.weight": (sizes.vocabulary, text),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (patches + 1, width),
        "visual.proj": (width, sizes.joint),
        "visual.conv1.weight": (width, 3, sizes.patch, sizes.patch),
    }
    for norm, size in (("ln_final", text), ("visual.ln_pre", width), ("visual.ln_post", width)):
        shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    for prefix, size, layers in (
        ("transformer.resblocks", text, sizes.text_layers),
        ("visual.transformer.resblocks", width, sizes.vision_layers),
    ):
        for index in range(layers):
            shapes |= {f"{prefix}.{index}.{name}": shape for name, shape in _block_shapes(size).items()}
    return shapes


def clip_config(sizes: Architecture) -> dict[str, Any]:
    """``config.json`` for transformers' CLIPModel."""
    shared = {"projection_dim": sizes.joint, "hidden_act": sizes.activation, "layer_norm_eps": 1e-5}
    text = {
        "hidden_size": sizes.text_width,
        "intermediate_size": 4 * sizes.text_width,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.text_width // sizes.head_width,
        "vocab_size": sizes.vocabulary,
        "max_position_embeddings": sizes.sentence,
        "bos_token_id": sizes.vocabulary - 2,
        "eos_token_id": sizes.vocabulary - 1,
        "pad_token_id": sizes.vocabulary - 1,
    }
    vision = {
        "hidden_size": sizes.vision_width,
        "intermediate_size": 4 * sizes.vision_width,
        "num_hidden_layers": sizes.vision_layers,
        "num_attention_heads": sizes.vision_width // sizes.head_width,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": sizes.joint,
        "text_config": text | shared,
        "vision_config": vision | shared,
    }


def preprocessor(sizes: Architecture) -> dict[str, Any]:
    """``preprocessor_config.json``: bicubic short side, centre crop, CLIP's mean and std, as open_clip's."""
    mean, std = CLIP_STATISTICS
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": sizes.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": sizes.image_size, "width": sizes.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_convert_rgb": True,
    }


def _architecture(wanted: Architecture | str) -> Architecture:
    if isinstance(wanted, Architecture):
        return wanted
    if wanted not in ARCHITECTURES:
        raise UsageError(f"unknown architecture '{wanted}'", hint=f"one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[wanted]


_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _block(tensors: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        out |= {f"{ours}.{new}.{part}": tensors[f"{theirs}.{old}.{part}"] for old, new in _NAMES.items()}
        thirds = tensors[f"{theirs}.attn.in_proj_{part}"].chunk(3)
        out |= {f"{ours}.self_attn.{name}_proj.{part}": third for name, third in zip("qkv", thirds, strict=True)}
    return out


def _block_shapes(width: int) -> weights.Shapes:
    shapes: weights.Shapes = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
    }
    narrow = ("attn.out_proj.bias", "mlp.c_proj.bias", "ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")
    return shapes | dict.fromkeys(narrow, (width,))


def _tokenizer_files(folder: Path, vocabulary: int) -> dict[str, bytes]:
    """The tokenizer's files in ``folder`` by name, once it was loaded and counted."""
    from transformers import CLIPTokenizer

    found = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not found:
        raise WeightsError(
            f"no tokenizer in {folder}", hint="give a CLIP folder with tokenizer.json, or vocab.json and merges.txt"
        )
    try:
        count = len(CLIPTokenizer.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"cannot load the tokenizer in {folder}: {reason}", hint="copy its files again") from None
    if count != vocabulary:
        raise CheckpointMismatch(
            f"the tokenizer in {folder} knows {count} tokens, the weights {vocabulary}", hint="use a CLIP's tokenizer"
        )
    return {path.name: path.read_bytes() for path in found}
