"""The download of a batch: its formats, its name, the thresholds chosen for it, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from anomaly_ov_server import faults
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.reviewed import Reviewed
from anomaly_ov_server.routes.results import attachment, router
from anomaly_ov_server.store.rows import Batch, BatchContext, Counts, ScoredBy, ThresholdUsed
from serving_export_fixtures import AT, MODEL, THRESHOLD, batch

URL = "/v1/batches/b_1/results"


class FakeStore:
    """One batch, called b_1."""

    def __init__(self, rows: list[Reviewed], scored_by: ScoredBy | None) -> None:
        self.rows, self.scored_by, self.name = rows, scored_by, "Line 3: night/day"

    def batch(self, batch: str) -> Batch:
        if batch != "b_1":
            raise Fault(404, "not_found", "there is no such batch")
        context = BatchContext("none", None, None, "ready")
        return Batch("b_1", 1, self.name, AT, 1, Counts(total=len(self.rows)), context, "none", self.scored_by)

    def reviewed(self, batch: str) -> Iterator[Reviewed]:
        return iter(self.rows)


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    used = ThresholdUsed(THRESHOLD.value, THRESHOLD.source)
    model = {"name": "tiny", "revision": "abc123", "device": "cpu", "dtype": "float32"}
    return FakeStore(batch(tmp_path), ScoredBy(model, used))


@pytest.fixture
def client(store: FakeStore) -> TestClient:
    app = FastAPI()
    inspector = SimpleNamespace(info=MODEL, threshold=THRESHOLD)
    app.state.service = SimpleNamespace(store=store, inspector=inspector)
    faults.install(app)
    app.include_router(router)
    return TestClient(app, raise_server_exceptions=False)


def lines(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get(URL, params=query).text.splitlines()]


@pytest.mark.parametrize(
    ("format", "media_type", "start", "ending"),
    [
        ("jsonl", "application/x-ndjson", b'{"schema"', "jsonl"),
        ("csv", "text/csv; charset=utf-8", b"\xef\xbb\xbfposition", "csv"),
        ("coco", "application/json", b'{"info"', "coco.json"),
        ("zip", "application/zip", b"PK", "zip"),
        ("html", "text/html; charset=utf-8", b"", "html"),
    ],
)
def test_formats(client: TestClient, format: str, media_type: str, start: bytes, ending: str) -> None:
    reply = client.get(URL, params={"format": format})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == media_type
    assert reply.content.startswith(start)
    assert reply.headers["content-disposition"] == (
        f"attachment; filename=\"Line 3_ night_day.{ending}\"; filename*=UTF-8''Line%203_%20night_day.{ending}"
    )
    assert reply.headers["cache-control"] == "no-store"


def test_html_is_a_page(client: TestClient) -> None:
    text = client.get(URL, params={"format": "html"}).text
    assert text.strip().startswith("<!doctype html>")
    assert text.strip().endswith("</html>")


@pytest.mark.parametrize("query", [{"threshold": "0.25", "map_threshold": "0.8"}, {"map_threshold": "0.25"}])
def test_a_threshold_chosen_holds_in_every_file_of_the_zip(client: TestClient, query: dict[str, str]) -> None:
    reply = client.get(URL, params={"format": "zip"} | query)
    with zipfile.ZipFile(io.BytesIO(reply.content)) as file:
        found = [json.loads(line) for line in file.read("findings.jsonl").splitlines()]
        assert [one["anomalous"] for one in found] == [True, True, True, False, True, None, None]
        assert found[0]["threshold"] == {"value": 0.25, "source": "chosen on export"}
        assert found[0]["map_threshold"] == {"value": 0.25, "source": "chosen on export"}
        assert [len(one["regions"]) for one in found] == [2, 1, 2, 0, 2, 0, 0]
        labelled = json.loads(file.read("coco.json"))
        assert len(labelled["annotations"]) == 7
        assert labelled["info"]["threshold"]["source"] == "chosen on export"
        assert file.read("decisions.csv").count(b"chosen on export") == 10
        assert file.read("report.html").count(b"(chosen on export)") == 1


def test_without_thresholds_what_was_found_is_kept(client: TestClient, store: FakeStore) -> None:
    found = lines(client)
    assert found[0]["threshold"] == {"value": 0.5, "source": THRESHOLD.source}
    assert store.rows[0].record is not None
    assert found[0]["regions"] == store.rows[0].record["regions"]
    assert [one["state"] for one in found] == ["done"] * 5 + ["failed", "pending"]


def test_a_batch_without_findings_names_the_model_that_waits(client: TestClient, store: FakeStore) -> None:
    store.scored_by, store.rows = None, store.rows[6:]
    (found,) = lines(client)
    assert found["model"]["name"] == "tiny"
    assert found["score"] is None
    store.rows = []
    for format in ("jsonl", "csv", "coco", "zip", "html"):
        assert client.get(URL, params={"format": format}).status_code == 200


@pytest.mark.parametrize(
    "query",
    [{"format": "exe"}, {"threshold": "2"}, {"threshold": "nan"}, {"map_threshold": "-1"}, {"map_threshold": "inf"}],
)
def test_nonsense_is_refused(client: TestClient, query: dict[str, str]) -> None:
    reply = client.get(URL, params=query)
    assert reply.status_code == 422
    assert next(iter(query)) in json.dumps(reply.json())


def test_no_such_batch(client: TestClient) -> None:
    assert client.get("/v1/batches/b_2/results").status_code == 404


def test_a_lost_map_is_refused_before_anything_is_sent(client: TestClient, store: FakeStore) -> None:
    assert store.rows[0].map_path is not None
    store.rows[0].map_path.unlink()
    reply = client.get(URL, params={"threshold": "0.5"})
    assert reply.status_code == 422
    assert "scratch.png" in reply.json()["error"]["message"]
    assert str(store.rows[0].map_path.parent) not in reply.text
    assert client.get(URL).status_code == 200


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\r\nSet-Cookie: x", "a_Set-Cookie_ x.csv"),
        ('a"; filename="b', "a_ filename=_b.csv"),
        ("../../etc/passwd", "etc_passwd.csv"),
        ("...", "batch.csv"),
        ("", "batch.csv"),
        ("\udcff", "batch.csv"),
    ],
)
def test_file_names_are_safe(name: str, expected: str) -> None:
    value = attachment(name, "csv")
    assert value.startswith(f'attachment; filename="{expected}"; ')
    assert value.isascii()
    assert value.isprintable()


def test_file_names_keep_their_letters() -> None:
    assert attachment("Gehäuse", "csv").endswith("filename*=UTF-8''Geh%C3%A4use.csv")
    assert 'filename="Geh_use.csv"' in attachment("Gehäuse", "csv")
