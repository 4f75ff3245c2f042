"""LLaVA-OneVision checkpoints as others write them: what their names, configurations and tokenizers mean here.

Two layouts: Hugging Face's (model type ``llava_onevision``; names before and after transformers 4.52) and LLaVA-NeXT's
(``llava_qwen``), in which the released training code also saves, with the expert beside the language model.

Targets: the names of ``AnomalyOV`` for the language side, ``tower.`` + a name of the encoder's network, ``expert.`` + a
name of the expert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from anomaly_ov.errors import CheckpointMismatch, ConfigError, WeightsError
from anomaly_ov.models import backbones
from anomaly_ov.models.hub import CONFIG_FILE
from anomaly_ov.reasoning.checkpoint import ADAPTER_FILE, COPY_HINT, WHOLE_HINT, Renames, read_json
from anomaly_ov.reasoning.processor import CHATML, IMAGE_MARKER, ROLES

TOWER, EXPERT = "tower.", "expert."
PARTS: Renames = (
    ("model.language_model.", "language model"),
    ("lm_head.", "language model's head"),
    ("model.multi_modal_projector.", "projector"),
    ("model.image_newline", "image newline"),
    (TOWER, "vision tower"),
    (EXPERT, "expert"),
)
# The released code hangs the expert on the outer model; its comments, and older runs, on the inner one.
_EXPERT_KEYS: Renames = (("anomaly_encoder.", EXPERT), ("model.anomaly_encoder.", EXPERT))
HUGGING_FACE: Renames = (
    *_EXPERT_KEYS,
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("model.language_model.", "model.language_model."),
    ("lm_head.", "lm_head."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("model.multi_modal_projector.", "model.multi_modal_projector."),
    ("image_newline", "model.image_newline"),
    ("model.image_newline", "model.image_newline"),
    ("vision_tower.vision_model.", TOWER),
    ("vision_tower.", TOWER),
    ("model.vision_tower.vision_model.", TOWER),
    ("model.vision_tower.", TOWER),
)
LLAVA_NEXT: Renames = (
    *_EXPERT_KEYS,
    ("model.vision_tower.vision_tower.vision_model.", TOWER),
    ("model.vision_tower.vision_tower.", TOWER),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
LEFTOVER = (
    r"tower\.(head|post_layernorm)\..*",  # never read: the last feature is that of a block
    r".*\.rotary_emb\.inv_freq",  # computed from the configuration
    r"tower\..*\.position_ids",
)
MARKUP = ("<|im_start|>", "<|im_end|>")
RELEASED_TOWER = "siglip-so400m-patch14-384"
# Of any configuration of a language model: a damaged one must not exhaust the memory.
_LIMITS = {
    "vocab_size": 2**21,
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "num_hidden_layers": 2**10,
    "num_attention_heads": 2**10,
    "num_key_value_heads": 2**10,
}
NEXT_CLASS = "LlavaQwenForCausalLM"
SUPPORTED = f"one of: llava_onevision (Hugging Face), llava_qwen, qwen2 or llava with {NEXT_CLASS} (LLaVA-NeXT)"


@dataclass(frozen=True)
class Llava:
    """What a checkpoint's configuration says.

    ``fields``: arguments of ``AnomalyOVConfig``. ``vision``: transformers' configuration of the tower. ``feature``: the
    hidden state that the projector reads. ``knows_tower``: whether ``vision`` is the checkpoint's word, not that of an
    encoder. ``tower_tuned``: the tower was trained too, so another cannot replace it.
    """

    layout: str
    renames: Renames
    fields: dict[str, Any]
    vision: Any
    feature: int
    knows_tower: bool
    tower_tuned: bool

    @property
    def vocabulary(self) -> int:
        """Rows of the embeddings."""
        return int(self.fields["text_config"]["vocab_size"])

    @property
    def tied(self) -> bool:
        """Whether head and embeddings are one tensor."""
        return bool(self.fields["tie_word_embeddings"])


def read_llava(folder: Path, encoder: str | Path | None) -> Llava:
    """The configuration in ``folder``; ``encoder``: whose vision configuration completes one in LLaVA-NeXT's layout.

    Raises ``WeightsError`` (no config.json), ``CheckpointMismatch`` (adapters alone), ``ConfigError`` (another kind of
    model, fields that contradict each other or that this model cannot follow).
    """
    if not (folder / CONFIG_FILE).is_file() and (folder / ADAPTER_FILE).is_file():
        raise CheckpointMismatch(
            f"{folder} holds adapters only: missing are the language model, the projector and the image newline",
            hint=WHOLE_HINT,
        )
    path, values = folder / CONFIG_FILE, read_json(folder / CONFIG_FILE)
    kind = values.get("model_type")
    if kind == "llava_onevision":
        return _hugging_face(path, values)
    # The checkpoints of LLaVA-OneVision's authors call themselves llava and name their class.
    if kind in ("llava_qwen", "qwen2") or (kind == "llava" and values.get("architectures") == [NEXT_CLASS]):
        return _llava_next(path, values, encoder)
    raise ConfigError(f"{path}: model_type = {kind!r} is no LLaVA-OneVision model", hint=SUPPORTED)


def read_tokenizer(folder: Path, rows: int) -> tuple[Any, int]:
    """The tokenizer in ``folder`` and the id of its image marker, which is added if it has none.

    ``rows``: of the embeddings. Keeps the tokenizer's own chat template if that can write a conversation of plain
    texts, else the released one. Raises ``WeightsError`` (no tokenizer) and ``ConfigError`` (no chat markup, ids beyond
    the embeddings).
    """
    tokenizer = _tokenizer(folder)
    vocabulary = tokenizer.get_vocab()
    lacking = [mark for mark in MARKUP if mark not in vocabulary]
    if lacking:
        raise ConfigError(f"{folder}: the tokenizer has no {' and no '.join(lacking)}", hint="it needs ChatML markup")
    highest = max(index for token, index in vocabulary.items() if token != IMAGE_MARKER)
    if highest >= rows:
        raise ConfigError(
            f"{folder}: the tokenizer has ids up to {highest}, the embeddings {rows} rows",
            hint="copy the tokenizer that belongs to these weights",
        )
    if IMAGE_MARKER not in vocabulary:
        tokenizer.add_tokens([AddedToken(IMAGE_MARKER, special=True, normalized=False)], special_tokens=True)
    if not _writes_chats(tokenizer):
        tokenizer.chat_template = CHATML
    return tokenizer, int(tokenizer.convert_tokens_to_ids(IMAGE_MARKER))


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # As the file says, if there is one: AutoTokenizer would rebuild it as the class that it takes it for.
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the parsers of damaged files raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{folder} has no tokenizer that can be read: {reason}", hint=COPY_HINT) from None


def _writes_chats(tokenizer: Any) -> bool:
    """Whether the template writes plain texts, turn after turn; those for lists of contents drop or refuse them."""
    turns = [{"role": role, "content": f"said by {role}"} for role in ROLES]
    try:
        written = [tokenizer.apply_chat_template(turns[:count], tokenize=False) for count in (1, 2, 3)]
        opened = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    except Exception:  # none, or one that fails, in whatever way a template may
        return False
    whole = all(f"{turn['content']}{MARKUP[1]}" in text for turn, text in zip(turns, written, strict=True))
    growing = [*written[:2], opened, written[2]]
    return whole and all(long.startswith(short) and long != short for short, long in pairwise(growing))


def _hugging_face(path: Path, values: dict[str, Any]) -> Llava:
    from transformers import LlavaOnevisionConfig

    text = values.get("text_config")
    if not isinstance(text, dict):
        raise ConfigError(f"{path}: text_config is missing", hint="copy config.json again")
    _check_sizes(path, text)
    config = _made(path, LlavaOnevisionConfig, values)
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    if not isinstance(layer, int) or strategy != "full":
        raise ConfigError(
            f"{path}: vision_feature_layer = {layer} with strategy {strategy!r} cannot be read",
            hint="one layer and strategy 'full'",
        )
    fields = {
        "text_config": config.text_config.to_dict(),
        "vision_config": config.vision_config.to_dict(),
        "projector_hidden_act": config.projector_hidden_act,
        "multimodal_projector_bias": config.multimodal_projector_bias,
        "video_token_index": config.video_token_index,
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_views": _max_views(config.vision_aspect_ratio),
    }
    _check_rope(path, text, fields["text_config"])
    feature = layer if layer >= 0 else int(config.vision_config.num_hidden_layers) + 1 + layer
    return Llava("Hugging Face", HUGGING_FACE, fields, config.vision_config, feature, True, False)


def _llava_next(path: Path, values: dict[str, Any], encoder: str | Path | None) -> Llava:
    from transformers import Qwen2Config

    _check_sizes(path, values)
    allowed = {
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_patch_merge_type": ("spatial_unpad",),
        "mm_resampler_type": (None,),
    }
    for field, choices in allowed.items():
        if values.get(field, choices[0]) not in choices:
            raise ConfigError(f"{path}: {field} = {values[field]!r} cannot be read", hint=f"only {choices[0]!r} can")
    known = {*Qwen2Config().to_dict(), "rope_theta", "rope_scaling"} - {"model_type", "architectures"}
    text = _made(path, Qwen2Config, {name: value for name, value in values.items() if name in known})
    vision = _vision_of(encoder) if encoder is not None else _named_vision(path, values)
    if values.get("mm_hidden_size", vision.hidden_size) != vision.hidden_size:
        raise ConfigError(
            f"{path}: mm_hidden_size = {values['mm_hidden_size']}, but the vision tower's width is "
            f"{vision.hidden_size}",
            hint="give --encoder the tower that this checkpoint was trained with",
        )
    fields = {
        "text_config": text.to_dict(),
        "vision_config": vision.to_dict(),
        "tie_word_embeddings": text.tie_word_embeddings,
        "max_views": _max_views(values.get("image_aspect_ratio")),
    }
    _check_rope(path, values, fields["text_config"])
    tuned = bool(values.get("unfreeze_mm_vision_tower")) or "mm_vision_tower" in str(values.get("mm_tunable_parts"))
    # Its own code drops the last block and takes what is then the last hidden state.
    feature = int(vision.num_hidden_layers) - 1
    return Llava("LLaVA-NeXT", LLAVA_NEXT, fields, vision, feature, encoder is None, tuned)


def _named_vision(path: Path, values: Mapping[str, Any]) -> Any:
    """The released tower; the layout names its tower but not the sizes of it."""
    from transformers import SiglipVisionConfig

    named = values.get("mm_vision_tower")
    if RELEASED_TOWER not in str(named):
        raise ConfigError(
            f"{path}: mm_vision_tower = {named!r} does not say how the vision tower is built",
            hint="give --encoder the name or folder of that tower",
        )
    return SiglipVisionConfig(**{name: value for name, value in backbones.SO400M.items() if name != "model_type"})


def _vision_of(encoder: str | Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(encoder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"cannot load the encoder '{encoder}': {reason}",
            hint="give a local folder with config.json and model.safetensors, or a hub name while online",
        ) from None
    return getattr(config, "vision_config", config)


def _made(path: Path, kind: Any, values: dict[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError

    try:
        return kind.from_dict(values)
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: {kind.__name__} refuses it: {reason}", hint="copy config.json again") from None


def _check_sizes(path: Path, text: Mapping[str, Any]) -> None:
    for name, most in _LIMITS.items():
        value = text.get(name, 1)
        if not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(f"{path}: {name} = {value!r} is out of range", hint=f"whole numbers from 1 to {most}")


def _check_rope(path: Path, said: Mapping[str, Any], understood: Mapping[str, Any]) -> None:
    """A base of the rotary embeddings that is lost on the way gives a model that talks, only worse."""
    theta, rope = said.get("rope_theta"), understood.get("rope_parameters") or {}
    if theta is not None and rope.get("rope_theta") != theta:
        raise ConfigError(
            f"{path}: rope_theta = {theta}, but transformers makes {rope.get('rope_theta')} of it",
            hint="install the transformers version of constraints.txt",
        )


def _max_views(aspect: Any) -> int:
    found = re.search(r"anyres_max_(\d+)", str(aspect))
    return int(found.group(1)) if found else 9
