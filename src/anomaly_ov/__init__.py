"""Anomaly-OV: zero-shot visual anomaly detection. Every public name stands in ``__all__``, loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from anomaly_ov import _moved

__version__ = "0.2.0"

_WHERE = {
    "load": "inspector",
    "Inspector": "inspector",
    "Context": "context.context",
    "load_context": "context.context_file",
    "save_context": "context.context_file",
    "Finding": "records",
    "Region": "records",
    "AnomalyOVError": "errors",
}
__all__ = [
    "AnomalyOVError",
    "Context",
    "Finding",
    "Inspector",
    "Region",
    "__version__",
    "load",
    "load_context",
    "save_context",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"anomaly_ov.{_WHERE[name]}"), name)
    return _moved.moved_name(name)


def __dir__() -> list[str]:
    return sorted(__all__)


_moved.install()
