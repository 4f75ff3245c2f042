from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from anomaly_ov_server.routes import page
from anomaly_ov_server.routes.page import EXAMPLES, FILES, router

PAGE = resources.files("anomaly_ov_server").joinpath("page")
CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


def test_the_list_is_what_there_is(client: TestClient) -> None:
    own = {path.name for path in PAGE.iterdir() if path.is_file()} - {"index.html"}
    assert own | {f"examples/{path.name}" for path in CHECKOUT.glob("examples/*.jpg")} == FILES
    kinds = {client.get(f"/static/{name}").headers["content-type"] for name in FILES}
    assert kinds == {"text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml", "image/jpeg"}


def test_the_page_and_a_reload_that_costs_nothing(client: TestClient) -> None:
    first = client.get("/")
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "..%2fapp.py", "examples%2f..%2fapi.js", "examples"])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_nothing_inline_and_nothing_from_elsewhere(client: TestClient) -> None:
    html = client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    named = set(re.findall(r'(?:src|href)="/static/([^"]+)"', html))
    assert named <= FILES
    for name in FILES:
        if name.endswith((".css", ".js")):
            text = PAGE.joinpath(*name.split("/")).read_text()
            elsewhere = set(re.findall(r"https?://[\w./]+", text)) - {"http://www.w3.org/2000/svg"}
            assert not elsewhere, name
            assert not re.search(r"\.innerHTML|\.outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
            assert text.count("\n") <= 400, name


def test_every_imported_module_is_served() -> None:
    for name in FILES:
        if name.endswith(".js"):
            imported = re.findall(r'from "\./([\w-]+\.js)"', PAGE.joinpath(name).read_text())
            assert set(imported) <= FILES, name


def test_every_element_that_scripts_look_for_exists() -> None:
    html = PAGE.joinpath("index.html").read_text()
    scripts = "".join(PAGE.joinpath(name).read_text() for name in FILES if name.endswith(".js"))
    made = set(re.findall(r'\bid: "([\w-]+)"', scripts)) | set(re.findall(r'\bid="([\w-]+)"', html))
    assert set(re.findall(r'byId\("([\w-]+)"\)', scripts)) <= made


def test_the_examples_are_those_of_the_checkout_and_a_wheel_brings_them_along(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EXAMPLES:
        assert client.get(f"/static/{name}").content == (CHECKOUT / name).read_bytes()
    hatch = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert hatch["force-include"] == {name: f"anomaly_ov_server/page/{name}" for name in EXAMPLES}
    packed = tmp_path / "page" / EXAMPLES[0]
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"packed")
    monkeypatch.setattr(page.resources, "files", lambda _: tmp_path)
    assert page._file.__wrapped__(EXAMPLES[0])[0] == b"packed"
