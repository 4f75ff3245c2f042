"""The language side of a model folder: ``language/`` beside the detector's files, in Hugging Face layout.

``language/`` holds config.json, model*.safetensors (in shards), generation_config.json and the tokenizer's files. Its
config names the revision of the detector that it learnt to read. Loading is strict: a weight that is missing, left
over or of another shape is an error that names it; in the released code such a run looks like a normal one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint, WeightsError
from anomaly_ov.images.messages import some
from anomaly_ov.models.folder import digest, read_config
from anomaly_ov.models.hub import LANGUAGE_FOLDER, WEIGHTS_FILE
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.reasoning.config import AnomalyOVConfig
from anomaly_ov.reasoning.model import AnomalyOV
from anomaly_ov.reasoning.processor import Processor, stop_ids

SHARD, LARGE_SHARD = "14MB", "4GB"
COMPACT_BYTES = 256 * 2**20
"""Weights up to this size are written in shards small enough to be kept in a repository."""


@dataclass(frozen=True)
class Reasoner:
    """A model that talks: ``model`` with its detector, and the ``processor`` that writes its inputs."""

    model: AnomalyOV
    processor: Processor

    @property
    def tokenizer(self) -> Any:
        """The processor's."""
        return self.processor.tokenizer


def load_reasoner(folder: str | Path, dtype: torch.dtype = torch.float32, *, with_detector: bool = True) -> Reasoner:
    """Detector and language side of a model folder, in eval mode on the CPU; ``dtype``: the language side's.

    ``with_detector=False``: for evidence that is made elsewhere, by the same detector.

    Raises ``WeightsError`` (no language side), ``CheckpointMismatch`` (weights missing, left over, of another shape, or
    made for another detector), ``UnsafeCheckpoint`` (no complete safetensors file), and what ``AnomalyModel`` raises.
    """
    folder = Path(folder)
    language = folder / LANGUAGE_FOLDER
    if not (language / "config.json").is_file():
        raise WeightsError(f"{folder} has no language side: {language} is missing", hint="see 'anomaly-ov models'")
    ours = read_config(folder)
    with _readable(language, "configuration"):
        config = AnomalyOVConfig.from_pretrained(language, local_files_only=True)
    revision = ours.revision or digest(folder / WEIGHTS_FILE)
    if config.detector_revision not in ("", revision):
        raise CheckpointMismatch(
            f"{language} was trained with detector {config.detector_revision}, {folder} holds {revision}",
            hint="copy both from the same model, or train the language side again: anomaly-ov train stage2",
        )
    with _quiet():
        model = _language(language, config, dtype)
    if with_detector:
        model.model.attach(AnomalyModel.from_pretrained(folder))
    with _readable(language, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(language, local_files_only=True)
    return Reasoner(model.eval(), Processor(tokenizer, config, ours.expert.grid_hw))


def save_language(model: AnomalyOV, tokenizer: Any, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Writes ``folder/language`` whole or not at all, and returns it; the detector's files are not touched."""
    folder = Path(folder)
    target = folder / LANGUAGE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if model.model.detector is not None:
        model.config.detector_revision = model.model.detector.config.revision
    model.generation_config = GenerationConfig(
        eos_token_id=stop_ids(tokenizer), pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    with tempfile.TemporaryDirectory(prefix=".language-", dir=folder) as name:
        staging = Path(name) / "new"
        tensors = _cast(model.state_dict(), dtype)
        with _quiet():
            small = sum(tensor.nbytes for tensor in tensors.values()) <= COMPACT_BYTES
            model.save_pretrained(staging, state_dict=tensors, max_shard_size=SHARD if small else LARGE_SHARD)
        tokenizer.save_pretrained(staging)
        old = Path(name) / "old"
        if target.exists():
            shutil.move(target, old)
        try:
            staging.rename(target)
        except OSError:
            if old.exists():
                shutil.move(old, target)
            raise
    return target


def _cast(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Each tensor once: those of one storage, such as a tied head, still share one, so that it is written once."""
    cast = {(tensor.data_ptr(), tensor.shape): tensor.to(dtype) for tensor in tensors.values()}
    return {key: cast[tensor.data_ptr(), tensor.shape] for key, tensor in tensors.items()}


@contextmanager
def _readable(language: Path, what: str) -> Iterator[None]:
    """What transformers raises on absent or broken files, as an error of ours."""
    try:
        yield
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{language}: the {what} cannot be read: {reason}", hint="copy the folder again") from None


def _language(language: Path, config: AnomalyOVConfig, dtype: torch.dtype) -> AnomalyOV:
    from safetensors import SafetensorError

    try:
        model, info = AnomalyOV.from_pretrained(
            language,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise UnsafeCheckpoint(f"{language}: no complete safetensors file: {reason}", hint="copy it again") from None
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{language} cannot be read: {reason}", hint="copy the folder again") from None
    faults = [
        f"{len(keys)} {what}: {some(sorted(map(str, keys)))}"
        for what, keys in (
            ("missing", info["missing_keys"]),
            ("unexpected", info["unexpected_keys"]),
            ("of another shape", info["mismatched_keys"]),
        )
        if keys
    ]
    if faults:
        raise CheckpointMismatch(f"{language} does not fit: {'; '.join(faults)}", hint="copy the whole folder again")
    found: AnomalyOV = model
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bar, which would flicker by for a compact model and stand in a log for a large one."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
