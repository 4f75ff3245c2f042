"""The page with a thousand findings: ``python benchmarks/serve_page.py``.

Opens the page in Chromium as the last of ``rounds`` fresh profiles would: time from the request to the first dozen
thumbnails on screen, the longest task of the main thread while scrolling to the end and back, the largest answer.
Against the tests' stand-in for the service unless ``--url`` names a running one and a batch of at least a thousand
pictures (``http://127.0.0.1:8765/#b=b_...``). Writes ``results/serve-page.json``.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from playwright.sync_api import sync_playwright

from common import report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "server"))
from browser.fake_server import Fake, Running, create_fake
from browser.many import Seen, measure

FINDINGS = 1000


def main(
    url: Annotated[str, typer.Option(help="A batch of a running service; without it the stand-in.")] = "",
    rounds: int = 5,
    write: Annotated[bool, typer.Option(help="Write the result file.")] = True,
) -> None:
    """Measures, prints, writes."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("error: there is no Chromium on this machine\nhint: apt install chromium")
    with ExitStack() as stack:
        server = "a running service" if url else "stand-in"
        if not url:
            fake = Fake()
            batch = fake.new_batch("many")
            fake.add_findings(batch, FINDINGS)
            url = f"{stack.enter_context(Running(create_fake(fake))).url}/#b={batch}"
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        seen: list[Seen] = []
        for _ in range(rounds):
            context = browser.new_context(viewport={"width": 1366, "height": 800})
            seen.append(measure(context.new_page(), url))
            context.close()
        version = browser.version
        browser.close()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    report(
        "serve-page",
        {
            "first view, s": (median(one.first_view_s for one in seen), f"median of {rounds}; target < 2 on 2 cores"),
            "first view, worst, s": (max(one.first_view_s for one in seen), "fresh profile each time"),
            "longest task while scrolling, ms": (
                max(one.longest_task_ms for one in seen),
                "worst of all; target <= 100; 0: none above the 50 ms from which browsers report",
            ),
            "largest answer, bytes": (max(one.largest_request_bytes for one in seen), "target <= 1048576"),
            "answers": (seen[-1].requests, "with thumbnails passed on the way"),
            "cards in the document": (max(one.cards for one in seen), f"of {FINDINGS}"),
            "server": (server, "the HTTP contract with canned findings" if server == "stand-in" else "as told"),
            "browser": (f"Chromium {version}", f"{cores} cores, load {load:.1f}"),
        },
        None,
        write,
    )


if __name__ == "__main__":
    typer.run(main)
