"""Exported models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_fixtures import LITE, SIGLIP, save_with_graphs


@pytest.fixture(scope="session")
def lite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small EfficientNet-Lite detector with graphs, weights in half precision."""
    return save_with_graphs(tmp_path_factory.mktemp("engines") / "lite", LITE)


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SigLIP-like detector with graphs."""
    return save_with_graphs(tmp_path_factory.mktemp("engines") / "siglip", SIGLIP)
