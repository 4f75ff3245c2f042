"""The expert once more, in numpy and float64, patch by patch and formula by formula; slow, with every switch.

Written from docs/reference-implementation.md, sections 3 to 5, not from our modules: no rearrangement, no logarithms.
The tests compare with it where the golden outputs do not reach: other shapes, ablations, covariance matching, two
passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import erf

from anomaly_ov.models.config import ExpertConfig

Parameters = Mapping[str, np.ndarray]


def run(
    parameters: Parameters,
    config: ExpertConfig,
    final: np.ndarray,
    levels: Sequence[np.ndarray],
    views_per_image: Sequence[int],
) -> dict[str, Any]:
    """``map`` (N, P), ``local`` (N, 4, D), ``global`` (B, D), ``score`` (B,)."""
    maps, local, pooled = [], [], []
    owner = np.repeat(np.arange(len(views_per_image)), views_per_image)
    first = np.cumsum([0, *views_per_image[:-1]])
    for view in range(len(final)):
        class_vector = _look_back(parameters, final[first[owner[view]]]) if config.look_back else None
        tokens = [level[view] for level in levels]
        view_map = _map(parameters, config, tokens, class_vector)
        if config.passes == 2:
            second = _map(parameters, config, [x * (1 + view_map[:, None]) for x in tokens], class_vector)
            view_map = (view_map + second) / 2
        view_local, view_pooled = _select(parameters, config, final[view], view_map)
        maps.append(view_map)
        local.append(view_local)
        pooled.append(view_pooled)
    scores, global_tokens = [], []
    for image in range(len(views_per_image)):
        views = np.flatnonzero(owner == image)
        weights = np.concatenate([pooled[v] * maps[v].mean() for v in views])
        token = weights @ np.concatenate([local[v] for v in views]) / weights.sum()
        hidden = _gelu(_linear(parameters, "final_predictor.0", token))
        scores.append(1 / (1 + np.exp(-_linear(parameters, "final_predictor.2", hidden)[0])))
        global_tokens.append(token)
    return {
        "map": np.stack(maps),
        "local": np.stack(local),
        "global": np.stack(global_tokens),
        "score": np.array(scores),
    }


def _linear(parameters: Parameters, name: str, x: np.ndarray) -> np.ndarray:
    return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _look_back(parameters: Parameters, base: np.ndarray) -> np.ndarray:
    pooled = _linear(parameters, "pooling_layer.0", base.T)[:, 0]
    return _linear(parameters, "class_predictor.2", _gelu(_linear(parameters, "class_predictor.0", pooled)))


def _map(
    parameters: Parameters, config: ExpertConfig, tokens: Sequence[np.ndarray], class_vector: np.ndarray | None
) -> np.ndarray:
    """Mean over levels of the probability of the second of two prompts, per patch."""
    level_maps = []
    for level, x in enumerate(tokens):
        unit_tokens = _unit(_linear(parameters, f"siglip_adaptors.{level}", x))
        positive, negative = (_unit(side) for side in _prompts(parameters, config, level, class_vector))
        if config.match == "cosine":
            logits = [100 * unit_tokens @ positive, 100 * unit_tokens @ negative]
        else:
            middle = (positive + negative) / 2
            logits = [100 * _correlation(unit_tokens, side - middle) for side in (positive, negative)]
        exponentials = np.exp(np.stack(logits) - np.max(logits, axis=0))
        level_maps.append(exponentials[1] / exponentials.sum(0))
    return np.mean(level_maps, axis=0)


def _prompts(
    parameters: Parameters, config: ExpertConfig, level: int, class_vector: np.ndarray | None
) -> list[np.ndarray]:
    name = f"prompt_adaptors.{level}"
    if not config.embeddings:
        both = _linear(parameters, name, class_vector)
        return [both[: config.hidden], both[config.hidden :]]
    class_part = [] if class_vector is None else [class_vector]
    sides = (parameters["positive_embedding"][0], parameters["negative_embedding"][0])
    return [_linear(parameters, name, np.concatenate([side, *class_part])) for side in sides]


def _correlation(tokens: np.ndarray, side: np.ndarray) -> np.ndarray:
    deviations = tokens - tokens.mean(0)
    return np.array([np.corrcoef(deviation, side)[0, 1] for deviation in deviations])


def _select(
    parameters: Parameters, config: ExpertConfig, final: np.ndarray, view_map: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = config.grid_hw
    grid_map, grid = view_map.reshape(rows, columns), final.reshape(rows, columns, -1)
    local, pooled = [], []
    for top, bottom in _bins(rows):
        for left, right in _bins(columns):
            weights = grid_map[top:bottom, left:right, None]
            token = (grid[top:bottom, left:right] * weights).mean((0, 1)) / weights.mean()
            if config.q_former:
                query = _linear(parameters, "q_former.query_proj", token)
                logits = _linear(parameters, "q_former.key_proj", final) @ query / np.sqrt(config.hidden)
                attention = np.exp(logits - logits.max())
                token = attention @ final / attention.sum()
            local.append(token)
            pooled.append(weights.mean())
    return np.stack(local), np.array(pooled)


def _bins(size: int) -> list[tuple[int, int]]:
    """Adaptive average pooling to two: floor(i size / 2) to ceil((i + 1) size / 2)."""
    return [(i * size // 2, -(-(i + 1) * size // 2)) for i in range(2)]
