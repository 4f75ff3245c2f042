"""What a graph says about itself, as JSON in its metadata: which model it was made from, and how it is to be fed.

A graph holds no weights of its own unless they are quantised: it points into ``model.safetensors``. It is opened only
with the very weights and settings that it was made from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from anomaly_ov.configuration import to_mapping
from anomaly_ov.errors import CheckpointMismatch
from anomaly_ov.models.config import ModelConfig

KEY = "anomaly_ov"
FORMAT = "anomaly-ov-graph/1"
EXPORT = "anomaly-ov models export MODEL --out FOLDER"
COMPUTED = {"fp32": "float32", "fp16": "float32", "int8": "int8"}
"""Precision of the stored weights -> what the encoder computes in."""


@dataclass(frozen=True)
class GraphInfo:
    """``part``: encoder or expert. ``weights``: digest of the weights' file. ``precision``: one of ``COMPUTED``.

    ``patch``: as in ``Engine``; ``grid_hw``: cells of a view's map.
    """

    part: str
    weights: str
    precision: str
    patch: float | None
    grid_hw: tuple[int, int]

    def to_json(self, config: ModelConfig) -> str:
        """With the settings that tell how to make views and what the outputs are."""
        own = {"format": FORMAT, "name": config.name, "revision": config.revision}
        return json.dumps(own | to_mapping(self) | _settings(config))


def read_info(text: str | None, config: ModelConfig, weights: str, part: str, where: str) -> GraphInfo:
    """The checked metadata ``text`` of a graph that is opened with ``config`` and the file of digest ``weights``.

    Raises ``CheckpointMismatch`` when the graph is not ours, or was made from other weights or settings.
    """
    try:
        values: dict[str, Any] = json.loads(text or "")
        info = GraphInfo(
            str(values["part"]),
            str(values["weights"]),
            str(values["precision"]),
            None if values["patch"] is None else float(values["patch"]),
            (int(values["grid_hw"][0]), int(values["grid_hw"][1])),
        )
        if values["format"] != FORMAT or info.part != part:
            raise ValueError(f"it is {values['format']} {info.part}, not {FORMAT} {part}")
        if info.precision not in COMPUTED:
            raise ValueError(f"its precision is {info.precision}")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _mismatch(f"{where} is no graph of ours: {error!r}") from None
    if info.weights != weights:
        raise _mismatch(f"{where} was made from weights {info.weights}, this folder holds {weights}")
    settings = json.loads(json.dumps(_settings(config)))
    differing = [name for name, value in settings.items() if values.get(name) != value]
    if differing:
        raise _mismatch(f"{where} was made with other settings than config.json has: {', '.join(differing)}")
    return info


def _settings(config: ModelConfig) -> dict[str, Any]:
    return {name: to_mapping(getattr(config, name)) for name in ("encoder", "expert", "views")}


def _mismatch(what: str) -> CheckpointMismatch:
    return CheckpointMismatch(what, hint=f"make the graphs again with '{EXPORT} --overwrite', or delete them")
