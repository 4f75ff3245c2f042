"""The seeded parameters and inputs behind ``tests/golden/expert``, drawn again instead of stored.

Only numpy's legacy ``RandomState`` is used: its stream is frozen across numpy versions. Values are rounded to float32
before use, so that runs in float32 and float64 start from the same numbers; ``params_check.json`` and ``meta.json``
hold checksums of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly_ov.models.features import Features

GOLDEN = Path(__file__).parent / "golden" / "expert"
WIDTH, SIDE, LEVELS = 1152, 27, 4


@cache
def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def outputs(name: str) -> dict[str, np.ndarray]:
    """All arrays of one golden file, for example ``s5_f32``."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


def released_shapes() -> dict[str, tuple[int, ...]]:
    """The 32 parameter names of a released checkpoint with their shapes, in its order."""
    return {name: tuple(shape) for name, shape in read_json("state_dict_shapes.json")["shapes"].items()}


def expert_parameters(shapes: Mapping[str, Sequence[int]], seed: int = 20250212) -> dict[str, np.ndarray]:
    """One normal draw per name in alphabetical order, scaled by role; the two embeddings lie close together."""
    stream = np.random.RandomState(seed)
    drawn = {name: _scale(name, stream.standard_normal(tuple(shapes[name]))) for name in sorted(shapes)}
    drawn["negative_embedding"] = drawn["positive_embedding"] + 0.25 * drawn["negative_embedding"]
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def _scale(name: str, value: np.ndarray) -> np.ndarray:
    if name.endswith(".bias"):
        return value * 0.1
    if not name.endswith(".weight"):
        return value
    value = value / np.sqrt(value.shape[1])
    if name == "final_predictor.2.weight":
        return value * 8.0
    return value * 1.5 if name.startswith("q_former.") else value


def expert_tokens(seed: int, views_per_image: Sequence[int]) -> np.ndarray:
    """(N, 729, 1152) float32: noise, a vector per image, a weaker one per view and a Gaussian blob per view."""
    stream = np.random.RandomState(seed)
    images, views = len(views_per_image), sum(views_per_image)
    owner_N = np.repeat(np.arange(images), views_per_image)
    per_image = stream.standard_normal((images, 1, WIDTH))
    per_view = stream.standard_normal((views, 1, WIDTH))
    direction = stream.standard_normal((images, 1, WIDTH))
    centre_N2 = 13 + 5 * stream.standard_normal((views, 2))
    tokens_NPD = stream.standard_normal((views, SIDE * SIDE, WIDTH))
    rows_P, columns_P = np.divmod(np.arange(SIDE * SIDE), SIDE)
    distance_NP = (rows_P - centre_N2[:, :1]) ** 2 + (columns_P - centre_N2[:, 1:]) ** 2
    blob_NP1 = np.exp(-distance_NP / 32.0)[..., None]
    # Added one after the other: float addition does not associate, and the checksums are exact.
    tokens_NPD += per_image[owner_N]
    tokens_NPD += 0.5 * per_view
    tokens_NPD += 1.5 * blob_NP1 * direction[owner_N]
    return tokens_NPD.astype(np.float32)


def expert_inputs(seed: int, views_per_image: Sequence[int], dtype: torch.dtype = torch.float32) -> Features:
    """Final features from ``seed``, the four levels from the four seeds after it."""
    final, *levels = (torch.from_numpy(expert_tokens(seed + i, views_per_image)).to(dtype) for i in range(LEVELS + 1))
    return Features(final, tuple(levels), (SIDE, SIDE))


def expert_state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A state dict as in a released checkpoint, with the seeded values."""
    drawn = expert_parameters(released_shapes())
    return {name: torch.from_numpy(drawn[name]).to(dtype) for name in released_shapes()}
