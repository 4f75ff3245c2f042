"""What tells two settings of a method apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from anomaly_ov.configuration import to_mapping


def revision_of(weights: str, config: Any) -> str:
    """The weights' revision and six hex digits of the configuration (a dataclass)."""
    text = json.dumps(to_mapping(config), sort_keys=True)
    return f"{weights}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
