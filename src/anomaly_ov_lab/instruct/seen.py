"""``Seen``: what may be said about one picture, be it from a generator's facts or from a data set's labels.

Some combinations of a kind and what it is on are kept from training, to measure what carries over (``is_held_out``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from anomaly_ov_lab.data.synthetic import Facts
from anomaly_ov_lab.instruct.knowledge import OBJECTS, SURFACES, Thing

SEVERITIES = ("slight", "moderate", "severe")
SIZES = ("tiny", "small", "medium-sized", "large")


@dataclass(frozen=True)
class SeenDefect:
    """One defect in words; None where the source does not tell. ``kind`` is one of the generator's kinds."""

    kind: str | None
    place: str | None = None
    size: str | None = None
    severity: str | None = None


@dataclass(frozen=True)
class Seen:
    """``thing`` is shown, on ``ground`` if that is known; ``defects``: the most obvious first, none = normal.

    ``kinds_known``, ``places_known`` (places and sizes) and ``measured`` (number and severities) say what may be asked
    about such pictures, normal ones included: what is never known of the anomalous ones is not asked of the normal.
    ``touched``: places that damage reaches beyond those of ``defects``; nothing is denied of them.
    """

    thing: Thing | None
    ground: Thing | None = None
    colours: tuple[str, ...] = ()
    defects: tuple[SeenDefect, ...] = ()
    kinds_known: bool = True
    places_known: bool = True
    measured: bool = True
    touched: tuple[str, ...] = ()


def seen_in(facts: Facts) -> Seen:
    """What a synthetic picture's facts allow to say; defects ordered by contrast times area, largest first."""
    ordered = sorted(facts.defects, key=lambda defect: -defect.contrast * defect.area_fraction)
    defects = tuple(SeenDefect(d.kind, d.place, d.size, d.severity) for d in ordered)
    surface = SURFACES.get(facts.surface)
    thing = surface if facts.object is None else OBJECTS.get(facts.object, Thing(facts.object, "a"))
    ground = None if facts.object in (None, "head") else surface
    return Seen(thing, ground, facts.colours, defects)


SHARE = 0.12
_SALT = "held-out combinations, 1"


def is_held_out(facts: Facts) -> bool:
    """Whether any defect of the picture is of a held-out combination; never for a normal picture."""
    return any(is_combination_held_out(defect.kind, facts.surface, facts.object) for defect in facts.defects)


def is_combination_held_out(kind: str, surface: str, thing: str | None) -> bool:
    """Whether ``kind`` on ``thing``, or on ``surface`` where there is no object, is held out: 12 % by hash.

    A photo names nothing, so nothing on it is held out.
    """
    if thing is None and surface == "photo":
        return False
    digest = hashlib.sha256(f"{_SALT}|{kind}|{thing or surface}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < SHARE * 2**64
