"""A thousand findings: seen at once, scrolled without stutter, in small requests."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import Page, expect

from browser.fake_server import Fake
from browser.many import measure

pytestmark = pytest.mark.browser


def test_a_thousand_findings(page: Page, server: str, fake: Fake) -> None:
    batch = fake.new_batch("many")
    fake.add_findings(batch, 1000)
    seen = measure(page, f"{server}/#b={batch}")
    expect(page.locator("[data-show=all] .count")).to_have_text("1000")
    page.locator("#grid").evaluate("grid => (grid.scrollTop = 9000)")
    page.wait_for_timeout(100)
    page.locator(".card").nth(25).click()
    expect(page.locator(".card.current")).to_be_in_viewport()
    assert seen.cards < 150
    assert seen.last_name != seen.first_name
    # The stated targets are 2 s and 100 ms on two idle cores; a test run shares them with its own server.
    slack = 1 if (os.cpu_count() or 1) > 2 else 2
    assert seen.first_view_s < 2 * slack
    assert seen.longest_task_ms < 100 * slack
    assert seen.largest_request_bytes < 2**20
