"""Bytes in pieces worth sending."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LEAST = 2**16


def in_blocks(pieces: Iterable[bytes], least: int = LEAST) -> Iterator[bytes]:
    """The same bytes in pieces of at least ``least``, but for the last: each costs its own way to the network."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= least:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
