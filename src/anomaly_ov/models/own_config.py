"""From an encoder's backbone mapping to the config of one of our own networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from anomaly_ov.errors import ConfigError

T = TypeVar("T")


def fields_from(kind: type[T], mapping: Mapping[str, Any]) -> T:
    """``mapping`` as the dataclass ``kind``, lists as tuples; ``ConfigError`` names a field that does not exist."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for name in mapping:
        if name not in known:
            raise ConfigError(f"encoder.backbone: {kind.__name__} has no field '{name}'", hint="correct that field")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in mapping.items()})
