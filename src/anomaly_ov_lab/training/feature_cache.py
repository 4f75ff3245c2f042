"""Features of a frozen encoder on disk: computed once, memory-mapped ever after.

One safetensors file per picture, ``<folder>/<feature key>/<first two of sha>/<sha>.safetensors``, float16 (float32 for
a tensor that float16 cannot hold). The feature key hashes the encoder's weights and configuration, what runs it and how
pictures are cut, the picture's key its bytes, so that nothing stale can be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import WeightsError
from anomaly_ov.files import write_atomic
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.features import Features

Encode = Callable[[npt.NDArray[np.uint8]], Features]
"""Features of views (N, S, S, 3)."""

FORMAT = 1
"""To be raised whenever the same weights and pictures would give other features."""


def feature_key(encoder: Encoder, views: ViewsConfig, engine: str) -> str:
    """Hash of all that features of a picture depend on, 16 hex digits. ``engine``: name of what runs the encoder.

    The configuration counts too: the same weights give other features at other levels, grids or normalisations. So does
    the engine: what two of them compute agrees to four digits only, and a run must go on as it began.
    """
    parts = [FORMAT, to_mapping(encoder.config), model_key(encoder, views), engine]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def model_key(encoder: nn.Module, views: ViewsConfig) -> str:
    """Hash of a network's weights and of how pictures are cut, 16 hex digits; see ``feature_key`` for the cache's."""
    digest = hashlib.sha256(json.dumps(to_mapping(views), sort_keys=True).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class FeatureCache:
    """Features by picture hash. Entries are written atomically; a damaged one is computed again."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder / key

    def path(self, sha256: str) -> Path:
        """Where the features of one picture lie."""
        return self._folder / sha256[:2] / f"{sha256}.safetensors"

    def get(self, sha256: str) -> Features | None:
        """Memory-mapped features as they were stored, None if absent or damaged."""
        path = self.path(sha256)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                grid = json.loads(file.metadata()["grid_hw"])
                levels = sorted(name for name in file.keys() if name.startswith("level"))  # noqa: SIM118
                return Features(
                    file.get_tensor("final"), tuple(file.get_tensor(name) for name in levels), (grid[0], grid[1])
                )
        except (SafetensorError, KeyError, TypeError, ValueError):
            return None

    def get_or_encode(self, sha256: str, encode: Encode, pixels_NHW3: npt.NDArray[np.uint8]) -> Features:
        """The cached features of a picture, its views encoded and stored first if need be."""
        found = self.get(sha256)
        if found is not None:
            return found
        features = encode(pixels_NHW3)
        tensors = {"final": _half(features.final_NPD)}
        tensors |= {f"level{k:02d}": _half(level) for k, level in enumerate(features.levels_NPD)}
        path = self.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, metadata={"grid_hw": json.dumps(list(features.grid_hw))}))
        cached = self.get(sha256)
        if cached is None:
            raise WeightsError(f"features written to {path} cannot be read back", hint="check the disk")
        return cached


def _half(tensor: Tensor) -> Tensor:
    """A copy of its own (the final feature may be one of the levels, and safetensors stores no tensor twice)."""
    half = tensor.detach().to(torch.float16, copy=True)
    stored = (
        half if bool(torch.isfinite(half).all()) else tensor.detach().to(torch.float32, copy=True)
    )  # some channels pass 65504
    return stored.cpu().contiguous()
