"""Pictures out of a request: multipart files, base64 in JSON, or the picture itself as the body.

Every limit is looked at before what it limits is made: sizes of parts before they are read, lengths of base64 before
it is decoded, counts while parts arrive. Parts lie on disk until then (starlette spools them).
Nothing is decoded as a picture here: that is the reader's, and its answer belongs into the finding.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from anomaly_ov.images.sources import Source
from anomaly_ov_server.faults import Fault, fault_of_fields
from anomaly_ov_server.remote_pictures import fetch
from anomaly_ov_server.requests import require_modest
from anomaly_ov_server.settings import ServeSettings

FIELDS = ("file", "files")
NAME_LENGTH = 200
MAX_FIELDS = 16
RAW_TYPES = ("image/*", "application/octet-stream")


@dataclass(frozen=True)
class Upload:
    """One file as it was sent. ``name``: its base name, printable, at most 200 characters."""

    name: str
    data: bytes


class InlineImage(BaseModel):
    """A picture in base64, plain or as a data URL."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str | None = Field(None, max_length=1000)
    data: str = Field(min_length=1, description="Base64 of the file, or a data URL")


class RemoteImage(BaseModel):
    """A picture at an address: a data URL, or http(s) where the service is allowed to fetch."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str | None = Field(None, max_length=1000)
    url: str = Field(min_length=1)


class Images(BaseModel):
    """The JSON form of a request with pictures."""

    model_config = ConfigDict(extra="forbid", strict=True)
    images: Annotated[list[InlineImage | RemoteImage], FailFast()] = Field(min_length=1)


_FILES = {"type": "array", "minItems": 1, "items": {"type": "string", "contentMediaType": "application/octet-stream"}}
UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": _FILES}}},
        "application/json": {"schema": Images.model_json_schema(ref_template="#/components/schemas/{model}")},
        **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in RAW_TYPES},
    },
}
"""``requestBody`` of routes that take pictures, for the OpenAPI document."""
UPLOAD_SCHEMAS: dict[str, Any] = UPLOAD_BODY["content"]["application/json"]["schema"].pop("$defs")
"""What ``UPLOAD_BODY`` refers to."""


async def read_uploads(request: Request, settings: ServeSettings) -> list[Upload]:
    """The pictures of a request, at least one. Raises ``Fault`` 400, 413, 415 or 422.

    Other fields of a form stay readable through ``request.form()``.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _of_form(request, settings)
    elif kind == "application/json":
        uploads = await _of_json(await request.body(), settings)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        uploads = [await _of_body(request, settings)]
    else:
        hint = f"send multipart/form-data, application/json or {', '.join(RAW_TYPES)}"
        raise Fault(415, "unsupported_media_type", f"a body of type '{_shown(kind)}' is not understood", hint=hint)
    if not uploads:
        raise Fault(422, "invalid_request", "there is no picture in the request", hint="field 'file'", param="file")
    return uploads


def sources_of(uploads: Sequence[Upload]) -> list[Source]:
    """The uploads as the inspector takes them, their names made unique."""
    taken: set[str] = set()
    found = []
    for upload in uploads:
        name, copies = upload.name, 1
        while name in taken:
            copies += 1
            name = f"{upload.name}~{copies}"
        taken.add(name)
        found.append(Source(upload.data, name))
    return found


def clean_name(name: str | None) -> str:
    """The base name of whatever a client called its file."""
    base = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    printable = "".join(letter if letter.isprintable() else "_" for letter in base).strip()[:NAME_LENGTH]
    return "picture" if printable in ("", ".", "..") else printable


async def decode_picture_url(text: str, settings: ServeSettings, name: str | None = None) -> Upload:
    """The picture at a data URL, or at an http(s) address where ``settings`` allow that. Raises ``Fault``."""
    if text[:5].lower() == "data:":
        return await asyncio.to_thread(_of_base64, text, settings, name)
    if text.partition(":")[0].lower() not in ("http", "https"):
        hint = "data:image/png;base64,... for example"
        raise Fault(422, "invalid_request", "the picture's address is no data URL", hint=hint, param="url")
    if not settings.remote_images:
        what = "this service fetches no pictures from addresses"
        raise Fault(422, "remote_images_off", what, hint="send the picture itself, as a data URL", param="url")
    return Upload(clean_name(name or text.partition("?")[0]), await fetch(text, settings.max_picture_bytes))


async def _of_form(request: Request, settings: ServeSettings) -> list[Upload]:
    try:
        form = await request.form(max_files=settings.max_pictures, max_fields=MAX_FIELDS)
    except HTTPException as error:
        if str(error.detail).startswith("Too many files"):
            raise _too_many(settings) from None
        raise
    try:
        files = [_file(part) for key, part in form.multi_items() if key in FIELDS]
        for file in files:
            _require_size(file.size or 0, settings)
        return [Upload(clean_name(_unescaped(file.filename or "")), await file.read()) for file in files]
    finally:
        await _close(form)


def _unescaped(name: str) -> str:
    """A file name as it was before a browser wrote it into a form: quotes and line ends alone are escaped there."""
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


async def _close(form: FormData) -> None:
    for _, part in form.multi_items():
        if isinstance(part, UploadFile):
            await part.close()


def _file(part: UploadFile | str) -> UploadFile:
    if isinstance(part, str):
        raise Fault(422, "invalid_request", "'file' is text, not a file", hint="give it a file name", param="file")
    return part


async def _of_json(body: bytes, settings: ServeSettings) -> list[Upload]:
    images = (await asyncio.to_thread(_parsed, body)).images
    if len(images) > settings.max_pictures:
        raise _too_many(settings)
    uploads: list[Upload] = []
    left = settings.max_request_bytes
    for image in images:
        if isinstance(image, InlineImage):
            upload = await asyncio.to_thread(_of_base64, image.data, settings, image.name)
        else:
            upload = await decode_picture_url(image.url, settings, image.name)
        left -= len(upload.data)
        if left < 0:
            most = settings.max_request_bytes
            raise Fault(413, "too_large", f"the pictures of a request may hold {most} bytes", hint="send fewer")
        uploads.append(upload)
    return uploads


def _parsed(body: bytes) -> Images:
    require_modest(body)
    try:
        return Images.model_validate_json(body)
    except ValidationError as error:
        raise fault_of_fields(error.errors(include_url=False, include_input=False, include_context=False)) from None


def _of_base64(text: str, settings: ServeSettings, name: str | None) -> Upload:
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            hint = "data:image/png;base64,... for example"
            raise Fault(422, "invalid_request", "the data URL is not in base64", hint=hint, param="data")
    _require_size(len(text) * 3 // 4 - 2, settings)
    try:
        return Upload(clean_name(name), base64.b64decode(text.encode("ascii"), validate=True))
    except (binascii.Error, UnicodeEncodeError):
        hint = "standard base64 with padding, no line breaks"
        raise Fault(422, "invalid_request", "the picture is no base64", hint=hint, param="data") from None


async def _of_body(request: Request, settings: ServeSettings) -> Upload:
    length = request.headers.get("content-length", "")
    if length.isdecimal():
        _require_size(int(length[:20]), settings)
    data = bytearray()
    async for chunk in request.stream():
        _require_size(len(data) + len(chunk), settings)
        data += chunk
    return Upload("picture", bytes(data))


def _require_size(size: int, settings: ServeSettings) -> None:
    most = settings.max_picture_bytes
    if size > most:
        raise Fault(413, "image_too_large", f"a picture may hold {most} bytes", hint="send a smaller file")


def _too_many(settings: ServeSettings) -> Fault:
    what = f"a request may hold {settings.max_pictures} pictures"
    return Fault(413, "too_many_pictures", what, hint="send them in several requests")


def _shown(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:100]
