"""The script under test: ``test_calibration.py`` is about ``benchmarks/calibration.py``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def benchmark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripts import each other by their bare names."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    return import_module(request.path.stem.removeprefix("test_"))
