"""The documentation holds together: what the code cites of it exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = "reference-implementation.md"
TIERS = {"tests/library", "tests/lab", "tests/server", "build/site", ".ci/run"}
CITING = ("src/**/*.py", "tests/**/*.py", "benchmarks/*.py", "recipes/*.yaml")


def texts() -> Iterator[tuple[str, str]]:
    """Every file that may cite the page: its name, and its text as one line, whatever was wrapped."""
    for pattern in CITING:
        for path in sorted(ROOT.glob(pattern)):
            if path != Path(__file__):
                text = path.read_text(encoding="utf-8")
                yield str(path.relative_to(ROOT)), re.sub(r"\s*\n\s*(#\s+)?", " ", text)


def test_citations_of_the_reference_implementation_name_sections_that_exist() -> None:
    page = (ROOT / "docs" / REFERENCE).read_text(encoding="utf-8")
    sections = {int(number) for number in re.findall(r"^## (\d+)\. ", page, re.MULTILINE)}
    cited: dict[str, set[int]] = {}
    for name, text in texts():
        for after in text.split(f"docs/{REFERENCE}")[1:]:
            numbers = re.match(r", sections? (\d+)(?: to (\d+))?", after)
            assert numbers, f"{name} cites {REFERENCE} without a section: {after[:40]!r}"
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            cited.setdefault(name, set()).update(range(first, last + 1))
    wrong = {name: found - sections for name, found in cited.items() if not found <= sections}
    assert not wrong, f"no such sections: {wrong}"
    assert len(cited) > 10


def test_nothing_cites_a_document_that_is_not_here() -> None:
    unnamed = re.compile(r"(?:\(|\bof |\bfrom )reference,? (?:section )?\d")
    assert [name for name, text in texts() if unnamed.search(text)] == []


def test_the_card_of_the_embedded_model_is_the_recipes() -> None:
    (shipped,) = ROOT.glob("src/*/models/tiny/README.md")
    assert shipped.read_text(encoding="utf-8") == (ROOT / "recipes" / "tiny-card.md").read_text(encoding="utf-8")


def test_files_that_contributors_are_sent_to_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {path.rstrip("/") for path in re.findall(r"`([\w./]+)`", text) if re.search(r"/|\.py$|\.md$", path)}
    files = [
        f"/{path.relative_to(ROOT)}" for part in ("*", "docs/*", "src/**/*", "tests/**/*") for path in ROOT.glob(part)
    ]
    assert "data/layouts/discovery.py" in named
    assert {path for path in named - TIERS if not any(file.endswith(f"/{path}") for file in files)} == set()


def test_links_of_pages_outside_the_site_resolve() -> None:
    """Those inside it are checked when it is built."""
    for page in ROOT.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in link or (ROOT / link).exists(), f"{page.name}: {link}"
