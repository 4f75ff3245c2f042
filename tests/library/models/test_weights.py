"""weights.py: what is read is what was written, and nothing damaged, foreign or half written is."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint, WeightsError
from anomaly_ov.models import weights


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.randn(3, 4, 3, 3).to(memory_format=torch.channels_last),
        "a.bias": torch.randn(3).half(),
        "a.num_batches_tracked": torch.tensor(7),
    }


def test_round_trip_keeps_values_dtypes_and_metadata(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "sub" / "w.safetensors"
    weights.write(path, tensors, {"note": "x"})
    back = weights.read(path, weights.shapes_of(tensors))
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    assert weights.read_metadata(path)["note"] == "x"
    assert weights.read_shapes(path) == {"a.weight": (3, 4, 3, 3), "a.bias": (3,), "a.num_batches_tracked": ()}


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, tensors)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        weights.write(path, {"other": torch.ones(2)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_mismatch_names_missing_unexpected_and_wrong_shapes() -> None:
    with pytest.raises(CheckpointMismatch) as caught:
        weights.require_same({"a": (1,), "b": (2, 3)}, {"b": (3, 2), "c": (1,)}, "file x")
    text = str(caught.value)
    assert "file x" in text
    assert "1 missing: a" in text
    assert "1 unexpected: c" in text
    assert "b is [3, 2], must be [2, 3]" in text
    weights.require_same({"a": (1,)}, {"a": (1,)}, "file x")


def test_a_long_list_of_names_is_cut() -> None:
    with pytest.raises(CheckpointMismatch, match="and 14 more"):
        weights.require_same({f"n{i:02}": (1,) for i in range(20)}, {}, "x")


def test_mismatch_is_found_before_any_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, {"a": torch.ones(2)})
    monkeypatch.setattr("torch.Tensor.__new__", lambda *a, **k: pytest.fail("a tensor was made"))
    with pytest.raises(CheckpointMismatch):
        weights.read(path, {"a": (3,)})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-3],
        lambda data: data[:5],
        lambda data: b"",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"x" + data[9:],
        lambda data: data.replace(b"[0,8]", b"[0,9]"),
        lambda data: data + b"tail",
    ],
    ids=["truncated", "stub", "empty", "huge header", "no json", "range too long", "trailing bytes"],
)
def test_damaged_files_are_refused(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, {"a": torch.ones(2)})
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UnsafeCheckpoint, match=r"w\.safetensors"):
        weights.read(path)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was run')",)


def test_pickles_are_named_and_never_opened(tmp_path: Path) -> None:
    old = tmp_path / "old.safetensors"
    old.write_bytes(pickle.dumps(_Bomb()))
    new = tmp_path / "new.safetensors"
    torch.save({"a": torch.ones(1)}, new)
    for path in (old, new):
        with pytest.raises(UnsafeCheckpoint, match="pickle"):
            weights.read(path)


def test_missing_file_and_size_limit(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        weights.read(tmp_path / "none.safetensors")
    path = tmp_path / "w.safetensors"
    weights.write(path, {"a": torch.ones(100)})
    with pytest.raises(UnsafeCheckpoint, match="more than the 100 allowed"):
        weights.read(path, max_bytes=100)


def test_half_keeps_in_float32_what_it_cannot_hold() -> None:
    tensors = {
        "fine": torch.linspace(-2, 2, 1000),
        "big": torch.tensor([1.0, 70000.0]),
        "small": torch.full((4,), 3e-8),
        "zero": torch.zeros(3),
        "count": torch.tensor(5),
    }
    out, notes = weights.to_half(tensors)
    assert {name: t.dtype for name, t in out.items()} == {
        "fine": torch.float16,
        "big": torch.float32,
        "small": torch.float32,
        "zero": torch.float16,
        "count": torch.int64,
    }
    assert len(notes) == 2
    assert "big" in notes[0]
    assert "65504" in notes[0]
    assert "small" in notes[1]
    full = weights.to_full(out)
    assert full["fine"].dtype == torch.float32
    assert full["count"].dtype == torch.int64
    assert torch.equal(full["big"], tensors["big"])


def test_empty_parameters_hold_nothing_but_buffers_are_real_and_other_threads_unaffected() -> None:
    made: list[nn.Module] = []
    with weights.empty_parameters():
        here = nn.BatchNorm2d(4)
        thread = threading.Thread(target=lambda: made.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
    assert here.weight.is_meta
    assert torch.equal(here.running_var, torch.ones(4))
    assert not made[0].weight.is_meta  # type: ignore[union-attr]
    assert not nn.Linear(2, 2).weight.is_meta
