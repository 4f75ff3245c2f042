"""A real browser and a stand-in service. The browser lives as long as the tests of this folder, which is a package for
that reason alone: Playwright's loop must not outlast them, or no later test could run its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from browser.fake_server import Fake, Running, create_fake  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="package")
def browser() -> Iterator[sync_api.Browser]:
    """Chromium, without a window."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def fake() -> Fake:
    """What the service knows; tests change it before and while the page is open."""
    return Fake()


@pytest.fixture
def server(fake: Fake) -> Iterator[str]:
    """Its address."""
    with Running(create_fake(fake)) as running:
        yield running.url


@pytest.fixture(scope="package")
def window(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """One for all tests: opening another costs more than most of them. Each test's server is an origin of its own, so
    none finds what another one stored."""
    context = browser.new_context(accept_downloads=True)
    made = context.new_page()
    made.set_default_timeout(15_000)
    sync_api.expect.set_options(timeout=15_000)
    yield made
    context.close()


@pytest.fixture
def page(window: sync_api.Page) -> Iterator[sync_api.Page]:
    """An empty window; an error in the page, or something its security policy stops, fails the test."""
    wrong: list[str] = []

    def note_error(error: sync_api.Error) -> None:
        wrong.append(str(error))

    def note_policy(message: sync_api.ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            wrong.append(message.text)

    window.set_viewport_size({"width": 1280, "height": 800})
    window.on("pageerror", note_error)
    window.on("console", note_policy)
    yield window
    window.context.set_offline(False)
    window.goto("about:blank")
    window.remove_listener("pageerror", note_error)
    window.remove_listener("console", note_policy)
    window.context.clear_cookies()
    assert not wrong


@pytest.fixture
def batch(fake: Fake) -> str:
    """A batch of the eight examples, scored."""
    made = fake.new_batch("Examples")
    for path in sorted(EXAMPLES.glob("*.jpg")):
        fake.add(made, path.name, path.read_bytes())
    return made
