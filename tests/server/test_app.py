"""The application as a client sees it: findings, maps, health, and an OpenAPI document that says what is true."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from anomaly_ov.inspector import Inspector
from model_fixtures import small_model
from serving_core_fixtures import FakeInspector, client_of, png

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def client(tmp_path: Path) -> Any:
    with client_of(tmp_path) as client:
        yield client


def test_a_finding_as_its_schema_says(client: Any) -> None:
    document = client.get("/openapi.json").json()
    (finding,) = client.post("/v1/inspect", content=png(), headers=PNG).json()["findings"]
    reply = {"$ref": "#/components/schemas/Findings", "components": document["components"]}
    jsonschema.Draft202012Validator(reply).validate({"findings": [finding]})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(reply).validate({"findings": [finding | {"score": "high"}]})
    assert (finding["schema"], finding["score"]) == ("anomaly-ov.finding/1", 0.25)
    assert "map_data" not in finding


def test_one_unreadable_picture_is_an_error_and_among_several_a_record(client: Any) -> None:
    alone = client.post("/v1/inspect", content=b"text", headers=PNG)
    assert (alone.status_code, alone.json()["error"]["type"]) == (422, "unreadable_image")
    files = [("file", ("good.png", png())), ("file", ("bad.png", b"text"))]
    answer = client.post("/v1/inspect?map=png", files=files)
    good, bad = answer.json()["findings"]
    assert answer.status_code == 200
    assert (good["error"], bad["error"]["type"]) == (None, "UnreadableImage")
    assert bad["map_data"] is None


def test_maps_in_both_forms(client: Any) -> None:
    def map_of(format: str) -> bytes:
        answer = client.post(f"/v1/inspect?map={format}", content=png(), headers=PNG)
        return base64.b64decode(answer.json()["findings"][0]["map_data"])

    grey = np.asarray(Image.open(io.BytesIO(map_of("png"))))
    assert (grey.shape, grey.dtype, int(grey[0, 0])) == ((4, 6), np.uint8, 128)
    values = np.load(io.BytesIO(map_of("npy")), allow_pickle=False)
    assert (values.shape, values.dtype, float(values[0, 0])) == ((4, 6), np.float32, 0.5)
    wrong = client.post("/v1/inspect?map=jpeg", content=png(), headers=PNG)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "map")


def test_what_the_service_is(client: Any) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "model": "fake", "queue": 0}
    about = client.get("/v1/about").json()
    assert about["threshold"] == {"value": 0.5, "source": "test"}
    assert (len(about["palette"]), about["palette"][0][0]) == (256, "#")
    assert about["speaks"] is False
    assert about["questions"] == ["Is there a defect?", "Where?", "How big?", "How sure?", "Why?"], "of the record"
    assert about["limits"]["max_pictures"] == 64


def test_without_a_token_there_is_nothing_to_sign_in_to_but_it_does_no_harm(client: Any) -> None:
    assert client.post("/v1/session", json={"token": "x"}).status_code == 204
    assert client.post("/v1/session", json={"token": 5}).status_code == 422
    assert client.post("/v1/session", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400


def test_every_route_documents_its_refusals(client: Any) -> None:
    document = client.get("/openapi.json").json()
    assert {"/healthz", "/v1/inspect", "/v1/batches", "/v1/chat/completions"} <= document["paths"].keys()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert {"405", "413", "422", "429", "503"} <= operation["responses"].keys(), f"{method} {path}"
    body = document["paths"]["/v1/inspect"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/json", "image/*"} <= body.keys()

    def references(value: Any) -> Any:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                yield from references(one)

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


def test_the_engine_ends_with_the_application(tmp_path: Path) -> None:
    with client_of(tmp_path) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        assert service.takes_work
    assert not service.takes_work
    with client_of(tmp_path, FakeInspector()) as again:  # and lets the folder go
        assert again.get("/healthz").status_code == 200


def test_with_real_networks(tmp_path: Path) -> None:
    inspector = Inspector(small_model(), device="cpu")
    picture = png(60, 40, seed=3)
    with client_of(tmp_path, inspector) as client:
        (finding,) = client.post("/v1/inspect", content=picture, headers=PNG).json()["findings"]
    alone = inspector.inspect(picture).to_json()
    assert finding["score"] == pytest.approx(alone["score"], abs=1e-6)
    assert finding["image"]["sha256"] == alone["image"]["sha256"]
