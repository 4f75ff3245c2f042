"""The whole story against the real service and the model that is shipped: from a dropped picture to an export."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import Page, expect

import anomaly_ov
from browser.conftest import EXAMPLES
from browser.test_page_work import drop
from serving_live_fixtures import serving

pytestmark = pytest.mark.browser

NAMES = ("blister_good", "flange_scratched", "connector_rusty")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[str]:
    with serving(anomaly_ov.load("tiny", device="cpu"), tmp_path / "data") as (url, _):
        yield url


def exported(page: Page, kind: str) -> bytes:
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.locator(f"[data-format={kind}]").click()
    return Path(download.value.path()).read_bytes()


def test_from_a_dropped_picture_to_an_exported_decision(page: Page, live: str) -> None:
    page.goto(live)
    expect(page.get_by_role("heading", name="Drop pictures here")).to_be_visible()
    drop(page, [(f"{name}.jpg", (EXAMPLES / f"{name}.jpg").read_bytes()) for name in NAMES])
    expect(page.locator(".card[data-state=done]")).to_have_count(3)

    # In the order that is seen, not of the document: the most suspicious comes first.
    page.locator(".card[aria-posinset='1']").click()
    expect(page.locator("#facts h2")).to_have_text("connector_rusty.jpg")
    expect(page.locator(".verdict-line")).to_contain_text("Anomalous")
    regions = page.locator("#region-count")
    expect(regions).to_have_text(re.compile(r"^[1-9]\d* on this picture$"))
    alphas = page.locator("canvas.map").evaluate(
        "canvas => { const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        " let least = 255, most = 0; for (let i = 3; i < data.length; i += 4) {"
        " least = Math.min(least, data[i]); most = Math.max(most, data[i]); } return [least, most]; }"
    )
    assert alphas[0] < 60 < 120 < alphas[1]

    page.locator("#score-threshold").fill("1")
    expect(regions).to_have_text(re.compile("^none this high"))
    page.locator("#score-threshold").fill("0.5")
    expect(regions).to_have_text(re.compile(r"^[1-9]\d* on this picture$"))

    page.locator(".badge").first.click()
    page.get_by_label("Question", exact=True).fill("What is the defect?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant p")).to_have_text(re.compile(r"^[A-Z].{8,}\.$"))
    expect(page.locator(".turn.user")).to_contain_text("region 1")
    answer = page.locator(".turn.assistant p").text_content() or ""
    opened = page.url

    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#review-progress")).to_have_text("1 of 3 decided")
    expect(page.locator(".verdict[data-verdict=anomalous]")).to_have_count(1)

    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(exported(page, "csv").decode("utf-8-sig")))}
    assert {name: row["decision"] for name, row in rows.items()} == {
        "blister_good.jpg": "",
        "flange_scratched.jpg": "",
        "connector_rusty.jpg": "anomalous",
    }
    assert float(rows["connector_rusty.jpg"]["map_threshold"]) == 0.5
    assert float(rows["connector_rusty.jpg"]["score"]) > float(rows["blister_good.jpg"]["score"])
    coco = json.loads(exported(page, "coco"))
    assert sorted(image["file_name"] for image in coco["images"]) == sorted(rows)
    assert len(coco["annotations"]) == sum(int(row["regions"]) for row in rows.values())
    assert len(exported(page, "jsonl").splitlines()) == 3
    assert any("overlay" in name for name in ZipFile(io.BytesIO(exported(page, "zip"))).namelist())
    assert b"connector_rusty.jpg" in exported(page, "html")

    page.keyboard.press("k")
    expect(page.locator("#facts h2")).to_have_text("connector_rusty.jpg")
    page.wait_for_url(opened)
    page.reload()
    expect(page.locator("#facts h2")).to_have_text("connector_rusty.jpg")
    expect(page.locator("[data-verdict=anomalous][aria-pressed=true]")).to_have_count(1)
    expect(page.locator("#score-threshold")).to_have_value("0.5")
    expect(page.locator(".turn.assistant p")).to_have_text(answer)
