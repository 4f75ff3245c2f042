"""The authors' released expert checkpoints, checked key by key: loaded, as safetensors, or as a whole model folder.

What does not fit is an error that names the keys, never a warning. Not here: opening the file (``pickled``), reading
the encoder's Hugging Face checkpoint (``encoder``), the language model's weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import CheckpointMismatch, UsageError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import RELEASED_SCORING, EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.encoder import encoder_from_pretrained
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.fetching import sha256_of
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.pickled import read_tensors

MAX_CHECKPOINT_BYTES = 512 * 2**20
"""The released files hold 7.1 million numbers, 28 MB in float32; 18 times that is no expert."""
NAMED_KEYS = 3
FIT_HINT = "is this pretrained_expert_05b.pth or pretrained_expert_7b.pth, and the configuration that belongs to it?"


def load_released_expert(
    path: str | Path, config: ExpertConfig | None = None, max_bytes: int = MAX_CHECKPOINT_BYTES
) -> Expert:
    """An expert in float32 with the weights of ``path``, a released ``.pth`` or what ``convert`` made of it.

    ``config``: the shape it must have, default the released one. Raises ``WeightsError`` (no such file, too large),
    ``UnsafeCheckpoint`` (truncated, or holds anything but tensors) or ``CheckpointMismatch`` (keys, shapes, types or
    values that do not fit).
    """
    config = config or ExpertConfig()
    tensors = _read_and_check(Path(path), config, max_bytes)
    with torch.device("meta"):  # no time and no random numbers spent on weights that are replaced
        expert = Expert(config)
    expert.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, strict=True, assign=True)
    return expert


def convert(
    path: str | Path, out: str | Path, config: ExpertConfig | None = None, max_bytes: int = MAX_CHECKPOINT_BYTES
) -> Path:
    """Checks ``path`` as ``load_released_expert`` does and writes it as safetensors, values and types unchanged.

    ``out``: a file ending in ``.safetensors``, or a folder, which then gets ``expert.safetensors``. The file's metadata
    names the source, its SHA-256 and the configuration. Returns the file written.
    """
    source, config = Path(path), config or ExpertConfig()
    tensors = _read_and_check(source, config, max_bytes)
    metadata = {
        "format": "pt",
        "source": source.name,
        "source_sha256": sha256_of(source),
        "config": json.dumps(to_mapping(config), sort_keys=True),
    }
    target = Path(out)
    if target.suffix != ".safetensors":
        target = target / "expert.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, save(tensors, metadata))
    return target


def convert_model(
    path: str | Path,
    out: str | Path,
    encoder: str | Path,
    config: ExpertConfig | None = None,
    *,
    levels: Sequence[int] = EncoderConfig.levels,
    final: int = EncoderConfig.final,
) -> Path:
    """Writes the model folder ``out``: the expert in ``path`` behind ``encoder``, views cut as released, uncalibrated.

    ``encoder``: name or folder of a Hugging Face checkpoint; ``levels`` and ``final``: its hidden states that the
    expert reads, by default the released ones of SigLIP-so400m. Raises as ``load_released_expert`` and
    ``encoder_from_pretrained`` do, ``ConfigError`` when the expert's width, grid or levels are not the encoder's (it
    names both), ``UsageError`` when ``out`` is no folder's name.
    """
    source, folder = Path(path), Path(out)
    if folder.suffix == ".safetensors" or folder.is_file():
        raise UsageError(f"{out} is no folder, and a model with its encoder is one", hint="give --out a folder's name")
    expert = load_released_expert(source, config)
    tower = encoder_from_pretrained(encoder, levels, final)
    views = ViewsConfig(base_size=tower.image_size)
    settings = ModelConfig(
        folder.resolve().name, encoder=tower.config, expert=expert.config, views=views, scoring=RELEASED_SCORING
    )
    model = AnomalyModel(settings, tower)
    model.expert.load_state_dict(expert.state_dict())
    card = (
        f"# {settings.name}\n\n- Expert: `{source.name}`, SHA-256 {sha256_of(source)}\n"
        f"- Encoder: `{encoder}`, hidden states {', '.join(map(str, levels))} and {final}\n\n"
        "Converted with all values unchanged, not calibrated: `score` is the head's own. The licences of both apply."
    )
    return model.save_pretrained(folder, card=card)


def _read_and_check(path: Path, config: ExpertConfig, max_bytes: int) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = Expert(config).state_dict()
    tensors = _strip_prefix(read_tensors(path, max_bytes, hint=FIT_HINT), set(expected))
    _check_fit(path, tensors, expected)
    return {key: tensors[key].clone(memory_format=torch.contiguous_format) for key in expected}


def _strip_prefix(tensors: dict[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """Removes the one prefix (``module.``, ``model.anomaly_encoder.``) under which most expected names are found."""
    prefixes = {key[: -len(name)] for key in tensors for name in expected if key.endswith(name)}
    best = max(sorted(prefixes), key=lambda prefix: sum(prefix + name in tensors for name in expected), default="")
    # Keys outside the prefix keep their names, and so show up as unexpected, unless that would hide a clash.
    stripped = {key.removeprefix(best): value for key, value in tensors.items()}
    return stripped if len(stripped) == len(tensors) else tensors


def _check_fit(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    shared = [key for key in expected if key in tensors]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(expected[key].shape)}"
        for key in shared
        if tensors[key].shape != expected[key].shape
    ]
    # Values are looked at last and only at their proper sizes, so that a tensor with a made-up size costs nothing.
    faults = [_list("missing", missing), _list("unexpected", unexpected), _list("shapes", shapes)]
    if not any(faults):
        types = [f"{key} is {tensors[key].dtype}" for key in shared if not tensors[key].is_floating_point()]
        faults = [_list("not floating point", types)]
    if not any(faults):
        infinite = [key for key in shared if not bool(tensors[key].isfinite().all())]
        faults = [_list("not finite", infinite)]
    if any(faults):
        reasons = "; ".join(fault for fault in faults if fault)
        raise CheckpointMismatch(f"{path} does not fit the expert: {reasons}", hint=FIT_HINT)


def _list(what: str, names: list[str]) -> str:
    """``what`` with the count and the first few names; empty when there are none."""
    if not names:
        return ""
    more = ", ..." if len(names) > NAMED_KEYS else ""
    return f"{len(names)} {what}: {', '.join(name[:120] for name in names[:NAMED_KEYS])}{more}"
