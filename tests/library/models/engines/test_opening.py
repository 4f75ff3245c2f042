"""opening.py: which engine a folder gets, and what is said when it cannot have the one asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anomaly_ov.errors import MissingExtra, UsageError, WeightsError
from anomaly_ov.models.engines import opening
from anomaly_ov.models.engines.opening import has_cuda, has_graphs, open_engine


@pytest.fixture
def plain(lite_folder: Path, tmp_path: Path) -> Path:
    """The model without its graphs."""
    folder = Path(shutil.copytree(lite_folder, tmp_path / "plain"))
    (folder / "encoder.onnx").unlink()
    return folder


@pytest.mark.parametrize(
    ("graphs", "cuda", "device", "dtype", "name"),
    [
        (True, False, "auto", "auto", "onnx"),
        (True, False, "cpu", "float32", "onnx"),
        (True, True, "cpu", "auto", "onnx"),
        (True, True, "auto", "auto", "torch"),
        (True, False, "cpu", "bfloat16", "torch"),
        (False, False, "auto", "auto", "torch"),
    ],
)
def test_auto(
    lite_folder: Path,
    plain: Path,
    monkeypatch: pytest.MonkeyPatch,
    graphs: bool,
    cuda: bool,
    device: str,
    dtype: str,
    name: str,
) -> None:
    monkeypatch.setattr(opening, "has_cuda", lambda: cuda)
    folder = lite_folder if graphs else plain
    assert has_graphs(folder) == graphs
    assert open_engine(folder, device=device, dtype=dtype).name == name


def test_the_one_asked_for(lite_folder: Path) -> None:
    assert open_engine(lite_folder, "torch", device="cpu").name == "torch"
    engine = open_engine(lite_folder, "onnx", views_per_forward=3)
    assert (engine.name, engine.views_per_forward) == ("onnx", 3)


def test_what_cannot_be(lite_folder: Path, plain: Path) -> None:
    with pytest.raises(WeightsError) as raised:
        open_engine(plain, "onnx")
    assert "anomaly-ov models export" in raised.value.hint
    with pytest.raises(UsageError, match="unknown engine 'tvm'"):
        open_engine(plain, "tvm")
    with pytest.raises(UsageError, match="not on 'cuda'"):
        open_engine(lite_folder, "onnx", device="cuda")
    with pytest.raises(UsageError, match="not in 'float16'"):
        open_engine(lite_folder, "onnx", dtype="float16")


def test_without_torch_the_hint_is_how_to_get_it(
    lite_folder: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = opening.find_spec
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "torch" else find(name))
    for folder, engine in ((plain, "auto"), (lite_folder, "torch")):
        with pytest.raises(MissingExtra) as raised:
            open_engine(folder, engine)
        assert raised.value.hint == 'pip install "anomaly-ov[torch]"'


def test_without_onnx_runtime_auto_is_torch(lite_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = opening.find_spec
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    assert open_engine(lite_folder, device="cpu").name == "torch"


def test_cuda_is_looked_for_without_importing_torch_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked = list[str]()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append("torch") or True)
    monkeypatch.setattr(opening, "version", lambda name: "2.13.0+cpu")
    assert not has_cuda()
    monkeypatch.setattr(opening, "version", lambda name: "2.13.0+cu130")

    def no_driver(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(opening.ctypes, "CDLL", no_driver)
    assert not has_cuda()
    assert asked == []
    monkeypatch.setattr(opening.ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(opening.sys, "platform", "linux")
    assert has_cuda()
    assert asked == ["torch"]
