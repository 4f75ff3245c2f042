"""A model folder with another fusion of expert and context: same weights, same card, another ``config.json``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from anomaly_ov.configuration import to_mapping
from anomaly_ov.files import write_atomic
from anomaly_ov.models.config import ContextConfig
from anomaly_ov.models.hub import CONFIG_FILE, WEIGHTS_FILE
from anomaly_ov.models.model import CARD_FILE, AnomalyModel


def with_fusion(model: Path, config: ContextConfig, out: Path) -> Path:
    """Writes ``out``: the model, its weights and card untouched, with ``config``. Returns ``out``."""
    fused = replace(AnomalyModel.from_pretrained(model).config, context=config)
    out.mkdir(parents=True, exist_ok=True)
    # As they are on disk: saved again, weights kept in float32 might be rounded, and be another revision.
    for name in (WEIGHTS_FILE, CARD_FILE):
        if (model / name).is_file():
            write_atomic(out / name, (model / name).read_bytes())
    write_atomic(out / CONFIG_FILE, (json.dumps(to_mapping(fused), indent=2) + "\n").encode())
    return out
