"""The documentation holds together: what the code cites of it exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = "reference-implementation.md"
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
