"""Writes GGUF files value by value, as its specification says, and a small Llama in llama.cpp's names and order."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"F32": 0, "F16": 1, "Q4_1": 3, "Q8_0": 8}
LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(of: Any) -> bytes:
    """Type and value."""
    if isinstance(of, bool):
        return struct.pack("<I?", 7, of)
    if isinstance(of, int):
        return struct.pack("<II", 4, of)
    if isinstance(of, float):
        return struct.pack("<If", 6, of)
    if isinstance(of, str):
        return struct.pack("<I", 8) + text(of)
    kind = value(of[0])[:4]
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(of)) + b"".join(value(one)[4:] for one in of)


def encoded(numbers: np.ndarray, kind: str) -> tuple[bytes, list[float]]:
    """A tensor's bytes, and the values that they stand for, one by one."""
    flat = [float(number) for number in numbers.ravel()]
    if kind in ("F32", "F16"):
        form = "f" if kind == "F32" else "e"
        data = struct.pack(f"<{len(flat)}{form}", *flat)
        return data, list(struct.unpack(f"<{len(flat)}{form}", data))
    data, said = b"", []
    for at in range(0, len(flat), 32):
        block = flat[at : at + 32]
        if kind == "Q8_0":
            (d,) = struct.unpack("<e", struct.pack("<e", max(map(abs, block)) / 127 or 1.0))
            q = [max(-127, min(127, round(one / d))) for one in block]
            data += struct.pack("<e32b", d, *q)
            said += [d * one for one in q]
        else:
            d, m = struct.unpack("<2e", struct.pack("<2e", (max(block) - min(block)) / 15 or 1.0, min(block)))
            q = [max(0, min(15, round((one - m) / d))) for one in block]
            data += struct.pack("<2e", d, m) + bytes(q[k] | q[k + 16] << 4 for k in range(16))
            said += [d * one + m for one in q]
    return data, said


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[np.ndarray, str]]) -> Path:
    """A GGUF of version 3."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(key) + value(of) for key, of in metadata.items())
    body = b""
    for name, (numbers, kind) in tensors.items():
        body += b"\0" * (-len(body) % 32)
        sides = numbers.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, TYPES[kind], len(body))
        body += encoded(numbers, kind)[0]
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Row by row: row r of a head's first half stands at 2 r, row r of its second half at 2 r + 1."""
    head = len(weight) // heads
    found = np.empty_like(weight)
    for h in range(heads):
        for r in range(head // 2):
            found[h * head + 2 * r] = weight[h * head + r]
            found[h * head + 2 * r + 1] = weight[h * head + head // 2 + r]
    return found


def llama_tensors(state: Mapping[str, Any], heads: int, key_heads: int) -> dict[str, tuple[np.ndarray, str]]:
    """A transformers Llama's weights as llama.cpp stores them."""
    found = {}
    theirs = {ours: their for their, ours in LAYER.items()}
    for name, tensor in state.items():
        numbers = tensor.numpy()
        if name == "model.embed_tokens.weight":
            found["token_embd.weight"] = numbers, "F32"
        elif name == "model.norm.weight":
            found["output_norm.weight"] = numbers, "F32"
        elif name.startswith("model.layers."):
            _, _, number, *part, last = name.split(".")
            their = theirs[".".join(part)]
            if their in ("attn_q", "attn_k"):
                numbers = permuted(numbers, heads if their == "attn_q" else key_heads)
            found[f"blk.{number}.{their}.{last}"] = numbers, "F32"
    return found
