"""Reads GGUF version 3, the file format of llama.cpp, without running or trusting anything in it. No torch.

Metadata of all types, tensors of the types F32, F16, Q8_0 and Q4_1 (https://github.com/ggml-org/ggml: docs/gguf.md,
src/ggml-common.h). Every length is checked against the file before it is believed. Not here: other quantisations,
big-endian files, files in several parts.

Blocks of 32 values: Q8_0 is a float16 d and 32 int8 q, value d * q; Q4_1 is float16 d, float16 m and 16 bytes whose low
halves are the values 0..15 and whose high halves are 16..31, value d * q + m.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint

Floats = npt.NDArray[np.float32]

MAGIC, VERSION = b"GGUF", 3
BLOCK = 32
DEFAULT_ALIGNMENT = 32
MOST_TENSORS, MOST_KEYS, MOST_DIMENSIONS = 100_000, 100_000, 4
HINT = "fetch the file again"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Gguf:
    """``metadata``: key -> number, bool, text or list of these. ``tensors``: name -> float32, in numpy's order of axes
    (the reverse of the file's).
    """

    metadata: dict[str, Any]
    tensors: dict[str, Floats]


def read_gguf(path: Path) -> Gguf:
    """All of a file, each tensor as float32. Raises ``UnsafeCheckpoint`` for a file that is cut off or no GGUF, and
    ``CheckpointMismatch`` for a version or a tensor type that is not read here.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise UnsafeCheckpoint(f"{path} cannot be read: {error.strerror or error}", hint=HINT) from None
    return _Reader(data, str(path)).whole()


class _Reader:
    def __init__(self, data: memoryview, where: str) -> None:
        self._data, self._where, self._at = data, where, 0

    def whole(self) -> Gguf:
        if bytes(self._take(4)) != MAGIC:
            raise UnsafeCheckpoint(f"{self._where} is no GGUF file", hint=HINT)
        version = self._number("I")
        if version != VERSION:
            raise CheckpointMismatch(f"{self._where} is GGUF version {version}; only {VERSION} is read", hint=HINT)
        tensors, keys = self._count(MOST_TENSORS), self._count(MOST_KEYS)
        metadata = {self._text(): self._value(self._number("I")) for _ in range(keys)}
        listed = [self._entry() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._broken(f"alignment {alignment}")
        start = -(-self._at // alignment) * alignment
        return Gguf(metadata, {name: self._tensor(name, start + at, shape, kind) for name, at, shape, kind in listed})

    def _entry(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._text()
        shape = tuple(self._number("Q") for _ in range(self._count(MOST_DIMENSIONS, "I")))
        kind = self._number("I")
        return name, self._number("Q"), shape[::-1], kind

    def _tensor(self, name: str, start: int, shape: tuple[int, ...], kind: int) -> Floats:
        if kind not in _KINDS:
            what = f"{self._where}: tensor {name} has type {kind}; F32, F16, Q8_0 and Q4_1 are read"
            raise CheckpointMismatch(what, hint="take the file in one of these types")
        values, size, decode = _KINDS[kind]
        count = 1
        for side in shape:
            count *= side
        if not shape or shape[-1] % values or count // values * size > len(self._data):
            raise self._broken(f"tensor {name} of shape {shape}")
        self._at = start
        raw = np.frombuffer(self._take(count // values * size), np.uint8).reshape(-1, size)
        return decode(raw).reshape(shape)

    def _value(self, kind: int, nested: int = 0) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            if nested > 3:
                raise self._broken("lists within lists")
            of, count = self._number("I"), self._count(len(self._data))
            if of in _SCALARS:
                form = f"<{count}{_SCALARS[of]}"
                return list(struct.unpack(form, self._take(struct.calcsize(form))))
            return [self._value(of, nested + 1) for _ in range(count)]
        if kind not in _SCALARS:
            raise self._broken(f"value of type {kind}")
        return self._number(_SCALARS[kind])

    def _text(self) -> str:
        return bytes(self._take(self._number("Q"))).decode("utf-8", "replace")

    def _count(self, most: int, form: str = "Q") -> int:
        found: int = self._number(form)
        if found > most:
            raise self._broken(f"count {found}")
        return found

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))[0]

    def _take(self, count: int) -> memoryview:
        if count > len(self._data) - self._at:
            raise self._broken(f"{count} bytes wanted at {self._at}, the file has {len(self._data)}")
        self._at += count
        return self._data[self._at - count : self._at]

    def _broken(self, what: str) -> UnsafeCheckpoint:
        return UnsafeCheckpoint(f"{self._where} is cut off or damaged: {what}", hint=HINT)


def _f32(raw_BS: npt.NDArray[np.uint8]) -> Floats:
    return raw_BS.view("<f4").astype(np.float32)


def _f16(raw_BS: npt.NDArray[np.uint8]) -> Floats:
    return raw_BS.view("<f2").astype(np.float32)


def _q8_0(raw_BS: npt.NDArray[np.uint8]) -> Floats:
    return _part_f2(raw_BS, 0) * raw_BS[:, 2:].view(np.int8).astype(np.float32)


def _q4_1(raw_BS: npt.NDArray[np.uint8]) -> Floats:
    halves = raw_BS[:, 4:]
    values = np.concatenate([halves & 15, halves >> 4], axis=1).astype(np.float32)
    return _part_f2(raw_BS, 0) * values + _part_f2(raw_BS, 2)


def _part_f2(raw_BS: npt.NDArray[np.uint8], at: int) -> Floats:
    return np.ascontiguousarray(raw_BS[:, at : at + 2]).view("<f2").astype(np.float32)


# Type -> values of a block, bytes of a block, what reads them.
_KINDS: dict[int, tuple[int, int, Callable[[npt.NDArray[np.uint8]], Floats]]] = {
    0: (1, 4, _f32),
    1: (1, 2, _f16),
    3: (BLOCK, 20, _q4_1),
    8: (BLOCK, 34, _q8_0),
}
