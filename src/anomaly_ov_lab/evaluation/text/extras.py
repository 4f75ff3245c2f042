"""Optional packages of the text metrics, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from anomaly_ov.errors import MissingExtra


def optional(module: str, package: str) -> Any:
    """The module. Raises ``MissingExtra`` that names ``package`` if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtra(package, "lab") from None
