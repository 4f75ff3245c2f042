"""How findings and answers are laid out for reading on a terminal; nothing a model says may steer the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap

from anomaly_ov.images.messages import counted, printable
from anomaly_ov.images.places import place_of
from anomaly_ov.records import Answer, Finding

MAX_WIDTH = 100
INDENT = "  "
MAX_REGIONS = 4


def clean(text: str) -> str:
    """``text`` without control and formatting characters; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "" for c in text)


def width() -> int:
    """Columns to lay text out in: the terminal's, at most ``MAX_WIDTH``."""
    return min(shutil.get_terminal_size().columns, MAX_WIDTH) if sys.stdout.isatty() else MAX_WIDTH


def paragraph(answer: Answer) -> str:
    """An answer's text, wrapped and indented, its own line breaks kept; then what it contradicts."""
    text = clean(answer.text).strip() or "(it said nothing)"
    if answer.finish == "length":
        text += " [...]"
    if answer.contradiction:
        text += f"\n{contradicted(answer.contradiction)}"
    lines = (textwrap.fill(line, width(), initial_indent=INDENT, subsequent_indent=INDENT) for line in text.split("\n"))
    return "\n".join(lines)


def contradicted(verdict: str) -> str:
    """What stands behind an answer that says the opposite of the record."""
    return f"[This contradicts the record: {verdict[:1].lower()}{verdict[1:]}]"


def headline(finding: Finding) -> str:
    """The picture, what the detector says of it and, of a yes/no question, how likely yes is."""
    p_yes = None if finding.answer is None else finding.answer.p_yes
    chance = "" if p_yes is None else f"; P(yes) {p_yes:.2f}"
    return f"{printable(finding.id)}: score {finding.score:.3f}, {_verdict(finding)}{chance}"


def summary(finding: Finding) -> list[str]:
    """A finding in two lines."""
    size = f"({finding.image.width} x {finding.image.height})"
    limit = f", threshold {finding.threshold.value:.3f}" if finding.threshold else ""
    verdict = f"{_verdict(finding)}, {finding.level} suspicious"
    first = f"{printable(finding.id)} {size}: score {finding.score:.3f}{limit}: {verdict}"
    return [first, f"{INDENT}{_regions(finding)}"]


def _verdict(finding: Finding) -> str:
    return "anomalous" if finding.anomalous else "not anomalous"


def _regions(finding: Finding) -> str:
    found = finding.regions
    if not found:
        return "no region stands out"
    wh = finding.image.width or 1, finding.image.height or 1
    shown = [f"{place_of(region.box, wh)} ({region.score:.2f})" for region in found[:MAX_REGIONS]]
    more = f", and {len(found) - MAX_REGIONS} more" if len(found) > MAX_REGIONS else ""
    return f"{counted(len(found), 'suspicious region')}: {', '.join(shown)}{more}"
