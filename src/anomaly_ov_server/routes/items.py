"""``/v1/items``: one picture of a batch, its images, and what a reviewer decides about it; and lists of them."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from anomaly_ov_server.exports.sheet import sheet
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.reviewed import Verdict
from anomaly_ov_server.service import service_of
from anomaly_ov_server.store.listing import Show, Sort
from anomaly_ov_server.store.names import MAX_NAME
from anomaly_ov_server.store.rows import Item, Step
from anomaly_ov_server.store.store import MAX_NOTE
from anomaly_ov_server.views import Record

LARGEST = 2**53 - 1  # what JSON carries exactly
SHORT = "private, no-cache"
LONG = "private, max-age=31536000, immutable"

router = APIRouter(prefix="/v1", tags=["items"])


class Items(BaseModel):
    """Part of a batch. ``total``: how many match; ``revision``: for ``since`` of the next request."""

    items: list[Item]
    total: int
    revision: int


@dataclass(frozen=True)
class Detail(Item):
    """An item, the record that is shown of it, and all that was decided about it, oldest first."""

    finding: Record | None  # type: ignore[valid-type]
    decisions: list[Step]


class Decided(BaseModel):
    """What a reviewer decides."""

    model_config = ConfigDict(extra="forbid", strict=True)
    verdict: Verdict
    note: str = Field("", max_length=MAX_NOTE)


def _image(kind: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}, "description": "The image"},
        304: {"description": "The client has it"},
    }


@router.get("/batches/{batch}/items", response_class=JSONResponse, responses={200: {"model": Items}})
def list_items(
    request: Request,
    batch: str,
    sort: Sort = "-score",
    show: Show = "all",
    threshold: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
    q: Annotated[str, Query(max_length=MAX_NAME)] = "",
    offset: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
    since: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
) -> Response:
    """Items of a batch. ``threshold``: tells anomalous from normal in place of each finding's own; ``q``: part of the
    name; ``since``: only those that changed after that revision.
    """
    page = service_of(request).store.items(
        batch, sort=sort, show=show, threshold=threshold, text=q, offset=offset, limit=limit, since=since
    )
    # Asked for again and again, with hundreds of items: written as it is, not checked against the model once more.
    return JSONResponse(asdict(page))


@router.get("/items/{item}", response_class=JSONResponse, responses={200: {"model": Detail}})
def read_item(request: Request, item: str) -> Response:
    """An item with its full record and its history."""
    detail = service_of(request).store.item(item)
    history = [asdict(step) for step in detail.decisions]
    return JSONResponse(asdict(detail.item) | {"finding": detail.finding, "decisions": history})


@router.get("/items/{item}/thumbnail", response_class=Response, responses=_image("image/webp"))
def thumbnail(request: Request, item: str) -> Response:
    """At most 256 pixels on its long side."""
    return _file(request, service_of(request).store.files(item).thumbnail, "image/webp", LONG)


@router.get("/items/{item}/picture", response_class=Response, responses=_image("image/webp"))
def picture(request: Request, item: str) -> Response:
    """The picture as it was looked at, upright, at the size of its map."""
    return _file(request, service_of(request).store.files(item).preview, "image/webp", LONG)


@router.get("/items/{item}/map", response_class=Response, responses=_image("image/png"))
def significance_map(request: Request, item: str) -> Response:
    """The significance map, grey, 0..255 for 0..1 on an absolute scale."""
    return _file(request, service_of(request).store.files(item).map_path, "image/png", SHORT)


@router.get("/items/{item}/overlay", response_class=Response, responses=_image("image/png"))
def overlay(
    request: Request,
    item: str,
    threshold: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
    map_threshold: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
) -> Response:
    """The picture beside itself under its map, with regions, legend and caption, to be shown to others.

    ``threshold``: judges it anew, in place of what it was judged by; ``map_threshold``: its former name.
    """
    drawn = sheet(service_of(request).store.files(item), map_threshold if threshold is None else threshold)
    if drawn is None:
        raise _no_image()
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", compress_level=3)
    return Response(buffer.getvalue(), headers={"Cache-Control": SHORT}, media_type="image/png")


@router.put("/items/{item}/decision")
def decide(request: Request, item: str, body: Decided) -> Item:
    """Decides, or decides anew. The history keeps what was decided before."""
    decided: Item = service_of(request).store.decide(item, body.verdict, body.note)
    return decided


@router.delete("/items/{item}/decision")
def undo(request: Request, item: str) -> Item:
    """One step back: to the decision before, or to none."""
    undone: Item = service_of(request).store.undo(item)
    return undone


def _file(request: Request, path: Path | None, kind: str, keep: str) -> Response:
    """A file of the store, or 304 when the client has it."""
    try:
        if path is None:
            raise _no_image()
        status = path.stat()
        headers = {"Cache-Control": keep, "ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"'}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(path.read_bytes(), headers=headers, media_type=kind)
    except OSError:
        raise _no_image() from None


def _no_image() -> Fault:
    what = "there is no such image of this picture: it waits to be looked at, or cannot be read"
    return Fault(404, "not_found", what, hint="its state says which")
