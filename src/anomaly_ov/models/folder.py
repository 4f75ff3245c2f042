"""The files of a model folder read without torch: its configuration, and whether the weights are those it names.

Building the model from them is the work of ``model`` (torch) and ``engines`` (torch or ONNX graphs).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

from anomaly_ov.configuration import MAX_CONFIG_BYTES, parse
from anomaly_ov.errors import CheckpointMismatch, ConfigError, WeightsError
from anomaly_ov.models.config import ModelConfig
from anomaly_ov.models.hub import CONFIG_FILE, WEIGHTS_FILE

MAX_HEADER_BYTES = 100 * 2**20  # the format's own limit
_DERIVED = re.compile(r"[0-9a-f]{12}")


def is_derived(revision: str) -> bool:
    """Whether a revision is a digest of weights rather than a name that someone chose."""
    return _DERIVED.fullmatch(revision) is not None


def read_config(folder: Path) -> ModelConfig:
    """``config.json`` of a model folder, checked field by field. Raises ``WeightsError``, ``ConfigError``."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsError(f"no model at {folder}: {CONFIG_FILE} is missing", hint="see 'anomaly-ov models'")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes", hint="is this really a model folder?")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}", hint="copy the file again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of fields", hint="copy the file again")
    return parse(ModelConfig, values, where=str(path))


def with_own_weights(folder: Path, config: ModelConfig) -> tuple[ModelConfig, str]:
    """``config`` with its revision filled in, and the digest of the folder's weights.

    Raises ``WeightsError`` when there are none, ``CheckpointMismatch`` when ``config`` was saved with others.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise WeightsError(f"no weights at {path}", hint="run 'anomaly-ov models' to see what is installed")
    found = digest(path)
    if is_derived(config.revision) and config.revision != found:
        raise CheckpointMismatch(
            f"{path} has digest {found}, but {CONFIG_FILE} was saved with {config.revision}",
            hint="copy both files again, or save the model again",
        )
    return replace(config, revision=config.revision or found), found


def digest(path: Path) -> str:
    """Twelve hex digits of the SHA-256 of what a safetensors file holds: names, types, shapes and bytes.

    The header's free text is left out, because safetensors writes it in any order: saving twice gives one digest.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(size, MAX_HEADER_BYTES)))
            header.pop("__metadata__", None)
        except (ValueError, AttributeError):
            header = {}  # no safetensors file; whoever reads it next says so by name
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:12]
