"""transformers networks as encoders see them: built from a mapping, cut after the last block that is needed.

One ``Backbone`` = the network, its list of blocks (transformer blocks, or stages of a convolutional network) and the
sizes the encoder needs. Known: every plain vision transformer whose config has ``num_hidden_layers``, ``hidden_size``
and ``patch_size`` (SigLIP, SigLIP 2, CLIP, DINOv2 with and without registers, DINOv3, ViT, RADIO, ...) and the
convolutional families of ``_STEM_WIDTH`` (residual networks and EfficientNet-Lite are our own, built without
transformers). Not covered: hierarchical transformers (Swin) and text towers.

Nothing is downloaded here except by ``pretrained``, and code from a checkpoint is never run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anomaly_ov.errors import CheckpointMismatch, ConfigError, WeightsError
from anomaly_ov.models import efficientnet, resnet

# The released vision tower: SigLIP so400m, patch 14, 384 pixels (docs/reference-implementation.md, section 1).
SO400M: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}

# Convolutional families: which config field holds the width of hidden state 0 (what enters the first stage).
_STEM_WIDTH = {
    "resnet": "embedding_size",
    "regnet": "embedding_size",
    "convnext": "hidden_sizes",
    "convnextv2": "hidden_sizes",
    "dinov3_convnext": "num_channels",
    efficientnet.EfficientNetLiteConfig.model_type: "embedding_size",
}

# Mean and std of a checkpoint that comes without a preprocessor file: CLIP's own, SigLIP's 0.5, else ImageNet's.
CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# Fields that say nothing about the network's shape, or are derived from others.
_IGNORED = {
    "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "id2label", "label2id",
    "out_features", "out_indices", "_out_features", "_out_indices", "stage_names", "_attn_implementation",
    "_commit_hash", "num_labels",
}  # fmt: skip
_MAX_SIZE = 65536  # of any integer in a backbone mapping: a damaged config must not exhaust the memory


@dataclass(frozen=True)
class Backbone:
    """``widths``: channels of hidden states 0..len(blocks); ``patch``: side in pixels, None for convolutional ones."""

    network: nn.Module
    blocks: nn.ModuleList
    widths: tuple[int, ...]
    patch: int | None
    model_type: str
    own_size: int | None


class PassThrough(nn.Module):
    """Stands where a norm, pooler or head used to be; returns its first argument."""

    def forward(self, first: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``first`` unchanged."""
        return first


def build(backbone: Mapping[str, Any], depth: int) -> Backbone:
    """The network of ``backbone`` (empty = ``SO400M``) with random weights, cut after ``depth`` blocks.

    Raises ``ConfigError`` for an unknown ``model_type`` or field, an impossible size, or too few blocks.
    """
    mapping = dict(backbone or SO400M)
    model_type = mapping.pop("model_type", None)
    for name, value in mapping.items():
        _check_size(name, value)
    # Our own, so that the embedded model starts without transformers.
    if model_type == resnet.ResNetConfig.model_type:
        return cut(resnet.ResNet(resnet.config_from(mapping)), depth)
    if model_type == efficientnet.EfficientNetLiteConfig.model_type:
        return cut(efficientnet.EfficientNetLite(efficientnet.config_from(mapping)), depth)
    config = _config_of(model_type, mapping)
    try:
        network = _class_for(config)(config)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _refused(type(config).__name__, error) from None
    return cut(network, depth)


def cut(network: nn.Module, depth: int) -> Backbone:
    """``network`` reduced, in place, to what runs up to and including block ``depth``."""
    network = getattr(network, "vision_model", network)  # older transformers wrap the tower once more
    config: Any = network.config
    widths = _widths(config)
    total = len(widths) - 1
    if depth > total:
        raise ConfigError(
            f"encoder: hidden state {depth} asked for, but {config.model_type} has {total} blocks",
            hint="lower levels or final",
        )
    path, blocks = _find_blocks(network, total, config.model_type)
    _drop_tail(network, path)
    # The input of the first block is hidden state 0, so one block stays even when nothing deeper is asked for.
    del blocks[max(depth, 1) :]
    patch = getattr(config, "patch_size", None) if config.model_type not in _STEM_WIDTH else None
    own_size = side_of(getattr(config, "image_size", None))
    return Backbone(network, blocks, widths, side_of(patch), config.model_type, own_size)


def minimal_mapping(config: Any) -> dict[str, Any]:
    """The part of a transformers config that differs from its class's defaults, ``model_type`` first."""
    default = type(config)().to_dict()
    mine = config.to_dict()
    differing = {k: v for k, v in mine.items() if k in default and v != default[k] and k not in _IGNORED}
    mapping: dict[str, Any] = json.loads(json.dumps({"model_type": config.model_type} | differing))
    return mapping


def pretrained(name_or_folder: str | Path) -> tuple[nn.Module, Any]:
    """The vision network of a Hugging Face checkpoint (folder or hub name) with its weights, and its config.

    Of a picture-text checkpoint the vision tower is taken. safetensors only; never runs the checkpoint's own code;
    ``HF_HUB_OFFLINE=1`` keeps it off the network. Raises ``WeightsError`` when it cannot be had and
    ``CheckpointMismatch`` when weights of the network are missing in it.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False)
        config = getattr(config, "vision_config", config)
        network, report = _class_for(config).from_pretrained(
            name_or_folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"cannot load the encoder '{name_or_folder}': {reason}",
            hint="give a local folder with config.json and model.safetensors, or a hub name while online",
        ) from None
    lacking = sorted(report["missing_keys"]) + [str(name) for name, *_ in sorted(report.get("mismatched_keys", ()))]
    if lacking:
        raise CheckpointMismatch(
            f"'{name_or_folder}' lacks {len(lacking)} weights of {type(network).__name__}, such as {lacking[0]}",
            hint="choose a complete checkpoint of this vision network",
        )
    return network, config


def preprocessing(name_or_folder: str | Path, config: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel that a checkpoint was trained with, from its preprocessor file; else the family's."""
    from transformers.utils.hub import cached_file

    if hasattr(config, "norm_mean"):  # RADIO normalises inside the network
        return _PLAIN
    found = cached_file(name_or_folder, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    values = json.loads(Path(found).read_text(encoding="utf-8")) if found else {}
    if not values.get("do_normalize", True):
        return _PLAIN
    families = {"siglip": ((0.5,) * 3, (0.5,) * 3), "clip": CLIP_STATISTICS}
    mean, std = families.get(config.model_type.split("_")[0].rstrip("2"), IMAGENET)
    return tuple(values.get("image_mean", mean)), tuple(values.get("image_std", std))


def _config_of(model_type: Any, mapping: dict[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f"encoder.backbone: model_type = {model_type!r} is no transformers architecture",
            hint="for example siglip_vision_model, dinov2, vit, resnet, convnext",
        )
    kind = CONFIG_MAPPING[model_type]
    default = kind()
    known = set(default.to_dict()) | set(default.attribute_map)
    for name in mapping:
        if name not in known:
            raise ConfigError(f"encoder.backbone: {kind.__name__} has no field '{name}'", hint="correct that field")
    try:
        return kind(**mapping)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise _refused(kind.__name__, error) from None


def _refused(kind: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    return ConfigError(f"encoder.backbone: {kind} refuses these fields: {reason}", hint="correct them")


def _check_size(name: str, value: Any) -> None:
    for number in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(number, int) and not -1 <= number <= _MAX_SIZE:
            raise ConfigError(
                f"encoder.backbone: '{name}' = {value!r} is out of range", hint=f"integers up to {_MAX_SIZE}"
            )


def _class_for(config: Any) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        return MODEL_MAPPING[type(config)]
    except KeyError:
        raise ConfigError(
            f"encoder.backbone: transformers has no network for model_type '{config.model_type}'",
            hint="name a vision network such as siglip_vision_model",
        ) from None


def _widths(config: Any) -> tuple[int, ...]:
    model_type = config.model_type
    if model_type in _STEM_WIDTH:
        stem = getattr(config, _STEM_WIDTH[model_type])
        return (stem[0] if isinstance(stem, (list, tuple)) else stem, *config.hidden_sizes)
    layers, width, patch = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size", "patch_size"))
    if not layers or not width or not patch or hasattr(config, "depths"):  # several depths: a hierarchy of grids
        raise ConfigError(
            f"encoder.backbone: '{model_type}' is neither a plain vision transformer nor a known convolutional network",
            hint=f"convolutional networks known: {', '.join(_STEM_WIDTH)}",
        )
    return (int(width),) * (int(layers) + 1)


def _find_blocks(network: nn.Module, count: int, model_type: str) -> tuple[str, nn.ModuleList]:
    """Dotted path and list of the blocks: the outermost ``ModuleList`` of exactly ``count`` entries."""
    lists = [(path, m) for path, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise ConfigError(f"encoder.backbone: found no list of {count} blocks in '{model_type}'", hint="unsupported")
    return min(lists, key=lambda found: found[0].count("."))


def _drop_tail(network: nn.Module, path: str) -> None:
    """Replaces whatever was registered after the blocks, at every level of ``path``: norms, poolers, heads."""
    parent = network
    for name in path.split("."):
        children = list(parent._modules)
        for later in children[children.index(name) + 1 :]:
            if parent._modules[later] is not None:
                parent._modules[later] = PassThrough()
        parent = parent.get_submodule(name)


def side_of(value: Any) -> int | None:
    """A size in pixels, given as one number or as (height, width); None stays None."""
    return int(value[0]) if isinstance(value, (list, tuple)) else (None if value is None else int(value))
