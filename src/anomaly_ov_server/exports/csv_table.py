"""A table for spreadsheets, one row a picture: UTF-8 with a byte order mark, without which Excel garbles names.

A cell of text that a spreadsheet would run as a formula begins with an apostrophe (OWASP, "CSV Injection"): names and
notes come from people. Empty cells are unknown or still to come.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from anomaly_ov_server.exports.about import About, result_of, state_of
from anomaly_ov_server.reviewed import Decision, Reviewed

COLUMNS = (
    "position",
    "name",
    "state",
    "result",
    "score",
    "anomalous",
    "level",
    "decision",
    "note",
    "decided_at",
    "regions",
    "largest_region_box",
    "highest_region_score",
    "score_expert",
    "score_context",
    "threshold",
    "threshold_source",
    "map_threshold",
    "map_threshold_source",
    "context",
    "context_distance",
    "model",
    "model_revision",
    "width",
    "height",
    "sha256",
    "item",
    "error",
)
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def csv_table(rows: Iterable[Reviewed], about: About) -> Iterator[bytes]:
    """A heading and one line a picture, comma-separated, lines ended as RFC 4180 has it."""
    yield b"\xef\xbb\xbf" + _line(dict.fromkeys(COLUMNS, "") | {name: name for name in COLUMNS})
    for row in rows:
        yield _line(_cells(row, about))


def guarded(text: str) -> str:
    """``text`` as a cell that no spreadsheet takes for a formula, control characters but line breaks and tabs shown."""
    shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    return f"'{shown}" if _FORMULA.match(text) else shown


def _cells(row: Reviewed, about: About) -> dict[str, Any]:
    record = row.record or {}
    decision = row.decision or Decision("unsure", "", "")
    image, error, result = record.get("image") or {}, record.get("error"), result_of(row)
    model, context = record.get("model"), record.get("context") or {}
    threshold = record.get("threshold") or {}
    scored = state_of(row) == "done"
    regions = record.get("regions") or []
    largest = max(regions, key=lambda region: region["area"], default=None)
    return {
        "position": row.position + 1,
        "name": row.name,
        "state": state_of(row),
        "result": "" if result == "none" else result,
        "score": record.get("score"),
        "anomalous": {True: "yes", False: "no"}.get(record.get("anomalous")),  # type: ignore[arg-type]
        "level": record.get("level"),
        "decision": decision.verdict if row.decision else None,
        "note": decision.note,
        "decided_at": decision.at,
        "regions": len(regions) if scored else None,
        "largest_region_box": " ".join(map(str, largest["box"])) if largest else None,
        "highest_region_score": regions[0]["score"] if regions else None,
        "score_expert": record.get("score_expert"),
        "score_context": record.get("score_context"),
        "threshold": threshold.get("value"),
        "threshold_source": threshold.get("source"),
        "map_threshold": threshold.get("value"),
        "map_threshold_source": threshold.get("source"),
        "context": context.get("kind"),
        "context_distance": context.get("distance"),
        "model": model["name"] if model else about.model.name,
        "model_revision": model["revision"] if model else about.model.revision,
        "width": image.get("width"),
        "height": image.get("height"),
        "sha256": row.sha256,
        "item": row.id,
        "error": f"{error['message']} ({error['hint']})" if error and error["hint"] else (error or {}).get("message"),
    }


def _line(cells: dict[str, Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([guarded(cell) if isinstance(cell, str) else cell for cell in cells.values()])
    return buffer.getvalue().encode(errors="backslashreplace")
