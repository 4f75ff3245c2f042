"""``/v1/batches``: lists of pictures that are scored in the background, and what says what is normal for each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from anomaly_ov_server.faults import Fault, fault_of_fields
from anomaly_ov_server.service import Service, service_of
from anomaly_ov_server.store.names import MAX_NAME
from anomaly_ov_server.store.pictures import Rejected
from anomaly_ov_server.store.rows import Item
from anomaly_ov_server.uploads import UPLOAD_BODY, Upload, read_uploads
from anomaly_ov_server.views import BatchView, NewBatchView, new_view_of, view_of

MAX_BODY = 64 * 2**10

router = APIRouter(prefix="/v1/batches", tags=["batches"])


class NewBatch(BaseModel):
    """``name``: for people; left out, it tells the time."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str | None = Field(None, max_length=MAX_NAME)


class Renamed(BaseModel):
    """A new name for people."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(min_length=1, max_length=MAX_NAME)


class AutoContext(BaseModel):
    """The service chooses, as for a new batch: the pictures of the batch, once there are enough and they are alike."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["auto"]


class NoContext(BaseModel):
    """Nothing but the model says what is normal."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["none"]


class FolderContext(BaseModel):
    """The pictures that the batch holds now; most of them should be normal."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["folder"]


class ReferencesContext(BaseModel):
    """Pictures of the batch that are known to be good: ids of its items."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["references"]
    items: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=10_000)


Wanted = Annotated[AutoContext | NoContext | FolderContext | ReferencesContext, Field(discriminator="kind")]


class Batches(BaseModel):
    """The newest first."""

    batches: list[BatchView]


class Added(BaseModel):
    """``items``: one per picture taken, also for those that the batch had before."""

    batch: BatchView
    items: list[Item]
    rejected: list[Rejected]


_FORM = {"type": "object", "properties": UPLOAD_BODY["content"]["multipart/form-data"]["schema"]["properties"]}
NEW_BATCH_BODY: dict[str, Any] = {
    "required": False,
    "content": {
        "application/json": {"schema": NewBatch.model_json_schema()},
        "multipart/form-data": {"schema": _FORM | {"required": ["file"]}},
    },
}


@router.post("", status_code=201, openapi_extra={"requestBody": NEW_BATCH_BODY})
async def create(request: Request) -> NewBatchView:
    """A new batch, empty or with the pictures of a form."""
    service = service_of(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await read_uploads(request, service.settings)
        return await run_in_threadpool(_create, service, None, uploads)
    body = await _small_body(request)
    if body and kind != "application/json":
        hint = "send multipart/form-data, application/json or nothing"
        raise Fault(415, "unsupported_media_type", "a batch is not made from such a body", hint=hint)
    try:
        wanted = NewBatch.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise fault_of_fields(error.errors(include_url=False, include_input=False, include_context=False)) from None
    return await run_in_threadpool(_create, service, wanted.name, [])


@router.get("")
def list_batches(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> Batches:
    """The newest batches."""
    service = service_of(request)
    return Batches(batches=[view_of(service, batch) for batch in service.store.batches(limit)])


@router.get("/{batch}")
def read(request: Request, batch: str) -> BatchView:
    """One batch; ask again while its state is ``running``."""
    service = service_of(request)
    return view_of(service, service.store.batch(batch))


@router.patch("/{batch}")
def rename(request: Request, batch: str, body: Renamed) -> BatchView:
    """Gives it another name."""
    service = service_of(request)
    return view_of(service, service.store.rename_batch(batch, body.name))


@router.delete("/{batch}", status_code=204, response_class=Response)
def delete(request: Request, batch: str) -> Response:
    """Deletes it with its pictures, findings and decisions."""
    service_of(request).store.delete_batch(batch)
    return Response(status_code=204)


@router.post("/{batch}/pictures", openapi_extra={"requestBody": UPLOAD_BODY})
async def add_pictures(request: Request, batch: str) -> Added:
    """Adds pictures; they are scored in the background. The same file under the same name is added once.

    What the answer lists as an item is on disk: it will be scored, whatever happens to the process.
    """
    service = service_of(request)
    await run_in_threadpool(service.store.batch, batch)  # an unknown batch is refused before its pictures are read
    if not service.takes_work:
        raise Fault(503, "stopping", "the service is stopping", hint="try again soon", retry_after=5)
    uploads = await read_uploads(request, service.settings)
    return await run_in_threadpool(_add, service, batch, uploads)


@router.put("/{batch}/context", status_code=202)
def set_context(request: Request, batch: str, body: Wanted) -> BatchView:
    """Says what is normal for the batch and has all of it scored anew; earlier scores stay until they are replaced."""
    service = service_of(request)
    items = body.items if isinstance(body, ReferencesContext) else []
    changed = service.store.set_context(batch, body.kind, items)
    service.runner.wake()
    return view_of(service, changed)


def _create(service: Service, name: str | None, uploads: list[Upload]) -> NewBatchView:
    batch = service.store.create_batch(name)
    rejected: list[Rejected] = []
    if uploads:
        try:
            _, rejected = service.store.add_pictures(batch.id, uploads)
        except BaseException:
            service.store.delete_batch(batch.id)
            raise
        service.runner.wake()
        batch = service.store.batch(batch.id)
    return new_view_of(service, batch, rejected)


def _add(service: Service, batch: str, uploads: list[Upload]) -> Added:
    items, rejected = service.store.add_pictures(batch, uploads)
    service.runner.wake()
    return Added(batch=view_of(service, service.store.batch(batch)), items=items, rejected=rejected)


async def _small_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Fault(413, "too_large", f"the description of a batch may hold {MAX_BODY} bytes")
    return bytes(body)
