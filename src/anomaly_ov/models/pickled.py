"""Other people's checkpoints as plain tensors, read without running anything in them.

A pickle, opened with ``weights_only=True`` after its size is known, or safetensors. What names and shapes they must
have, the callers say.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint, WeightsError
from anomaly_ov.models import weights

HINT = "download the file again from its authors' page; a file from elsewhere should not be trusted"
WHICH = "is it the right file?"


def read_tensors(path: Path, max_bytes: int, entry: str | None = None, hint: str = WHICH) -> dict[str, Tensor]:
    """The tensors in ``path`` by name, on the CPU; those below ``entry`` of a pickle's mapping, if given.

    A ``state_dict`` entry and a ``module.`` prefix of all names are taken off. ``hint``: for a file that is another
    than was expected. Raises ``WeightsError`` (no such file, too large), ``UnsafeCheckpoint`` (truncated, or holds more
    than tensors), ``CheckpointMismatch`` (holds something else).
    """
    if not path.is_file():
        raise WeightsError(f"no checkpoint file at {path}", hint="give the path of the downloaded file")
    _require_size(path, path.stat().st_size, max_bytes, hint)
    if path.suffix == ".safetensors":
        return weights.read(path, max_bytes=max_bytes)
    content = _read_pickle(path, max_bytes, hint)
    for name in ("state_dict", entry):
        if isinstance(content, Mapping) and name in content and isinstance(content[name], Mapping):
            content = content[name]
    return _plain(path, content, hint)


def require_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ``CheckpointMismatch`` naming tensors that hold NaN or infinity."""
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointMismatch(f"{path}: {len(bad)} tensors are not finite, such as {bad[0]}", hint=HINT)


def _read_pickle(path: Path, max_bytes: int, hint: str) -> Any:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                _require_size(path, sum(part.file_size for part in archive.infolist()), max_bytes, hint)
        # mmap reads only what is copied later; the format before torch 1.6 is no zip file and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except Exception as error:  # a hostile or torn file may trip the parser anywhere
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        what = f"{path} is truncated or holds more than plain tensors: {reason}"
        raise UnsafeCheckpoint(what, hint=HINT) from None


def _require_size(path: Path, size: int, max_bytes: int, hint: str) -> None:
    if size > max_bytes:
        raise WeightsError(f"{path} holds {size} bytes, more than the {max_bytes} it may", hint=hint)


def _plain(path: Path, content: Any, hint: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise CheckpointMismatch(f"{path} holds a {found}, not a mapping of names to tensors", hint=hint)
    for key, value in content.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(key, str) or not plain or value.is_quantized:
            raise CheckpointMismatch(f"{path}: entry {key!r:.80} is not a plain tensor", hint=hint)
    shared = "module." if all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(shared): value for key, value in content.items()}
