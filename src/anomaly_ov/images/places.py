"""Words for places in a picture: a board of 3 x 3 cells, how to say where, and what else people call its cells."""

from __future__ import annotations

from collections.abc import Sequence

PLACES: tuple[str, ...] = (
    "upper left", "top", "upper right", "left", "centre", "right", "lower left", "bottom", "lower right",
)  # fmt: skip

_PREPOSITIONS: dict[str, tuple[str, ...]] = {
    "centre": ("in the centre", "at the centre"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "left": ("on the left", "at the left"),
    "right": ("on the right", "at the right"),
}

PLACE_WORDS: dict[str, str | None] = {
    **{place: place for place in PLACES},
    **{f"{row} {side}": f"{named} {side}" for row, named in (("top", "upper"), ("bottom", "lower"))
       for side in ("left", "right")},
    **dict.fromkeys(("center", "middle", "central"), "centre"),
    **{f"{row} {middle}": place for row, place in (("upper", "top"), ("top", "top"), ("lower", "bottom"),
       ("bottom", "bottom"), ("left", "left"), ("right", "right")) for middle in ("centre", "center", "middle")},
    **{f"{middle} {side}": side for middle in ("centre", "center", "middle") for side in ("left", "right")},
    # Words that look like places and are none.
    **dict.fromkeys(("all right", "right away", "right now", "left behind", "bottle top", "on top of"), None),
}  # fmt: skip
"""What people write, in lower case -> one of ``PLACES``. The longest of several that fit is meant."""


def place_at(centre_y: float, centre_x: float) -> str:
    """One of ``PLACES`` for a position, 0..1 down and across."""
    row, column = min(2, int(centre_y * 3)), min(2, int(centre_x * 3))
    return PLACES[3 * row + column]


def place_of(box: Sequence[int], image_wh: tuple[int, int]) -> str:
    """One of ``PLACES``: where the middle of ``box`` (x0, y0, x1, y1) lies in a picture of that width and height."""
    x0, y0, x1, y1 = box
    return place_at((y0 + y1) / 2 / image_wh[1], (x0 + x1) / 2 / image_wh[0])


def ways_to_place(place: str) -> tuple[str, ...]:
    """ "top" -> "at the top", "near the top"; the most usual first."""
    return _PREPOSITIONS.get(place, (f"in the {place}", f"at the {place}"))
