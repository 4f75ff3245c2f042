"""``POST /v1/inspect``: pictures in, findings out."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from anomaly_ov.records import Finding
from anomaly_ov_server.faults import fault_of_picture
from anomaly_ov_server.requests import unless_gone
from anomaly_ov_server.service import service_of
from anomaly_ov_server.store.renderings import grey_png
from anomaly_ov_server.uploads import UPLOAD_BODY, read_uploads, sources_of
from anomaly_ov_server.views import Record

router = APIRouter(tags=["inspect"])

MapFormat = Literal["none", "png", "npy"]


class WithMap(Record):  # type: ignore[misc, valid-type]
    """A record, and its map in base64 if it was asked for: a grey PNG, or NumPy's format with float32 in 0..1."""

    map_data: str | None = Field(None, description="Only with ?map=png or ?map=npy; null for an unreadable picture")


class Findings(BaseModel):
    """One record per picture, in the order sent."""

    findings: list[WithMap]


@router.post(
    "/v1/inspect",
    response_class=JSONResponse,
    responses={200: {"model": Findings, "description": "A picture that cannot be read has its record's error set"}},
    openapi_extra={"requestBody": UPLOAD_BODY},
)
async def inspect(request: Request, map: MapFormat = "none") -> Response:
    """Inspects one picture or several, of files with several pages the first.

    A single picture that cannot be read is an error, 422 or 413; one among several is a record with its error set.
    """
    service = service_of(request)
    service.engine.require_room()
    sources = sources_of(await read_uploads(request, service.settings))
    inspected = await unless_gone(request, service.engine.inspect_together(sources))
    findings = [one.finding for one in inspected]
    if len(findings) == 1 and findings[0].error is not None:
        raise fault_of_picture(findings[0].error, "file")
    if map == "none":
        return JSONResponse({"findings": [finding.to_json() for finding in findings]})
    return JSONResponse({"findings": await asyncio.to_thread(_with_maps, findings, map)})


def _with_maps(findings: list[Finding], format: MapFormat) -> list[dict[str, Any]]:
    encode = grey_png if format == "png" else _as_npy
    return [
        one.to_json() | {"map_data": None if one.significance_map is None else _base64(encode(one.significance_map))}
        for one in findings
    ]


def _as_npy(map_HW: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(map_HW, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
