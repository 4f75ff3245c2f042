"""The page's own files, from the package: an explicit list, each with its type and a tag so that reloads cost nothing.

The names carry no version, so browsers are told to ask every time; what has not changed is answered with 304.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

STYLES = ("base.css", "layout.css", "gallery.css", "viewer.css", "panel.css")
SCRIPTS = (
    "api.js",
    "batches.js",
    "camera.js",
    "card.js",
    "chat.js",
    "context.js",
    "dialogs.js",
    "dom.js",
    "drop.js",
    "empty.js",
    "exports.js",
    "facts.js",
    "filters.js",
    "gallery.js",
    "hash.js",
    "histogram.js",
    "keys.js",
    "layers.js",
    "main.js",
    "map-worker.js",
    "map.js",
    "notices.js",
    "order.js",
    "progress.js",
    "region-layer.js",
    "regions.js",
    "review.js",
    "sse.js",
    "stage.js",
    "state.js",
    "theme.js",
    "upload.js",
    "viewer.js",
)
EXAMPLES = (
    "examples/blister_burnt.jpg",
    "examples/blister_good.jpg",
    "examples/blister_missing.jpg",
    "examples/connector_bent.jpg",
    "examples/connector_good.jpg",
    "examples/connector_rusty.jpg",
    "examples/flange_good.jpg",
    "examples/flange_scratched.jpg",
)
FILES = frozenset(("favicon.svg", *STYLES, *SCRIPTS, *EXAMPLES))
CHECKOUT = Path(__file__).resolve().parents[3]
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}


@router.get("/")
def index(request: Request) -> Response:
    """The page."""
    return _answer(request, "index.html")


@router.get("/static/{name:path}")
def static(request: Request, name: str) -> Response:
    """One file of the page. Raises 404 for a name that is not on the list, so no path can lead elsewhere."""
    if name not in FILES:
        raise HTTPException(404, "no such file")
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    data, tag = _file(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    given = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    if tag in given:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=TYPES[PurePosixPath(name).suffix], headers=headers)


@cache
def _file(name: str) -> tuple[bytes, str]:
    data = _place(name).read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:24]}"'


def _place(name: str) -> Traversable:
    """In the package. The examples are copied there when a wheel is made; a checkout has them at its top."""
    packed = resources.files("anomaly_ov_server").joinpath("page", *name.split("/"))
    return packed if packed.is_file() or name not in EXAMPLES else CHECKOUT / name
