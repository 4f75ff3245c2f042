"""A stock LLaVA-OneVision checkpoint, copies of it to spoil, and sums in one order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llava_fixtures import Stock, save_stock


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return save_stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture
def folder(stock: Stock, tmp_path: Path) -> Path:
    """A copy of the stock model's folder."""
    return Path(shutil.copytree(stock.folder, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
