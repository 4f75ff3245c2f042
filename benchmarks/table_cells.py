"""Cells and lines of the generated tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def heading(cells: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [row(cells), f"|{'-|' * len(cells)}"]


def row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def percent(value: float | None) -> str:
    """One decimal, "-" where undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(figures: dict[str, Any]) -> str:
    """``71.2 [68.0, 74.1]``."""
    low, high = figures["interval"]
    return f"{percent(figures['auroc'])} [{percent(low)}, {percent(high)}]"


def with_share(figures: dict[str, Any]) -> str:
    """``61.2 [55.0, 67.1]``."""
    low, high = figures["interval"]
    return f"{percent(figures['share'])} [{percent(low)}, {percent(high)}]"


def with_spread(figures: dict[str, Any] | None) -> str:
    """``71.2 ± 1.3``; "-" where a set has too few images to draw from."""
    if figures is None:
        return "-"
    spread = "" if figures["sd"] is None else f" ± {percent(figures['sd'])}"
    return f"{percent(figures['auroc'])}{spread}"
