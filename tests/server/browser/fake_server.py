"""A stand-in for the service, for the page's tests: the same HTTP contract, canned findings, nothing computed.

What a picture "shows" follows from its bytes, so a run repeats. Names steer the faults that tests need: a name with
``unreadable`` is rejected at upload, one with ``broken`` fails at scoring.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomaly_ov.images.colours import palette
from anomaly_ov.records import level_beside
from anomaly_ov.scoring.regions import regions
from anomaly_ov_server.routes.page import router as page

MODEL = {"name": "fake", "revision": "0123456789abcdef", "device": "cpu", "dtype": "float32"}
THRESHOLD = {"value": 0.5, "source": "default"}
CONTEXT = {"kind": "none", "source": None, "references": 0, "state": "ready", "error": None}
NOW = "2026-01-01T00:00:00Z"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
ANSWER = "There is a dark mark left of the centre. It looks like a scratch and is likely a defect."


def spots(seed: int, width: int, height: int, count: int) -> np.ndarray:
    """(H, W) float32 in 0..1: ``count`` soft spots, the same for the same seed."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    found = np.full((height, width), 0.04, np.float32)
    for _ in range(count):
        cx, cy = generator.uniform(0.15, 0.85, 2) * (width, height)
        radius = generator.uniform(0.04, 0.11) * width
        peak = generator.uniform(0.55, 0.98)
        found = np.maximum(found, peak * np.exp(-(((x - cx) / radius) ** 2 + ((y - cy) / (0.7 * radius)) ** 2)))
    return found.astype(np.float32)


def png(map_HW: np.ndarray) -> bytes:
    """Grey PNG of values 0..1."""
    out = io.BytesIO()
    Image.fromarray(np.rint(map_HW * 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def webp(picture: Image.Image, side: int) -> bytes:
    """WebP of at most ``side`` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80)
    return out.getvalue()


@dataclass
class Files:
    """What is served of one picture."""

    thumbnail: bytes
    preview: bytes
    map: bytes
    regions: list[dict[str, Any]]
    peak: float
    width: int
    height: int


@dataclass
class Fake:
    """Everything the stand-in knows; tests reach in and set the faults."""

    token: str | None = None
    speaks: bool = True
    seconds_per_picture: float = 0.0
    seconds_per_word: float = 0.01
    seconds_per_list: float = 0.0
    busy_answers: int = 0
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    history: dict[str, list[Any]] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    revision: int = 0

    def new_batch(self, name: str) -> str:
        """Its id."""
        batch = "b_" + secrets.token_hex(8)
        self.revision += 1
        self.batches[batch] = {
            "id": batch,
            "name": name,
            "created": NOW,
            "context": CONTEXT | {"auto": True, "reason": "there are fewer than 8 pictures"},
            "model": MODEL,
            "threshold": THRESHOLD,
            "map_threshold": THRESHOLD["value"],
            "started": time.monotonic(),
        }
        return batch

    def of(self, batch: str) -> list[dict[str, Any]]:
        """A batch's items by position; those whose time has come are scored on the way."""
        mine = [item for item in self.items.values() if item["batch"] == batch]
        for item in mine:
            if item["state"] == "pending" and time.monotonic() >= item["due"]:
                self._score(item)
        return mine

    def state(self, batch: str) -> dict[str, Any]:
        """The Batch object."""
        mine = self.of(batch)
        done = [item for item in mine if item["state"] == "done"]
        pending = sum(item["state"] == "pending" for item in mine)
        rate = 1 / self.seconds_per_picture if pending and self.seconds_per_picture else None
        counts = {
            "total": len(mine),
            "done": len(done),
            "failed": sum(item["state"] == "failed" for item in mine),
            "pending": pending,
            "anomalous": sum(bool(item["anomalous"]) for item in done),
            "normal": sum(not item["anomalous"] for item in done),
            "decided": sum(item["decision"] is not None for item in mine),
        }
        shown = {name: value for name, value in self.batches[batch].items() if name != "started"}
        state = "empty" if not mine else "running" if pending else "done"
        eta = pending / rate if rate else None
        return shown | {"state": state, "counts": counts, "rate": rate, "eta_s": eta, "revision": self.revision}

    def add(self, batch: str, name: str, data: bytes, files: Files | None = None) -> dict[str, Any]:
        """One item, pending for ``seconds_per_picture`` after those before it; the same twice is the same item."""
        sha = hashlib.sha256(data).hexdigest()
        if (batch, sha, name) in self.known:
            return self.known[batch, sha, name]
        files = files or made_of(data)
        pending = sum(item["state"] == "pending" for item in self.of(batch)) if self.seconds_per_picture else 0
        position = sum(key[0] == batch for key in self.known)
        item = {
            "id": "i_" + secrets.token_hex(8),
            "batch": batch,
            "position": position,
            "name": name,
            "sha256": sha,
            "width": files.width,
            "height": files.height,
            "state": "pending",
            "score": None,
            "score_expert": None,
            "score_context": None,
            "anomalous": None,
            "level": None,
            "regions": 0,
            "error": None,
            "decision": None,
            "threshold": THRESHOLD,
            "model": MODEL["name"],
            "context": "none",
            "due": time.monotonic() + self.seconds_per_picture * (pending + 1),
        }
        self.known[batch, sha, name] = self.items[item["id"]] = item
        self.files[item["id"]] = files
        self._touch(item)
        if not self.seconds_per_picture:
            self._score(item)
        return item

    def add_findings(self, batch: str, count: int) -> None:
        """``count`` scored pictures made of a few drawn ones."""
        for index in range(count):
            self.add(batch, f"part_{index:04d}.jpg", f"{batch}{index}".encode(), drawn(index * 7 % 10))

    def decide(self, item: dict[str, Any], decision: dict[str, Any] | None) -> None:
        """Sets and tells."""
        item["decision"] = decision
        self._touch(item)

    def rescore(self, batch: str) -> None:
        """All pictures again, beside a context."""
        for index, item in enumerate(self.of(batch)):
            if item["state"] == "done":
                item |= {"state": "pending", "due": time.monotonic() + 0.4 + self.seconds_per_picture * index}
                self._touch(item)

    def record(self, item: dict[str, Any]) -> dict[str, Any]:
        """Its finding."""
        files = self.files[item["id"]]
        return {
            "schema": "anomaly-ov.finding/1",
            "id": item["name"],
            "image": {name: item[name] for name in ("width", "height", "sha256")} | {"path": item["name"]},
            "model": MODEL,
            "score_raw": item["score_expert"],
            "score": item["score"],
            "threshold": THRESHOLD,
            "anomalous": item["anomalous"],
            "level": item["level"],
            "map": {"path": None, "grid": [27, 27]},
            "regions": files.regions if item["anomalous"] else [],
            "timing_ms": {"total": 123.4},
            "error": item["error"],
            "score_expert": item["score_expert"],
            "score_context": item["score_context"],
            "context": self.batches[item["batch"]]["context"] | {"group": None, "distance": 1.2, "note": None},
        }

    def _score(self, item: dict[str, Any]) -> None:
        files, kind = self.files[item["id"]], self.batches[item["batch"]]["context"]["kind"]
        if "broken" in item["name"]:
            error = {"type": "UnreadableImage", "message": "the file ends early", "hint": "send it again"}
            item |= {"state": "failed", "error": error}
        else:
            alone = files.peak
            beside = None if kind == "none" else round(alone * 0.85, 4)
            score = alone if beside is None else beside
            item |= {
                "state": "done",
                "score": score,
                "score_expert": alone,
                "score_context": beside,
                "anomalous": score >= THRESHOLD["value"],
                "level": level_beside(score, THRESHOLD["value"]),
                "regions": len(files.regions) if score >= THRESHOLD["value"] else 0,
                "context": kind,
            }
        self._touch(item)

    def _touch(self, item: dict[str, Any]) -> None:
        self.revision += 1
        self.changed[item["id"]] = self.revision


@functools.cache
def made_of(data: bytes) -> Files:
    """What is served of a picture sent as ``data``; the same object each time, which nobody changes."""
    sha = hashlib.sha256(data).hexdigest()
    return made(Image.open(io.BytesIO(data)), int(sha[:8], 16), int(sha[8], 16) % 4)


@functools.cache
def drawn(kind: int) -> Files:
    """What is served of a picture that never was a file."""
    grey = 205 - spots(kind, 640, 480, kind % 4) * 90
    shade = np.repeat(grey[..., None], 3, 2) * np.array([1, 0.985 - 0.004 * kind, 0.95])
    return made(Image.fromarray(shade.clip(0, 255).astype(np.uint8)), kind, kind % 4)


def made(picture: Image.Image, seed: int, count: int) -> Files:
    """What is served of one picture with ``count`` spots."""
    width, height = picture.size
    scale = min(1, 1024 / max(width, height))
    map_HW = spots(seed, round(width * scale), round(height * scale), count)
    stored_HW = np.rint(map_HW * 255).astype(np.float32) / np.float32(255)
    found = regions(stored_HW, THRESHOLD["value"], (width, height))
    listed = [{"box": r.box, "area": r.area, "score": r.score, "score_mean": r.score_mean, "rle": r.rle} for r in found]
    return Files(
        webp(picture, 256), webp(picture, 1600), png(map_HW), listed, round(float(stored_HW.max()), 4), width, height
    )


def shown(item: dict[str, Any]) -> dict[str, Any]:
    """The Item object."""
    return {name: value for name, value in item.items() if name != "due"}


def refused(status: int, kind: str, message: str, **headers: str) -> JSONResponse:
    """The service's one error object."""
    error = {"type": kind, "code": kind, "message": message, "hint": "", "param": None}
    return JSONResponse({"error": error}, status, headers=headers)


class Watch:
    """Notes every request, asks for the token and adds the headers. Plain ASGI: the page has some forty files."""

    def __init__(self, app: ASGIApp, fake: Fake) -> None:
        self._app, self._fake = app, fake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, fake = Request(scope), self._fake
        path = request.url.path
        fake.seen.append((request.method, f"{path}?{request.url.query}"))

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        given = request.cookies.get("session") == "yes"
        if fake.token and path.startswith("/v1/") and path != "/v1/session" and not given:
            await refused(401, "unauthorized", "this service asks for a token")(scope, receive, send)
        else:
            await self._app(scope, receive, headed)


def create_fake(fake: Fake) -> FastAPI:
    """The application."""
    app = FastAPI()

    app.add_middleware(Watch, fake=fake)

    @app.post("/v1/session")
    async def session(body: dict[str, str]) -> Response:
        if body["token"] != fake.token:
            return refused(401, "unauthorized", "that is not the token")
        answer = Response(status_code=204)
        answer.set_cookie("session", "yes", httponly=True, samesite="strict")
        return answer

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/about")
    async def about() -> dict[str, Any]:
        return {
            "model": MODEL,
            "speaks": fake.speaks,
            "threshold": THRESHOLD,
            "map_threshold": THRESHOLD["value"],
            "limits": {"max_picture_bytes": 32 * 2**20, "max_pictures": 64},
            "version": "0.1.0",
            "palette": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette().tolist()],
            "questions": ["Is anything wrong here?", "What kind of defect is it?", "How severe is it?"],
            "token_required": fake.token is not None,
        }

    add_batches(app, fake)
    add_items(app, fake)
    add_chat(app, fake)
    app.include_router(page)
    return app


def add_batches(app: FastAPI, fake: Fake) -> None:
    """Routes of batches."""

    @app.post("/v1/batches", status_code=201)
    async def create(body: dict[str, Any]) -> dict[str, Any]:
        return fake.state(fake.new_batch(body.get("name") or "untitled"))

    @app.get("/v1/batches")
    async def batches(limit: int = 20) -> dict[str, Any]:
        await asyncio.sleep(fake.seconds_per_list)
        return {"batches": [fake.state(batch) for batch in list(fake.batches)[::-1][:limit]]}

    @app.get("/v1/batches/{batch}")
    async def one(batch: str) -> Any:
        return fake.state(batch) if batch in fake.batches else refused(404, "not_found", "no such batch")

    @app.patch("/v1/batches/{batch}")
    async def rename(batch: str, body: dict[str, str]) -> dict[str, Any]:
        fake.batches[batch]["name"] = body["name"]
        return fake.state(batch)

    @app.delete("/v1/batches/{batch}", status_code=204)
    async def delete(batch: str) -> None:
        del fake.batches[batch]

    @app.post("/v1/batches/{batch}/pictures")
    async def pictures(batch: str, request: Request) -> Any:
        if fake.busy_answers:
            fake.busy_answers -= 1
            return refused(429, "overloaded", "too many pictures are waiting", **{"Retry-After": "1"})
        taken, rejected = [], []
        for part in (await request.form()).getlist("file"):
            try:
                if "unreadable" in part.filename:
                    raise OSError
                taken.append(shown(fake.add(batch, part.filename, await part.read())))
            except OSError:
                error = {"type": "unreadable_image", "message": "this is not a picture", "hint": "send PNG or JPEG"}
                rejected.append({"name": part.filename, "error": error})
        return {"batch": fake.state(batch), "items": taken, "rejected": rejected}

    @app.put("/v1/batches/{batch}/context", status_code=202)
    async def context(batch: str, body: dict[str, Any]) -> dict[str, Any]:
        auto, kind = body["kind"] == "auto", body["kind"]
        chosen = {"kind": "folder" if auto else kind, "references": len(body.get("items", ()))}
        chosen |= {"auto": auto, "reason": "the pictures are alike" if auto else None}
        fake.batches[batch]["context"] |= chosen
        fake.rescore(batch)
        return fake.state(batch)

    @app.get("/v1/batches/{batch}/items")
    async def items(batch: str, offset: int = 0, limit: int = 200, since: int = -1, sort: str = "-score") -> Any:
        mine = [item for item in fake.of(batch) if fake.changed[item["id"]] > since]
        if sort == "-score":
            mine.sort(key=lambda item: -(item["score"] or 0))
        chosen = [shown(item) for item in mine[offset : offset + min(limit, 500)]]
        return {"items": chosen, "total": len(mine), "revision": fake.revision}

    @app.get("/v1/batches/{batch}/results")
    async def results(batch: str, format: str) -> Response:
        rows = "name,score\n" + "".join(f"{item['name']},{item['score']}\n" for item in fake.of(batch))
        disposition = f'attachment; filename="findings.{format}"'
        return Response(rows, media_type="text/csv", headers={"Content-Disposition": disposition})


def add_items(app: FastAPI, fake: Fake) -> None:
    """Routes of items."""

    @app.get("/v1/items/{item}")
    async def one(item: str) -> Any:
        if item not in fake.items:
            return refused(404, "not_found", "no such picture")
        found = fake.items[item]
        return shown(found) | {"finding": fake.record(found), "decisions": fake.history.get(item, [])}

    @app.get("/v1/items/{item}/{part}")
    async def file(item: str, part: str) -> Response:
        files = fake.files[item]
        data = {"thumbnail": files.thumbnail, "picture": files.preview, "map": files.map}[part]
        return Response(data, media_type="image/webp" if data[:4] == b"RIFF" else "image/png")

    @app.put("/v1/items/{item}/decision")
    async def decide(item: str, body: dict[str, Any]) -> dict[str, Any]:
        found = fake.items[item]
        fake.history.setdefault(item, []).append(found["decision"])
        fake.decide(found, {"verdict": body["verdict"], "note": body.get("note", ""), "at": NOW})
        return shown(found)

    @app.delete("/v1/items/{item}/decision")
    async def undo(item: str) -> dict[str, Any]:
        found = fake.items[item]
        fake.decide(found, fake.history[item].pop() if fake.history.get(item) else None)
        return shown(found)


def add_chat(app: FastAPI, fake: Fake) -> None:
    """The streamed answer."""

    @app.post("/v1/chat/completions")
    async def chat(body: dict[str, Any]) -> StreamingResponse:
        fake.questions.append(body)
        item = fake.items[body["anomaly"]["item"]]

        async def words() -> AsyncIterator[str]:
            extra: dict[str, Any] = {"anomaly": {"finding": fake.record(item), "p_yes": 0.87}}
            for word in ANSWER.split(" "):
                chunk = {"choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]} | extra
                extra = {}
                yield f"data: {json.dumps(chunk)}\n\n"
                await asyncio.sleep(fake.seconds_per_word)
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {}, 'finish_reason': 'stop'}]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(words(), media_type="text/event-stream")


class Running:
    """The stand-in on a free port of this machine, in a thread."""

    def __init__(self, app: FastAPI) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
