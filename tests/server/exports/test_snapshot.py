"""A snapshot gives back what went in, in any order, whatever happens to the batch meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anomaly_ov_server.exports.snapshot import Snapshot, in_blocks
from serving_export_fixtures import batch


def test_rows_come_back_equal_and_repeatedly(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    rows[0] = replace(rows[0], name="ä \udcff \n 螺丝")
    with Snapshot(iter(rows)) as snapshot:
        assert list(snapshot) == rows
        assert list(snapshot) == rows
        assert [snapshot[i] for i in (6, 0, 3)] == [rows[i] for i in (6, 0, 3)]
        assert snapshot[-1] == rows[-1]
        assert snapshot[1:3] == rows[1:3]
        assert len(snapshot) == 7
        with pytest.raises(IndexError):
            snapshot[7]


def test_two_passes_at_once(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    with Snapshot(rows) as snapshot:
        assert list(zip(snapshot, snapshot, strict=True)) == list(zip(rows, rows, strict=True))


def test_blocks_hold_all_bytes() -> None:
    pieces = [b"a" * 5, b"", b"b" * 20, b"c"]
    blocks = list(in_blocks(pieces, least=8))
    assert b"".join(blocks) == b"".join(pieces)
    assert [len(block) for block in blocks] == [25, 1]
    assert list(in_blocks([])) == []
