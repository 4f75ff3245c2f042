"""gguf.py: values as the specification says, and nothing believed that the file does not hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint
from anomaly_ov.models.gguf import read_gguf
from gguf_fixtures import encoded, write_gguf

SAID = {"a.text": "naïve", "a.int": 7, "a.float": 0.5, "a.yes": True, "a.list": ["x", ""], "a.numbers": [1, 2, 3]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_every_type_is_decoded_value_by_value(path: Path, kind: str) -> None:
    numbers = np.random.default_rng(1).normal(0, 3, (5, 96)).astype(np.float32)
    numbers[2] = 0
    read = read_gguf(write_gguf(path, SAID, {"w": (numbers, kind), "b": (numbers[0], "F32")}))
    assert read.tensors["w"].shape == (5, 96)
    assert read.tensors["w"].dtype == np.float32
    assert read.tensors["w"].ravel() == pytest.approx(encoded(numbers, kind)[1], rel=1e-6)
    assert np.array_equal(read.tensors["b"], numbers[0])
    assert read.metadata == SAID


def test_a_file_cut_off_anywhere_is_refused(path: Path) -> None:
    data = write_gguf(path, SAID, {"w": (np.ones((2, 32), np.float32), "Q4_1")}).read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(UnsafeCheckpoint):
            read_gguf(path)


def test_random_damage_ends_in_an_error_or_in_tensors_of_the_files_size(path: Path) -> None:
    whole = write_gguf(path, SAID, {"w": (np.ones((2, 32), np.float32), "Q4_1")}).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            read = read_gguf(path)
        except (UnsafeCheckpoint, CheckpointMismatch):
            continue
        assert sum(tensor.size for tensor in read.tensors.values()) <= 8 * len(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"GGML" + data[4:], "no GGUF"),
        (lambda data: data[:4] + struct.pack("<I", 2) + data[8:], "version 2"),
        (lambda data: data[:8] + struct.pack("<Q", 2**60) + data[16:], "count"),
    ],
)
def test_what_is_no_gguf_of_version_3_is_named(path: Path, change: object, said: str) -> None:
    data = write_gguf(path, SAID, {"w": (np.ones(32, np.float32), "F32")}).read_bytes()
    path.write_bytes(change(data))  # type: ignore[operator]
    with pytest.raises((UnsafeCheckpoint, CheckpointMismatch), match=said) as caught:
        read_gguf(path)
    assert caught.value.hint


def test_another_quantisation_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("gguf_fixtures").TYPES, "F32", 14)
    write_gguf(path, {}, {"w": (np.ones(32, np.float32), "F32")})
    with pytest.raises(CheckpointMismatch, match="tensor w has type 14"):
        read_gguf(path)
