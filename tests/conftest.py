"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights (see ``model_fixtures``)."""
    from model_fixtures import save_small_model

    return save_small_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six pictures of different sizes, ``p0.png`` to ``p5.png``."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index, (height, width) in enumerate([(40, 40), (64, 96), (200, 30), (33, 97), (96, 96), (10, 10)]):
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{index}.png")
    return folder
