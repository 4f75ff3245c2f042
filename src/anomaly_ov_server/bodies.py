"""What a JSON body may hold before it is parsed: a list of two bytes a value takes a hundred times that in memory."""

from __future__ import annotations

from anomaly_ov_server.faults import Fault

MOST_COMMAS = 200_000
"""More than any request needs: pictures are long strings, and a language model reads some thousand words."""


def require_modest(body: bytes) -> None:
    """Raises ``Fault`` 413 for JSON of very many values: each but the first follows a comma."""
    if body.count(b",") > MOST_COMMAS:
        raise Fault(413, "too_large", f"the JSON holds more than {MOST_COMMAS} commas", hint="send less at a time")
