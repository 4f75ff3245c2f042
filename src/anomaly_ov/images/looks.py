"""Words for how a region looks beside what is around it, from its measured contrast and elongation."""

from __future__ import annotations

ELONGATED, NARROW = 2.0, 4.0
"""Long over short axis of regions that are called so."""
VISIBLE, MUCH = 0.03, 0.15
"""Differences of brightness or colour, of 1, that are named; grey levels of 8 and 38."""


def shape_of(elongation: float | None) -> str:
    """ "a region", "an elongated region" or "a narrow region"."""
    if elongation is None or elongation < ELONGATED:
        return "a region"
    return "a narrow region" if elongation >= NARROW else "an elongated region"


def shade_of(contrast: tuple[float, float, float] | None) -> str:
    """How its colour differs from that around it, brightness first, then hue, with a blank before; "" if unknown."""
    if contrast is None:
        return ""
    red, green, blue = contrast
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    warm, yellow = red - green, (red + green) / 2 - blue
    words = []
    if abs(light) >= VISIBLE:
        much = "much " if abs(light) >= MUCH else ""
        words.append(f"{much}{'brighter' if light > 0 else 'darker'}")
    if max(abs(warm), abs(yellow)) >= VISIBLE:
        pair, by = (("redder", "greener"), warm) if abs(warm) >= abs(yellow) else (("yellower", "bluer"), yellow)
        words.append(pair[by < 0])
    if not words:
        return " of about the brightness and colour around it"
    return f" {' and '.join(words)} than what is around it"
