"""Pictures out of requests, through the whole application with an inspector that only reads them."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov_server import uploads
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.requests import MOST_COMMAS
from anomaly_ov_server.settings import ServeSettings
from anomaly_ov_server.uploads import Upload, clean_name, decode_picture_url, sources_of
from serving_core_fixtures import client_of, png

B64 = base64.b64encode(png()).decode()


@pytest.fixture
def client(tmp_path: Path) -> Any:
    with client_of(tmp_path, max_pictures=3, max_picture_bytes=2000) as client:
        yield client


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [finding["id"] for finding in answer.json()["findings"]]


def kind(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["type"]


def test_files_of_a_form_in_order(client: Any) -> None:
    files = [("file", ("b.png", png(seed=1))), ("files", ("a.png", png(seed=2))), ("other", ("c.png", png()))]
    assert names(client.post("/v1/inspect", files=files, data={"note": "x"})) == ["b.png", "a.png"]
    assert names(client.post("/v1/inspect", files=[("file", ("a", png())), ("file", ("a", png()))])) == ["a", "a~2"]


def test_base64_plain_and_as_data_url(client: Any) -> None:
    images = [{"data": B64, "name": "/x/y.png"}, {"data": f"data:image/png;base64,{B64}"}]
    images.append({"url": f"DATA:image/png;base64,{B64}", "name": "z"})
    assert names(client.post("/v1/inspect", json={"images": images})) == ["y.png", "picture", "z"]


def test_a_picture_as_the_body(client: Any) -> None:
    for type_ in ("image/png", "image/made-up; q=1", "application/octet-stream", "IMAGE/PNG"):
        assert names(client.post("/v1/inspect", content=png(), headers={"Content-Type": type_})) == ["picture"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, "bad_request")),
        (b"\xff\xfe", (400, "bad_request")),
        (b"[" * 100_000, (400, "bad_request")),
        (b"null", (422, "invalid_request")),
        (b'{"images": []}', (422, "invalid_request")),
        (b'{"images": [{}]}', (422, "invalid_request")),
        (b'{"images": [{"data": 5}]}', (422, "invalid_request")),
        (b'{"images": [{"data": "!!!"}]}', (422, "invalid_request")),
        (b'{"images": [{"data": "\\u00e4"}]}', (422, "invalid_request")),
        (b'{"images": [{"data": "\\ud800"}]}', (400, "bad_request")),
        (b'{"images": [{"data": "data:image/png,abc"}]}', (422, "invalid_request")),
        (b'{"images": [{"data": "YQ==", "url": "data:;base64,YQ=="}]}', (422, "invalid_request")),
        (b'{"images": [{"url": "http://example.com/a.png"}]}', (422, "remote_images_off")),
        (b'{"images": [{"url": "file:///etc/passwd"}]}', (422, "invalid_request")),
        (b'{"images": [{"url": "/etc/passwd"}]}', (422, "invalid_request")),
        (b'{"images": [{"data": "YQ=="}], "other": 1}', (422, "invalid_request")),
        (json.dumps({"images": [{"data": "YQ=="}] * 4}).encode(), (413, "too_many_pictures")),
        (json.dumps({"images": [{"data": "A" * 4000}]}).encode(), (413, "image_too_large")),
    ],
)
def test_json_that_is_not_as_described(client: Any, body: bytes, expected: tuple[int, str]) -> None:
    answer = client.post("/v1/inspect", content=body, headers={"Content-Type": "application/json"})
    assert kind(answer) == expected, answer.text


def test_forms_that_are_not_as_described(client: Any) -> None:
    many = [("file", (f"{i}.png", png())) for i in range(4)]
    assert kind(client.post("/v1/inspect", files=many)) == (413, "too_many_pictures")
    assert kind(client.post("/v1/inspect", files=[("file", ("a", b"x" * 2001))])) == (413, "image_too_large")
    assert kind(client.post("/v1/inspect", files=[("other", ("a", png()))])) == (422, "invalid_request")
    text = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--x--\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert kind(client.post("/v1/inspect", content=text, headers=form)) == (422, "invalid_request")
    for broken in (b"", b"nonsense", text[:30], text.replace(b'name="file"', b"")):
        assert client.post("/v1/inspect", content=broken, headers=form).status_code in (400, 422)
    no_boundary = {"Content-Type": "multipart/form-data"}
    assert client.post("/v1/inspect", content=text, headers=no_boundary).status_code == 400


def test_bodies_of_other_types_and_sizes(client: Any) -> None:
    assert kind(client.post("/v1/inspect", content=b"a", headers={"Content-Type": "text/plain"}))[0] == 415
    assert kind(client.post("/v1/inspect"))[0] == 415
    large = client.post("/v1/inspect", content=b"x" * 2001, headers={"Content-Type": "image/png"})
    assert kind(large) == (413, "image_too_large")
    chunked = client.post("/v1/inspect", content=iter([b"x" * 1500] * 2), headers={"Content-Type": "image/png"})
    assert kind(chunked) == (413, "image_too_large")


def test_pictures_of_a_request_are_bounded_together(tmp_path: Path) -> None:
    settings = ServeSettings(data=tmp_path, max_request_bytes=100)
    body = json.dumps({"images": [{"data": base64.b64encode(b"x" * 60).decode()}] * 2}).encode()
    with pytest.raises(Fault) as refused:
        asyncio.run(uploads._of_json(body, settings))
    assert refused.value.status == 413


@pytest.mark.parametrize("path", ["/v1/inspect", "/v1/chat/completions"])
def test_json_of_very_many_values_is_not_parsed(client: Any, path: str) -> None:
    """Two bytes of a list become a hundred in memory."""
    body = b'{"images": [' + b"0," * MOST_COMMAS + b'0], "messages": []}'
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert kind(answer) == (413, "too_large")
    wrong = client.post("/v1/inspect", json={"images": [0, 0, 0]})
    assert kind(wrong) == (422, "invalid_request")


def test_fetched_pictures_of_a_question_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def fetched(url: str, max_bytes: int) -> bytes:
        asked.append(url)
        return b"x" * 1500

    monkeypatch.setattr(uploads, "fetch", fetched)
    parts = [{"type": "image_url", "image_url": {"url": f"https://example.com/{k}"}} for k in range(5)]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "Is there a defect?"}]}]
    with client_of(tmp_path, remote_images=True, max_request_bytes=4000) as client:
        assert kind(client.post("/v1/chat/completions", json={"messages": messages})) == (413, "too_large")
    assert len(asked) == 3


def test_quotes_in_file_names_come_back_from_what_browsers_make_of_them(client: Any) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="3%22 \xc3\xa4%0D%0A100%.png"\r\n\r\n'
    body = head + png() + b"\r\n--x--\r\n"
    answer = client.post("/v1/inspect", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert names(answer) == ['3" ä__100%.png']


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("a.png", "a.png"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\x.png", "x.png"),
        ("a/..", "picture"),
        ("", "picture"),
        (None, "picture"),
        ("a\r\nb\x00\u202ec", "a__b__c"),
        ("\ud800.png", "_.png"),
        ("ä ö.png", "ä ö.png"),
        ("x" * 500, "x" * 200),
    ],
)
def test_names_become_plain(name: str | None, cleaned: str) -> None:
    assert clean_name(name) == cleaned


def test_names_become_unique() -> None:
    given = [Upload(name, b"") for name in ("a", "a", "a~2", "b", "a")]
    assert [source.id for source in sources_of(given)] == ["a", "a~2", "a~2~2", "b", "a~3"]


def test_addresses_are_fetched_only_where_that_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def fetched(url: str, max_bytes: int) -> bytes:
        asked.append((url, max_bytes))
        return b"data"

    monkeypatch.setattr(uploads, "fetch", fetched)
    on = ServeSettings(data=tmp_path, remote_images=True, max_picture_bytes=7)
    url = "https://example.com/a/b.png?c=/d"
    assert asyncio.run(decode_picture_url(url, on)) == Upload("b.png", b"data")
    assert asked == [(url, 7)]
    with pytest.raises(Fault) as refused:
        asyncio.run(decode_picture_url(url, ServeSettings(data=tmp_path)))
    assert refused.value.type == "remote_images_off"
    assert len(asked) == 1
