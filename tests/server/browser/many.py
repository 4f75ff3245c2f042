"""What opening and scrolling a large batch costs, as the browser itself sees it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from playwright.sync_api import Page, Response, expect

WATCH = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.tasks.push([entry.startTime, entry.duration]);
  }).observe({ type: "longtask", buffered: true });
}"""
# Down in quick steps, as a wheel does, then to the end at once, as a dragged bar does, and back.
SCROLL = """async () => {
  const grid = document.getElementById("grid");
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const begun = performance.now();
  const first = document.querySelector(".card .name").textContent;
  for (let turn = 0; turn < 90; turn += 1) {
    grid.scrollTop += 160;
    await frame();
  }
  grid.scrollTop = grid.scrollHeight;
  await new Promise((resolve) => setTimeout(resolve, 200));
  const last = [...document.querySelectorAll(".card .name")].at(-1).textContent;
  const cards = document.querySelectorAll(".card").length;
  grid.scrollTop = 0;
  await new Promise((resolve) => setTimeout(resolve, 200));
  const tasks = window.tasks.filter(([start]) => start >= begun).map(([, duration]) => duration);
  return { first, last, cards, longest: Math.max(0, ...tasks) };
}"""


@dataclass(frozen=True)
class Seen:
    """Seconds until the first pictures are shown, and so on; tasks shorter than 50 ms are not reported by browsers."""

    first_view_s: float
    longest_task_ms: float
    largest_request_bytes: int
    requests: int
    cards: int
    first_name: str
    last_name: str


def measure(page: Page, url: str) -> Seen:
    """Opens ``url``, waits for thumbnails, scrolls."""
    sizes: list[int] = []

    def note(response: Response) -> None:
        sizes.append(int(response.headers.get("content-length", "0")))

    page.on("response", note)
    page.add_init_script(f"({WATCH})()")
    begun = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_function(
        "() => { const seen = [...document.querySelectorAll('.card img')].slice(0, 12);"
        " return seen.length && seen.every((picture) => picture.complete && picture.naturalWidth); }"
    )
    first_view = time.perf_counter() - begun
    expect(page.locator("[data-show=all] .count")).to_have_text(re.compile(r"\d{4}"), timeout=20000)
    page.wait_for_timeout(300)
    scrolled = page.evaluate(SCROLL)
    names = (scrolled["first"], scrolled["last"])
    return Seen(first_view, scrolled["longest"], max(sizes), len(sizes), scrolled["cards"], *names)
