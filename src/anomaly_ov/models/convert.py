"""The authors' released expert checkpoints, checked key by key: loaded, as safetensors, or as a whole model folder.

A checkpoint is data: pickles are opened with ``weights_only=True`` after their size is known, nothing in them is run,
and what does not fit is an error that names the keys, never a warning. Not here: reading the encoder's Hugging Face
checkpoint (``encoder``), the language model's weights.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint, UsageError, WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.config import EncoderConfig, ExpertConfig, ModelConfig
from anomaly_ov.models.encoder import encoder_from_pretrained
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.model import AnomalyModel

MAX_CHECKPOINT_BYTES = 512 * 2**20
"""The released files hold 7.1 million numbers, 28 MB in float32; 18 times that is no expert."""
NAMED_KEYS = 3
SAFE_HINT = "download the file again from the authors' page; a file from elsewhere should not be trusted"
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
        "source_sha256": _sha256(source),
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
    settings = ModelConfig(folder.resolve().name, encoder=tower.config, expert=expert.config, views=views)
    model = AnomalyModel(settings, tower)
    model.expert.load_state_dict(expert.state_dict())
    card = (
        f"# {settings.name}\n\n- Expert: `{source.name}`, SHA-256 {_sha256(source)}\n"
        f"- Encoder: `{encoder}`, hidden states {', '.join(map(str, levels))} and {final}\n\n"
        "Converted with all values unchanged, not calibrated: `score` is the head's own. The licences of both apply."
    )
    return model.save_pretrained(folder, card=card)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_and_check(path: Path, config: ExpertConfig, max_bytes: int) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"no checkpoint file at {path}", hint="give the path of the downloaded .pth file")
    if path.stat().st_size > max_bytes:
        raise _too_large(path, path.stat().st_size, max_bytes)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path, max_bytes)
    with torch.device("meta"):
        expected = Expert(config).state_dict()
    tensors = _strip_prefix(_tensors(path, content), set(expected))
    _check_fit(path, tensors, expected)
    return {key: tensors[key].clone(memory_format=torch.contiguous_format) for key in expected}


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UnsafeCheckpoint(f"{path} is not a whole safetensors file: {_one_line(error)}", hint=SAFE_HINT) from None


def _read_pickle(path: Path, max_bytes: int) -> Any:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        if zipped:
            _check_archive(path, max_bytes)
        # mmap reads only what is copied later; the format before torch 1.6 is no zip file and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except Exception as error:  # a hostile or torn file may trip the parser anywhere
        reason = _one_line(error)
        raise UnsafeCheckpoint(
            f"{path} is truncated or holds more than plain tensors: {reason}", hint=SAFE_HINT
        ) from None


def _check_archive(path: Path, max_bytes: int) -> None:
    """Refuses archives that unpack to more than they weigh; torch itself stores entries uncompressed."""
    with zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > max_bytes:
        raise _too_large(path, total, max_bytes)


def _too_large(path: Path, size: int, max_bytes: int) -> WeightsError:
    return WeightsError(
        f"{path} holds {size} bytes, more than the {max_bytes} an expert may take",
        hint="this is no expert checkpoint; the released ones are about 30 MB",
    )


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """The mapping of plain CPU tensors in ``content``, which may wrap it in a ``state_dict`` entry."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise CheckpointMismatch(f"{path} holds a {found}, not a mapping of names to tensors", hint=FIT_HINT)
    for key, value in content.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(key, str) or not plain or value.is_quantized:
            raise CheckpointMismatch(f"{path}: entry {key!r:.80} is not a plain tensor", hint=FIT_HINT)
    return dict(content)


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


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
