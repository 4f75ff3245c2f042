"""``GET /v1/batches/{batch}/results``: a batch as one file, sent while it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from anomaly_ov.records import ModelInfo, Threshold
from anomaly_ov_server.exports.about import CHOSEN, About
from anomaly_ov_server.exports.archive import archive
from anomaly_ov_server.exports.coco import coco
from anomaly_ov_server.exports.csv_table import csv_table
from anomaly_ov_server.exports.jsonl import jsonl
from anomaly_ov_server.exports.rejudged import rejudged
from anomaly_ov_server.exports.report import report
from anomaly_ov_server.exports.snapshot import Snapshot, in_blocks
from anomaly_ov_server.service import Service, service_of
from anomaly_ov_server.store.rows import Batch

router = APIRouter(tags=["batches"])

MAX_NAME = 100
Format = Literal["jsonl", "csv", "coco", "zip", "html"]
Chosen = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]


class _Kind(NamedTuple):
    write: Callable[[Snapshot, About], Iterator[bytes]]
    media_type: str
    ending: str


_KINDS: dict[str, _Kind] = {
    "jsonl": _Kind(jsonl, "application/x-ndjson", "jsonl"),
    "csv": _Kind(csv_table, "text/csv; charset=utf-8", "csv"),
    "coco": _Kind(coco, "application/json", "coco.json"),
    "zip": _Kind(archive, "application/zip", "zip"),
    "html": _Kind(report, "text/html; charset=utf-8", "html"),
}
_BODY = {
    "description": "The file",
    "content": {
        media_type: {"schema": {"type": "object" if media_type == "application/json" else "string"}}
        for media_type in (kind.media_type.partition(";")[0] for kind in _KINDS.values())
    },
}


@router.get("/v1/batches/{batch}/results", response_class=StreamingResponse, responses={200: _BODY})
def results(
    request: Request,
    batch: str,
    format: Format = "jsonl",
    threshold: Chosen = None,
    map_threshold: Chosen = None,
) -> StreamingResponse:
    """What is known of every picture of the batch, as it is now; pictures that still wait are listed as pending.

    ``threshold`` judges the stored scores and maps anew, for this file only: label and regions. ``map_threshold`` is
    its name from when regions had one of their own; it counts where ``threshold`` is not given.
    """
    service = service_of(request)
    chosen = map_threshold if threshold is None else threshold
    about = _about(service, service.store.batch(batch), chosen)
    snapshot = Snapshot(rejudged(row, chosen) for row in service.store.reviewed(batch))
    kind = _KINDS[format]
    headers = {
        "Content-Disposition": attachment(about.name or about.batch_id, kind.ending),
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_sent(snapshot, kind.write(snapshot, about)), media_type=kind.media_type, headers=headers)


def attachment(name: str, ending: str) -> str:
    """Content-Disposition (RFC 6266) of a file that every system can keep, whatever ``name`` holds."""
    clean = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|;%\ud800-\udfff]+', "_", name).strip(" ._")[:MAX_NAME].strip(" ._")
    full = f"{clean or 'batch'}.{ending}"
    plain = full.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(full, safe='')}"


def _about(service: Service, batch: Batch, threshold: float | None) -> About:
    """A batch without a finding names the model that will score it."""
    scored, inspector = batch.scored_by, service.inspector
    used = inspector.threshold if scored is None else scored.threshold
    return About(
        batch_id=batch.id,
        name=batch.name,
        created=batch.created,
        model=inspector.info if scored is None else ModelInfo(**scored.model),
        threshold=Threshold(used.value, used.source) if threshold is None else Threshold(threshold, CHOSEN),
        context={
            "kind": batch.context.kind,
            "source": batch.context.source,
            "references": batch.context.references,
            "state": batch.context.state,
        },
        exported_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _sent(snapshot: Snapshot, pieces: Iterator[bytes]) -> Iterator[bytes]:
    with snapshot:
        yield from in_blocks(pieces)
