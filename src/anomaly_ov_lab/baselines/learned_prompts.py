"""AnomalyCLIP's learned prompts as released: layout of the checkpoint, strict conversion, and the folder it becomes.

A released file (``epoch_15.pth``, code of commit 45ed4dd) is ``{"prompt_learner": state dict}`` with these tensors,
for ViT-L/14 at 336 (width 768 of text, sentences of 77 tokens):

* ``ctx_pos``, ``ctx_neg`` (1, 1, 12, width): the learned words of "[V]... object." and "[W]... damaged object."
* ``compound_prompts_text.0`` to ``.7`` (4, width): learned words that replace the first four in blocks 2 to 9.
* ``compound_prompt_projections.*`` (weight (896, width), bias 896): never used by the released forward; left out here.
* ``token_prefix_*``, ``token_suffix_*``: token embeddings of the CLIP before and after the learned words.
* ``tokenized_prompts_*`` (1, 1, 77): the sentences' token numbers.

The folder: ``prompts.safetensors`` (float32, values unchanged) and ``anomaly_clip.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anomaly_ov.configuration import parse, to_mapping
from anomaly_ov.errors import CheckpointMismatch, ConfigError, UsageError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.models import weights
from anomaly_ov.models.fetching import sha256_of
from anomaly_ov.models.pickled import read_tensors, require_numbers
from anomaly_ov_lab.baselines.clip_towers import ClipTowers, load_towers

MAX_PROMPT_BYTES = 256 * 2**20
"""The released files hold 6.3 million numbers, 25 MB."""
PROMPTS_FILE, CONFIG_FILE = "prompts.safetensors", "anomaly_clip.json"
SAME_EMBEDDING = 1e-3  # of embeddings of size 0.01 to 0.1; half precision rounds by at most 5e-5
_STATES = ("pos", "neg")
_UNUSED = "compound_prompt_projections."
_DEEP = "compound_prompts_text."


@dataclass(frozen=True)
class AnomalyClipConfig:
    """How the prompts are used; defaults as in the released evaluation.

    ``clip``: folder of the CLIP they were learned with, absolute or relative to this file. ``image_size``: S in pixels.
    ``changed``: how many of the last blocks of the vision tower get v-v attention beside their own (released: 19 of
    24). ``layers``: blocks, counted from 1, whose tokens make maps; () = the last (released script), the paper's four
    of ViT-L are 6, 12, 18, 24. ``temperature`` > 0. ``smoothing``: sigma in pixels of the square. ``source``,
    ``source_sha256``: the converted file.
    """

    clip: str
    image_size: int = 518
    changed: int = 19
    layers: tuple[int, ...] = ()
    temperature: float = 0.07
    smoothing: float = 4.0
    source: str = ""
    source_sha256: str = ""

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 4096:
            raise ValueError("image_size must lie within 16..4096")
        if self.changed < 1 or any(layer < 1 for layer in self.layers):
            raise ValueError("changed and layers must be >= 1")
        if not (self.temperature > 0 and self.smoothing >= 0):
            raise ValueError("temperature must be > 0 and smoothing >= 0")


@dataclass(frozen=True)
class LearnedPrompts:
    """``sentences_2LD``: embedded sentences, normal and anomalous; ``ends_2``: where their last token stands.

    ``deep``: (words, D) each, for blocks 2, 3, ... of the text tower.
    """

    sentences_2LD: Tensor
    ends_2: Tensor
    deep: tuple[Tensor, ...]


def convert_prompts(
    path: str | Path,
    clip: str | Path,
    out: str | Path,
    *,
    image_size: int = 518,
    changed: int = 19,
    layers: Sequence[int] = (),
) -> Path:
    """Checks a released prompt file against the CLIP folder ``clip`` and writes the folder ``out``, which is returned.

    Raises ``CheckpointMismatch`` naming keys and shapes that do not fit or another CLIP's token embeddings, what
    ``read_tensors`` and ``load_towers`` raise, ``UsageError`` where ``out`` is a file, ``ConfigError``.
    """
    source, target = Path(path), Path(out)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{out} is a file, and learned prompts become a folder", hint="give --out a folder's name")
    tensors = read_tensors(source, MAX_PROMPT_BYTES, "prompt_learner")
    towers = load_towers(clip, "cpu", "float32")
    checked(tensors, towers, str(source))
    settings = {
        "clip": str(Path(clip).expanduser().resolve()),
        "image_size": image_size,
        "changed": changed,
        "layers": tuple(layers),
        "source": source.name,
        "source_sha256": sha256_of(source),
    }
    config = parse(AnomalyClipConfig, settings, str(target / CONFIG_FILE))
    require_fit(config, towers)
    target.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_UNUSED)}
    weights.write(target / PROMPTS_FILE, weights.to_full(kept))
    write_atomic(target / CONFIG_FILE, (json.dumps(to_mapping(config), indent=1) + "\n").encode())
    return target


def read_config(folder: Path) -> AnomalyClipConfig:
    """The settings in ``folder``; its ``clip`` made absolute. Raises ``WeightsError``, ``ConfigError``."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        hint = "make one with 'anomaly-ov baselines convert-prompts'"
        raise WeightsError(f"{folder} is no folder of learned prompts: it has no {CONFIG_FILE}", hint=hint)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path} is no JSON", hint="convert the prompts again") from None
    if not isinstance(values, dict) or not isinstance(values.get("clip"), str):
        raise ConfigError(f"{path} does not name its CLIP folder", hint="convert the prompts again")
    return parse(AnomalyClipConfig, values | {"clip": str(folder / values["clip"])}, str(path))


def read_prompts(folder: Path, towers: ClipTowers) -> LearnedPrompts:
    """The prompts in ``folder``, checked against the CLIP they are to be used with."""
    path = folder / PROMPTS_FILE
    return checked(weights.read(path, max_bytes=MAX_PROMPT_BYTES), towers, str(path), whole=False)


def checked(tensors: Mapping[str, Tensor], towers: ClipTowers, where: str, *, whole: bool = True) -> LearnedPrompts:
    """The prompts in ``tensors``; ``whole``: with the projections never used. Raises ``CheckpointMismatch``."""
    config = towers.text.config
    expected = expected_shapes(tensors, config.hidden_size, config.max_position_embeddings, whole)
    weights.require_same(expected, weights.shapes_of(tensors), where)
    require_numbers(Path(where), tensors)
    tokens_2L = torch.cat([tensors[f"tokenized_prompts_{state}"][0] for state in _STATES]).long()
    if not 0 <= int(tokens_2L.min()) <= int(tokens_2L.max()) < config.vocab_size:
        raise CheckpointMismatch(f"{where}: tokenized_prompts_* name tokens that the CLIP lacks", hint=_OTHER_CLIP)
    sentences_2LD = torch.stack([_sentence(tensors, state) for state in _STATES]).to(towers.device)
    _require_same_embeddings(sentences_2LD, tokens_2L.to(towers.device), tensors["ctx_pos"].shape[2], towers, where)
    depth = sum(name.startswith(_DEEP) for name in tensors)
    deep = tuple(tensors[f"{_DEEP}{index}"].float().to(towers.device) for index in range(depth))
    return LearnedPrompts(sentences_2LD, tokens_2L.argmax(dim=1).to(towers.device), deep)


def expected_shapes(found: Mapping[str, Tensor], width: int, length: int, whole: bool = True) -> weights.Shapes:
    """Names and shapes that a checkpoint must have, given its own number of learned words, or the released 12 and 4."""
    words = _size(found.get("ctx_pos"), 2, 12)
    deep_words = _size(found.get(f"{_DEEP}0"), 0, 4)
    unused = _size(found.get(f"{_UNUSED}0.bias"), 0, 896)
    depth = sum(name.startswith(_DEEP) for name in found)
    shapes: weights.Shapes = {}
    for state in _STATES:
        shapes |= {
            f"ctx_{state}": (1, 1, words, width),
            f"token_prefix_{state}": (1, 1, 1, width),
            f"token_suffix_{state}": (1, 1, length - 1 - words, width),
            f"tokenized_prompts_{state}": (1, 1, length),
        }
    for index in range(depth):
        shapes[f"{_DEEP}{index}"] = (deep_words, width)
        if whole:
            shapes[f"{_UNUSED}{index}.weight"] = (unused, width)
            shapes[f"{_UNUSED}{index}.bias"] = (unused,)
    return shapes


def require_fit(config: AnomalyClipConfig, towers: ClipTowers) -> None:
    """Raises ``ConfigError`` where the settings name blocks that the vision tower lacks, or cut patches."""
    layers = towers.layers
    if config.image_size % towers.patch:
        raise ConfigError(
            f"image_size = {config.image_size} is no multiple of the patch of {towers.patch}",
            hint="the released 518 goes with patches of 14",
        )
    if config.changed > layers or any(layer > layers for layer in config.layers):
        raise ConfigError(
            f"changed = {config.changed}, layers = {list(config.layers)} do not fit a vision tower of {layers} blocks",
            hint="the released prompts belong to ViT-L/14 at 336 with 24 blocks",
        )


_OTHER_CLIP = (
    "use the CLIP that the prompts were learned with; the released ones belong to openai/clip-vit-large-patch14-336"
)


def _size(tensor: Tensor | None, axis: int, released: int) -> int:
    return int(tensor.shape[axis]) if tensor is not None and tensor.ndim > axis else released


def _sentence(tensors: Mapping[str, Tensor], state: str) -> Tensor:
    parts = [tensors[f"{name}_{state}"] for name in ("token_prefix", "ctx", "token_suffix")]
    return torch.cat([part[0, 0].float() for part in parts])


def _require_same_embeddings(
    sentences_2LD: Tensor, tokens_2L: Tensor, words: int, towers: ClipTowers, where: str
) -> None:
    """The checkpoint repeats token embeddings of its CLIP, so that another CLIP of the same width is found out."""
    own_2LD = towers.text.embeddings.token_embedding.weight.detach()[tokens_2L].float()
    distances_2L = (own_2LD - sentences_2LD).abs().amax(dim=-1)
    worst = max(float(distances_2L[:, :1].max()), float(distances_2L[:, 1 + words :].max()))
    if not worst <= SAME_EMBEDDING:
        raise CheckpointMismatch(
            f"{where} was learned with another CLIP than {towers.folder}: token embeddings differ by {worst:.2g}",
            hint=_OTHER_CLIP,
        )
