"""Batches and items over HTTP: from an upload to a decision, contexts, lists, images, and every kind of nonsense."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from anomaly_ov.inspector import Inspector
from anomaly_ov_server.app import create_app
from anomaly_ov_server.settings import ServeSettings
from anomaly_ov_server.store.store import StoreLimits
from model_fixtures import small_model
from serving_store_fixtures import png

Json = dict[str, Any]


def noise(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = ServeSettings(data=tmp_path_factory.mktemp("serve"), max_pictures=8, max_picture_bytes=100_000)
    app = create_app(Inspector(small_model(), device="cpu"), settings)
    with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as opened:
        yield opened


def form(*files: tuple[str, bytes]) -> list[Any]:
    return [("file", (name, data, "image/png")) for name, data in files]


def done(client: TestClient, batch: str) -> Json:
    for _ in range(1000):
        read: Json = client.get(f"/v1/batches/{batch}").json()
        if read["state"] != "running":
            return read
        time.sleep(0.01)
    raise AssertionError("it takes too long")


@pytest.fixture
def batch(client: TestClient) -> str:
    files = form(*((f"part {seed}.png", noise(seed)) for seed in range(4)))
    created = client.post("/v1/batches", files=files)
    assert created.status_code == 201
    return str(done(client, created.json()["id"])["id"])


def items(client: TestClient, batch: str, **query: Any) -> list[Json]:
    found: list[Json] = client.get(f"/v1/batches/{batch}/items", params=query).json()["items"]
    return found


def test_a_batch_from_json_grows_by_uploads(client: TestClient) -> None:
    created = client.post("/v1/batches", json={"name": "line 1"}).json()
    assert (created["name"], created["state"], created["counts"]["total"]) == ("line 1", "empty", 0)
    assert created["model"]["name"] == "small"
    assert created["context"] == {
        "kind": "none", "source": None, "references": None, "state": "ready", "error": None, "auto": True,
        "reason": "there are fewer than 8 pictures, so each is judged by itself",
    }  # fmt: skip
    added = client.post(
        f"/v1/batches/{created['id']}/pictures",
        files=form(("a.png", noise(1)), ("b.txt", b"text"), ("c.png", noise(2)[:90])),
    )
    assert added.status_code == 200
    body = added.json()
    assert [item["name"] for item in body["items"]] == ["a.png", "c.png"]
    assert [one["name"] for one in body["rejected"]] == ["b.txt"]
    assert body["batch"]["state"] == "running"
    encoded = base64.b64encode(noise(3)).decode()
    path = f"/v1/batches/{created['id']}/pictures"
    for _ in range(2):
        assert client.post(path, json={"images": [{"name": "d.png", "data": encoded}]}).status_code == 200
    read = done(client, created["id"])
    assert read["counts"] | {"anomalous": 0, "normal": 0} == {
        "total": 3, "done": 2, "failed": 1, "pending": 0, "anomalous": 0, "normal": 0, "decided": 0,
    }  # fmt: skip
    assert read["rate"] is None
    assert client.get("/v1/batches", params={"limit": 1}).json()["batches"] == [read]
    (failed,) = items(client, created["id"], show="failed")
    assert failed["error"]["type"] == "UnreadableImage"
    assert client.get(f"/v1/items/{failed['id']}/map").status_code == 404


def test_renaming_and_deleting(client: TestClient, batch: str) -> None:
    revision = client.get(f"/v1/batches/{batch}").json()["revision"]
    renamed = client.patch(f"/v1/batches/{batch}", json={"name": "night \u0007shift"}).json()
    assert renamed["name"] == "night shift"
    assert renamed["revision"] > revision
    (item, *_) = items(client, batch)
    assert client.delete(f"/v1/batches/{batch}").status_code == 204
    for path in (f"/v1/batches/{batch}", f"/v1/batches/{batch}/items", f"/v1/items/{item['id']}"):
        reply = client.get(path)
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found")


def test_an_item_with_record_and_images(client: TestClient, batch: str) -> None:
    item = items(client, batch)[0]
    read = client.get(f"/v1/items/{item['id']}").json()
    assert {name: read[name] for name in item} == item
    assert read["finding"]["schema"] == "anomaly-ov.finding/1"
    assert read["finding"]["score"] == item["score"]
    assert (read["finding"]["image"]["path"], item["width"], item["height"]) == (item["name"], 70, 50)
    assert item["context"] == "none"
    sizes = {}
    for part in ("thumbnail", "picture", "map", "overlay"):
        reply = client.get(f"/v1/items/{item['id']}/{part}")
        assert reply.status_code == 200
        with Image.open(io.BytesIO(reply.content)) as image:
            assert f"image/{(image.format or '').lower()}" == reply.headers["content-type"]
            sizes[part] = image.size
    assert sizes["thumbnail"] == sizes["picture"] == sizes["map"] == (70, 50)
    assert sizes["overlay"][0] > 400


def test_images_are_not_sent_again(client: TestClient, batch: str) -> None:
    path = f"/v1/items/{items(client, batch)[0]['id']}/map"
    tag = client.get(path).headers["etag"]
    again = client.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_decisions_go_back_step_by_step(client: TestClient, batch: str) -> None:
    item = items(client, batch)[1]
    path = f"/v1/items/{item['id']}/decision"
    assert client.put(path, json={"verdict": "anomalous", "note": "scratch"}).json()["decision"]["note"] == "scratch"
    assert client.put(path, json={"verdict": "normal"}).json()["decision"]["verdict"] == "normal"
    assert [one["id"] for one in items(client, batch, show="decided")] == [item["id"]]
    assert items(client, batch, sort="decision")[0]["id"] == item["id"]
    assert client.get(f"/v1/batches/{batch}").json()["counts"]["decided"] == 1
    assert client.delete(path).json()["decision"]["verdict"] == "anomalous"
    assert client.delete(path).json()["decision"] is None
    assert client.delete(path).json()["decision"] is None
    steps = client.get(f"/v1/items/{item['id']}").json()["decisions"]
    assert [step["action"] for step in steps] == ["decide", "decide", "undo", "undo"]


def test_since_tells_what_changed(client: TestClient, batch: str) -> None:
    revision = client.get(f"/v1/batches/{batch}/items").json()["revision"]
    assert items(client, batch, since=revision) == []
    item = items(client, batch, sort="position")[2]
    client.put(f"/v1/items/{item['id']}/decision", json={"verdict": "unsure"})
    assert [one["id"] for one in items(client, batch, since=revision)] == [item["id"]]


def test_thresholds_and_pages(client: TestClient, batch: str) -> None:
    everything = items(client, batch)
    scores = [one["score"] for one in everything]
    assert scores == sorted(scores, reverse=True)
    middle = (scores[1] + scores[2]) / 2
    assert [one["score"] for one in items(client, batch, show="anomalous", threshold=middle)] == scores[:2]
    assert all(not one["anomalous"] for one in items(client, batch, show="normal", threshold=middle))
    page = client.get(f"/v1/batches/{batch}/items", params={"offset": 1, "limit": 2, "q": "PART"}).json()
    assert ([one["score"] for one in page["items"]], page["total"]) == (scores[1:3], 4)


def test_references_have_the_batch_scored_anew(client: TestClient, batch: str) -> None:
    chosen = [one["id"] for one in items(client, batch, sort="position")[:2]]
    changed = client.put(f"/v1/batches/{batch}/context", json={"kind": "references", "items": chosen})
    assert changed.status_code == 202
    assert changed.json()["state"] == "running"
    read = done(client, batch)
    assert (read["context"]["kind"], read["context"]["state"], read["context"]["references"]) == (
        "references",
        "ready",
        2,
    )
    late = items(client, batch, sort="position")[3]
    assert late["score_context"] is not None
    assert late["context"].startswith("c_")
    assert client.put(f"/v1/batches/{batch}/context", json={"kind": "folder"}).status_code == 202
    assert done(client, batch)["context"]["kind"] == "folder"
    assert client.put(f"/v1/batches/{batch}/context", json={"kind": "none"}).json()["state"] == "done"
    assert items(client, batch, sort="position")[3]["score_context"] is None
    again = client.put(f"/v1/batches/{batch}/context", json={"kind": "auto"}).json()
    assert (again["context"]["auto"], again["context"]["kind"], again["state"]) == (True, "none", "done")


@pytest.mark.parametrize(
    ("method", "path", "send", "status"),
    [
        ("POST", "/v1/batches", {"json": {"nam": "x"}}, 422),
        ("POST", "/v1/batches", {"json": {"name": 3}}, 422),
        ("POST", "/v1/batches", {"json": {"name": "x" * 201}}, 422),
        ("POST", "/v1/batches", {"json": [1]}, 422),
        ("POST", "/v1/batches", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        (
            "POST",
            "/v1/batches",
            {"content": b'{"name":"\\ud800"}', "headers": {"content-type": "application/json"}},
            400,
        ),
        ("POST", "/v1/batches", {"content": b"name=x"}, 415),
        ("POST", "/v1/batches", {"content": b" " * 70_000, "headers": {"content-type": "application/json"}}, 413),
        ("POST", "/v1/batches", {"files": {"file": ("a.png", png(1) + b" " * 100_001)}}, 413),
        ("GET", "/v1/batches?limit=0", {}, 422),
        ("GET", "/v1/batches?limit=1e99", {}, 422),
        ("GET", "/v1/batches/%00", {}, 404),
        ("GET", "/v1/batches/b_1/items?offset=99999999999999999999", {}, 422),
        ("GET", "/v1/batches/b_1/items?sort=name;drop", {}, 422),
        ("GET", "/v1/batches/{b}/items?threshold=nan", {}, 422),
        ("GET", "/v1/batches/{b}/items?threshold=1.1", {}, 422),
        ("GET", "/v1/batches/{b}/items?since=-1", {}, 422),
        ("GET", "/v1/batches/{b}/items?since=9007199254740991&offset=9007199254740991&q=%00%25_%5C%27", {}, 200),
        ("PUT", "/v1/batches/{b}/context", {"json": {"kind": "references", "items": []}}, 422),
        ("PUT", "/v1/batches/{b}/context", {"json": {"kind": "references", "items": ["i_x"]}}, 422),
        ("PUT", "/v1/batches/{b}/context", {"json": {"kind": "file", "path": "/etc/passwd"}}, 422),
        ("PUT", "/v1/batches/nope/context", {"json": {"kind": "none"}}, 404),
        ("PATCH", "/v1/batches/{b}", {"json": {"name": ""}}, 422),
        ("DELETE", "/v1/batches/nope", {}, 404),
        ("POST", "/v1/batches/nope/pictures", {"files": {"file": ("a.png", png(1))}}, 404),
        ("POST", "/v1/batches/{b}/pictures", {"json": {"images": []}}, 422),
        ("PUT", "/v1/items/nope/decision", {"json": {"verdict": "normal"}}, 404),
        ("PUT", "/v1/items/{i}/decision", {"json": {"verdict": "perfect"}}, 422),
        ("PUT", "/v1/items/{i}/decision", {"json": {"verdict": "normal", "note": "x" * 2001}}, 422),
        ("GET", "/v1/items/nope/overlay", {}, 404),
        ("GET", "/v1/items/{i}/overlay?map_threshold=2", {}, 422),
        ("GET", "/v1/items/{i}/overlay?threshold=nan", {}, 422),
        ("GET", "/v1/items/..%2f..%2fetc%2fpasswd/thumbnail", {}, 404),
    ],
)
def test_nonsense_is_refused(
    client: TestClient, one_batch: tuple[str, str], method: str, path: str, send: Json, status: int
) -> None:
    reply = client.request(method, path.format(b=one_batch[0], i=one_batch[1]), **send)
    assert reply.status_code == status, reply.text
    if status >= 400:
        assert reply.json()["error"].keys() == {"type", "code", "message", "hint", "param"}


@pytest.fixture(scope="module")
def one_batch(client: TestClient) -> tuple[str, str]:
    created = client.post("/v1/batches", files=form(("a.png", noise(1))))
    batch = created.json()["id"]
    return batch, items(client, batch)[0]["id"]


def test_a_batch_whose_pictures_do_not_fit_is_not_made(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    store = client.app.state.service.store  # type: ignore[attr-defined]
    before = len(client.get("/v1/batches").json()["batches"])
    monkeypatch.setattr(store, "limits", StoreLimits(max_items=1))
    reply = client.post("/v1/batches", files=form(("a.png", noise(1)), ("b.png", noise(2))))
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "batch_full")
    assert len(client.get("/v1/batches").json()["batches"]) == before


def test_no_path_of_the_machine_is_told(client: TestClient, batch: str) -> None:
    root = str(client.app.state.service.settings.data)  # type: ignore[attr-defined]
    for item in items(client, batch):
        assert root not in client.get(f"/v1/items/{item['id']}").text
    assert root not in json.dumps(client.get("/v1/batches").json())


def test_decisions_and_scores_outlive_the_process(tmp_path: Path) -> None:
    inspector = Inspector(small_model(), device="cpu")
    seen = []
    for turn in range(2):
        app = create_app(inspector, ServeSettings(data=tmp_path))
        with TestClient(app, base_url="http://localhost") as client:
            if not turn:
                batch = client.post("/v1/batches", files=form(("a.png", noise(1)))).json()["id"]
                done(client, batch)
                (item,) = items(client, batch)
                client.put(f"/v1/items/{item['id']}/decision", json={"verdict": "unsure", "note": "ask"})
            seen.append(client.get(f"/v1/items/{item['id']}").json())
    assert seen[0] == seen[1]
    assert seen[0]["decision"]["note"] == "ask"
