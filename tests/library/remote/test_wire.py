"""Server-sent events, however they are cut into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ov.errors import EndpointError
from anomaly_ov.remote.wire import events

STREAM = (
    ': keep-alive\n\nevent: piece\nid: 4\ndata: {"a": 1}\n\ndata:two\r\n\r\n'
    "data: over\ndata: lines\n\n\n\ndata: \u00e9\u2581\n\ndata: last"
).encode()
EXPECTED = ['{"a": 1}', "two", "over\nlines", "\u00e9\u2581", "last"]


@given(st.lists(st.integers(0, len(STREAM))))
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    ends = [*sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert list(events(chunks)) == EXPECTED


def test_nothing() -> None:
    assert list(events([])) == []
    assert list(events([b"\n\n: x\n"])) == []


def test_no_text() -> None:
    with pytest.raises(EndpointError, match="UTF-8"):
        list(events([b"data: \xff\n\n"]))
