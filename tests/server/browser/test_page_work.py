"""From a dropped picture to an exported decision, in a real browser."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from browser.conftest import EXAMPLES
from browser.fake_server import ANSWER, Fake

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=window.owned=1>'&lt;b>.jpg"
DROP = """([files]) => {
  const transfer = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: name.endsWith(".txt") ? "text/plain" : "image/jpeg" }));
  }
  for (const type of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""
PASTE = """([name, data]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { bubbles: true, clipboardData: transfer }));
}"""


def drop(page: Page, files: list[tuple[str, bytes]]) -> None:
    page.evaluate(DROP, [[[name, base64.b64encode(data).decode()] for name, data in files]])


@functools.cache
def example(name: str) -> bytes:
    """A small one: how long the stand-in takes for it is nobody's concern here."""
    data = io.BytesIO()
    Image.open(EXAMPLES / f"{name}.jpg").resize((160, 120)).save(data, "JPEG")
    return data.getvalue()


def cards(page: Page) -> Any:
    return page.locator(".card")


def open_batch(page: Page, server: str, batch: str, more: str = "") -> None:
    page.goto(f"{server}/#b={batch}{more}")
    expect(cards(page).first).to_be_visible()


def open_first(page: Page) -> None:
    cards(page).first.click()
    expect(page.locator("#region-count")).to_have_text(re.compile("on this picture|none this high"))


def until(page: Page, true: Callable[[], bool]) -> None:
    """Lets the page go on until what it sends has arrived."""
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(20)
    assert true()


def decisions(fake: Fake) -> dict[str, str]:
    return {item["name"]: item["decision"]["verdict"] for item in fake.items.values() if item["decision"]}


def bodies(fake: Fake, method: str, part: str) -> list[str]:
    return [path for seen, path in fake.seen if seen == method and part in path]


def test_dropped_pictures_are_sent_in_parts_scored_and_shown(page: Page, server: str, fake: Fake) -> None:
    page.goto(server)
    expect(page.get_by_role("heading", name="Drop pictures here")).to_be_visible()
    picture = example("blister_good")
    drop(page, [(f"p{index:02}.jpg", picture + bytes([index])) for index in range(19)] + [("notes.txt", b"x")])
    expect(cards(page)).to_have_count(19)
    assert len(bodies(fake, "POST", "/pictures")) == 3
    expect(page.locator("#upload-tray")).to_contain_text("1 other file left out")
    scores = [float(text) for text in page.locator(".card .score").all_text_contents()]
    assert len(scores) == 19
    assert page.locator(".card").evaluate_all("all => all.every((card) => card.role === 'option')")


def test_what_is_dropped_before_the_page_is_ready_is_not_lost(page: Page, server: str, fake: Fake) -> None:
    fake.seconds_per_list = 0.3
    page.goto(server)
    drop(page, [("early.jpg", example("blister_good"))])
    expect(cards(page)).to_have_count(1)


def test_a_bare_address_leads_to_the_only_batch_and_to_the_start_where_there_are_several(
    page: Page, server: str, batch: str, fake: Fake
) -> None:
    page.goto(server)
    expect(cards(page)).to_have_count(8)
    page.get_by_role("button", name="Anomaly-OV").click()
    expect(page.locator("#provenance")).to_contain_text("threshold 0.50 (default)")
    fake.add(fake.new_batch("Second"), "one.jpg", example("flange_good"))
    page.goto("about:blank")
    page.goto(server)
    expect(page.locator(".recent .entry")).to_have_count(2)
    page.locator(".recent .entry", has_text="Second").click()
    expect(cards(page)).to_have_count(1)


def test_a_busy_service_is_asked_again_when_it_says_so(page: Page, server: str, fake: Fake) -> None:
    fake.busy_answers = 1
    page.goto(server)
    drop(page, [("one.jpg", example("flange_good"))])
    expect(page.locator("#upload-tray")).to_contain_text("The service is busy")
    expect(cards(page)).to_have_count(1)
    assert len(bodies(fake, "POST", "/pictures")) == 2


def test_pasted_and_example_pictures(page: Page, server: str) -> None:
    page.goto(server)
    page.evaluate(PASTE, ["pasted.jpg", base64.b64encode(example("flange_good")).decode()])
    expect(cards(page)).to_have_count(1)
    page.get_by_role("button", name="Anomaly-OV").click()
    page.get_by_role("button", name="Try the examples").click()
    expect(cards(page)).to_have_count(8)


def test_refused_and_failed_pictures_say_why(page: Page, server: str) -> None:
    page.goto(server)
    broken, good = example("flange_good"), example("connector_good")
    drop(page, [("unreadable.jpg", b"x"), ("broken.jpg", broken), ("good.jpg", good)])
    expect(page.locator("#upload-tray")).to_contain_text("this is not a picture")
    failed = page.locator(".card[data-state=failed]")
    expect(failed).to_contain_text("the file ends early")
    failed.click()
    expect(page.locator("#facts")).to_contain_text("send it again")


def test_hostile_names_stay_text(page: Page, server: str) -> None:
    page.goto(server)
    drop(page, [(HOSTILE, example("flange_scratched"))])
    cards(page).first.click()
    expect(page.locator("#facts h2")).to_have_text(HOSTILE)
    assert page.evaluate("window.owned") is None


def test_overlay_opacity_and_wipe(page: Page, server: str, batch: str) -> None:
    open_batch(page, server, batch)
    open_first(page)
    painted = page.locator("canvas.map").evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v > 200)"
    )
    assert painted
    page.locator("#opacity").fill("0.2")
    expect(page.locator(".after")).to_have_css("opacity", "0.2")
    page.keyboard.press("w")
    expect(page.locator(".wipe")).to_be_visible()
    page.locator(".wipe").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".wipe")).to_have_attribute("aria-valuenow", "48")
    page.keyboard.press("m")
    expect(page.locator(".after")).to_be_hidden()
    page.keyboard.press("+")
    assert page.locator(".percent").text_content() != "100 %"


def test_the_threshold_redraws_regions_and_marks_the_scale(page: Page, server: str, batch: str, fake: Fake) -> None:
    open_batch(page, server, batch, "&sort=name")
    open_first(page)
    shown = page.locator(".badge")
    first = next(item for item in fake.items.values() if item["name"] == "blister_burnt.jpg")
    expect(shown).to_have_count(len(fake.files[first["id"]].regions))
    page.locator("#score-threshold").fill("1")
    expect(shown).to_have_count(0)
    expect(page.locator("#region-threshold")).to_have_text("1.00")
    expect(page.locator(".scale-mark")).to_have_attribute("style", re.compile("left: 100%"))
    expect(page.locator(".verdict-line")).to_contain_text("Normal")
    page.locator("#score-threshold").fill("0.02")
    expect(shown).to_have_count(1)
    expect(page.locator(".verdict-line")).to_contain_text("Anomalous")


def test_where_nothing_is_that_high_the_highest_is_told(page: Page, server: str, batch: str) -> None:
    """Older addresses had a threshold of the map: it is the same one now."""
    open_batch(page, server, batch, "&sort=name&m=1")
    open_first(page)
    expect(page.locator("#score-threshold")).to_have_value("1")
    expect(page.locator("#region-count")).to_have_text(re.compile(r"^none this high; the highest here is 0\.\d\d$"))
    expect(page.locator(".badge")).to_have_count(0)


def test_the_score_threshold_relabels_and_filters_at_once(page: Page, server: str, batch: str) -> None:
    open_batch(page, server, batch)
    page.locator("#score-threshold").fill("0")
    expect(page.locator(".card.anomalous")).to_have_count(8)
    page.locator("#score-threshold").fill("1")
    expect(page.locator(".card.anomalous")).to_have_count(0)
    expect(page.locator("#provenance")).to_contain_text("threshold 1.00 (set here)")
    page.get_by_label("Search names").fill("connector")
    expect(cards(page)).to_have_count(3)
    page.locator("[data-show=anomalous]").click()
    expect(page.get_by_text("No picture fits these filters.")).to_be_visible()


def test_a_question_about_a_region_streams_its_answer(page: Page, server: str, batch: str, fake: Fake) -> None:
    fake.seconds_per_word = 0.03
    open_batch(page, server, batch)
    open_first(page)
    page.locator(".badge").first.click()
    expect(page.locator(".ask .about")).to_contain_text("about region 1")
    page.get_by_role("button", name="What kind of defect is it?").click()
    answer = page.locator(".turn.assistant p")
    expect(answer).to_have_text(re.compile("^There is"))
    assert answer.text_content() != ANSWER
    fake.seconds_per_word = 0
    expect(answer).to_have_text(re.compile(re.escape(ANSWER)))
    expect(page.locator(".turn.assistant")).to_contain_text("P(yes) 0.87")
    asked = fake.questions[-1]
    assert asked["stream"] is True
    assert asked["anomaly"] == {"item": page.evaluate("location.hash.match(/i=([^&]+)/)[1]"), "region": 0}
    page.get_by_label("Question", exact=True).fill("And why?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".turn.assistant p").nth(1)).to_have_text(re.compile(re.escape(ANSWER)))
    assert [message["role"] for message in fake.questions[-1]["messages"]] == ["user", "assistant", "user"]


def test_without_a_language_model_the_record_is_asked(page: Page, server: str, batch: str, fake: Fake) -> None:
    fake.speaks = False
    open_batch(page, server, batch)
    open_first(page)
    expect(page.locator("#chat")).to_contain_text("Answers are taken from the finding")
    page.get_by_role("button", name="Is anything wrong here?").click()
    expect(page.locator(".turn.assistant p")).to_have_text(re.compile(re.escape(ANSWER)))


def test_review_by_keys_with_undo(page: Page, server: str, batch: str, fake: Fake) -> None:
    open_batch(page, server, batch)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    first = page.locator("#facts h2").text_content()
    for key in "anu":
        page.keyboard.press(key)
    expect(page.locator("#review-progress")).to_have_text("3 of 8 decided")
    expect(page.locator(".verdict[data-verdict=anomalous]")).to_have_count(1)
    page.keyboard.press("z")
    expect(page.locator("#review-progress")).to_have_text("2 of 8 decided")
    page.keyboard.press("z")
    page.keyboard.press("k")
    expect(page.locator("#facts h2")).to_have_text(first or "")
    expect(page.locator("[data-verdict=anomalous][aria-pressed=true]")).to_have_count(1)
    until(page, lambda: decisions(fake) == {first: "anomalous"})
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("undo the last decision")


def test_these_are_good_rescores(page: Page, server: str, batch: str, fake: Fake) -> None:
    open_batch(page, server, batch, "&sort=score&t=0.9")
    page.locator("#grid").focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.get_by_role("button", name="These are good").click()
    expect(page.locator("#context-name")).to_contain_text("2 good references")
    expect(page.locator("#progress")).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()
    cards(page).first.click()
    expect(page.locator(".compared")).to_contain_text("without")
    assert bodies(fake, "PUT", "/context")
    # It had been chosen for scores that are gone.
    expect(page.locator("#score-threshold")).to_have_value("0.5")
    expect(page.locator("#region-threshold")).to_have_text("0.50")


def test_what_pictures_are_compared_with_is_chosen_and_explained(
    page: Page, server: str, batch: str, fake: Fake
) -> None:
    open_batch(page, server, batch)
    menu, name = page.locator("#context-menu"), page.locator("#context-name")
    expect(name).to_have_text("automatic")
    menu.get_by_role("button", name="Compare with").click()
    expect(page.locator("#context-body [aria-pressed=true]")).to_contain_text("Automatic")
    expect(page.locator("#context-body")).to_contain_text("Now: nothing; there are fewer than 8 pictures.")
    page.locator("#context-body").get_by_role("button", name="Nothing").click()
    expect(name).to_have_text("nothing")
    menu.get_by_role("button", name="Compare with").click()
    expect(page.locator("#context-body [aria-pressed=true]")).to_contain_text("Nothing")
    page.locator("#context-body").get_by_role("button", name="Automatic").click()
    expect(name).to_have_text("automatic")
    expect(name).to_have_attribute("title", "Now: the other pictures; the pictures are alike.")
    assert len(bodies(fake, "PUT", "/context")) == 2


def test_export_links_carry_the_threshold(page: Page, server: str, batch: str, tmp_path: Path) -> None:
    open_batch(page, server, batch, "&t=0.3")
    page.get_by_role("button", name="Export").click()
    links = page.locator("#export-body a")
    assert links.evaluate_all("all => all.map((a) => a.dataset.format)") == ["html", "csv", "zip", "coco", "jsonl"]
    assert (links.nth(1).get_attribute("href") or "").endswith("/results?format=csv&threshold=0.3")
    with page.expect_download() as download:
        links.nth(1).click()
    download.value.save_as(tmp_path / "findings.csv")
    assert (tmp_path / "findings.csv").read_text().startswith("name,score")
    page.locator(".threshold").get_by_role("button", name="reset").click()
    page.get_by_role("button", name="Export").click()
    assert (links.nth(1).get_attribute("href") or "").endswith("/results?format=csv")


def test_a_reload_brings_back_batch_picture_threshold_and_talk(page: Page, server: str, batch: str) -> None:
    open_batch(page, server, batch)
    open_first(page)
    name = page.locator("#facts h2").text_content() or ""
    page.locator("#score-threshold").fill("0.25")
    page.keyboard.press("n")
    page.keyboard.press("k")
    page.get_by_role("button", name="How severe is it?").click()
    expect(page.locator(".turn.assistant")).to_contain_text("likely a defect")
    page.wait_for_url("**t=0.25**")
    page.reload()
    expect(page.locator("#facts h2")).to_have_text(name)
    expect(page.locator("#score-threshold")).to_have_value("0.25")
    expect(page.locator("#region-threshold")).to_have_text("0.25")
    expect(page.locator("[data-verdict=normal][aria-pressed=true]")).to_have_count(1)
    expect(page.locator(".turn.assistant")).to_contain_text("likely a defect")


def test_a_service_that_is_gone_is_said_and_waited_for(page: Page, server: str, batch: str, fake: Fake) -> None:
    open_batch(page, server, batch)
    open_first(page)
    page.context.set_offline(True)
    page.keyboard.press("a")
    expect(page.locator("#banner")).to_contain_text("does not answer")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#banner")).to_be_hidden()
    until(page, lambda: list(decisions(fake).values()) == ["anomalous"])
    expect(page.locator("#region-count")).to_have_text(re.compile("on this picture|none this high"))


def test_the_token_is_asked_for_once(page: Page, server: str, fake: Fake) -> None:
    fake.token = "secret"
    page.goto(server)
    field = page.get_by_placeholder("Token")
    field.fill("wrong")
    field.press("Enter")
    expect(page.get_by_text("That is not the token.")).to_be_visible()
    field.fill("secret")
    field.press("Enter")
    expect(page.get_by_role("heading", name="Drop pictures here")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Drop pictures here")).to_be_visible()
    assert page.get_by_role("dialog").count() == 0


def test_a_running_batch_shows_rate_and_time_left(page: Page, server: str, fake: Fake) -> None:
    fake.seconds_per_picture = 0.3
    page.goto(server)
    drop(page, [(f"p{index}.jpg", example("connector_good") + bytes([index])) for index in range(6)])
    expect(page.locator("#progress-text")).to_contain_text("/s · ")
    expect(page.locator(".card[data-state=pending]").first).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator(".card[data-state=done]")).to_have_count(6)


def test_narrow_screens_show_one_thing_at_a_time(page: Page, server: str, batch: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    open_batch(page, server, batch)
    open_first(page)
    expect(page.locator("#gallery")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Back to the gallery").click()
    expect(page.locator("#gallery")).to_be_visible()


def test_the_keyboard_alone_and_the_way_back(page: Page, server: str, batch: str) -> None:
    open_batch(page, server, batch)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the pictures")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    second = cards(page).nth(1)
    expect(page.locator("#grid")).to_have_attribute("aria-activedescendant", second.get_attribute("id") or "")
    page.keyboard.press("Enter")
    expect(page.locator("#facts h2")).to_have_text(second.locator(".name").text_content() or "")
    page.wait_for_url("**i=i_**")
    page.go_back()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(cards(page)).to_have_count(8)
