"""``Known``: what the label, the folder names and the mask of a real picture tell; nothing is guessed beyond them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomaly_ov.errors import DataError
from anomaly_ov.images.places import place_at
from anomaly_ov_lab.data.samples import Sample, read_mask
from anomaly_ov_lab.data.synthetic import facts
from anomaly_ov_lab.instruct.knowledge import KINDS, THINGS, Thing
from anomaly_ov_lab.instruct.seen import Seen, SeenDefect

UNKNOWN = "object"


@dataclass(frozen=True)
class Known:
    """``thing``: a name in ``knowledge.THINGS`` or any noun, "object" if unknown; ``kind``: a generator kind or None.

    ``place`` and ``size`` are those of the mask's largest part, ``touched`` all places that the mask reaches.
    ``kinds_known`` and ``places_known``: whether the set tells them of its anomalous pictures; if not, they are not
    asked of its normal ones either. Number and severity are never known.
    """

    thing: str
    anomalous: bool
    kind: str | None = None
    place: str | None = None
    size: str | None = None
    kinds_known: bool = True
    places_known: bool = True
    touched: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rule:
    """What is known of pictures whose category matches ``pattern``."""

    pattern: str
    thing: str
    kind: str | None
    masks: bool = True


# Facts about public data sets, by the category names that their folders carry.
_RULES: tuple[_Rule, ...] = (
    _Rule(r"ball_?screw", "ball screw", "pitting"),
    _Rule(r"pcb_binary|deeppcb", "circuit board scan", None),
    _Rule(r"apple", "apple", "rot", masks=False),
    _Rule(r"banana", "banana", "rot", masks=False),
    _Rule(r"orange", "orange", "rot", masks=False),
    _Rule(r"P[AU]_[A-Z]{3}\d\d_[A-Z]{2}|piped_paper", "paper", "contamination"),
)
_KIND_WORDS: dict[str, str] = {name: kind for kind, known in KINDS.items() for name in (kind, *known.names)}


def known_of(sample: Sample) -> Known:
    """What ``sample`` tells; its mask is read if it has one. Raises ``DataError`` if its label is unknown."""
    if sample.label is None:
        raise DataError(f"the label of {sample.image} is unknown", hint="use only labelled pictures (DataSet.labelled)")
    rule = next((rule for rule in _RULES if re.fullmatch(rule.pattern, sample.category, re.IGNORECASE)), None)
    thing = rule.thing if rule else _thing_named(sample.category)
    kind = (rule.kind if rule else None) or _kind_named(sample.defect)
    kinds_known = kind is not None if sample.label or rule else False
    places_known = rule.masks if rule else sample.mask is not None or sample.label == 0
    if sample.label == 0:
        return Known(thing, False, kinds_known=kinds_known, places_known=places_known)
    place, size, touched = _where(sample.mask) if sample.mask else (None, None, ())
    return Known(thing, True, kind, place, size, kinds_known, places_known and place is not None, touched)


def seen_by(known: Known) -> Seen:
    """What may be said about a picture of which ``known`` is known."""
    named = THINGS.get(known.thing, Thing(known.thing, "an" if known.thing[:1] in "aeiou" else "a"))
    thing = None if known.thing == UNKNOWN else named
    defects = (SeenDefect(known.kind, known.place, known.size),) if known.anomalous else ()
    return Seen(thing, None, (), defects, known.kinds_known, known.places_known, measured=False, touched=known.touched)


@lru_cache(maxsize=4096)
def _where(mask: Path) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Place and size of the mask's largest connected part, and all places it reaches; None if it is empty."""
    mask_HW = read_mask(mask)
    labels_HW, count = ndimage.label(mask_HW)
    if not count:
        return None, None, ()
    areas = np.bincount(labels_HW.ravel())[1:]
    place = _places(labels_HW == 1 + int(areas.argmax()), whole=False)[0]
    area = float(areas.max()) / mask_HW.size
    return place, next(word for limit, word in facts.SIZES if area < limit), _places(mask_HW, whole=True)


def _places(mask_HW: npt.NDArray[np.bool_], whole: bool) -> tuple[str, ...]:
    """The place of the mask's centre, or of every pixel if ``whole``."""
    height, width = mask_HW.shape
    rows, columns = (indices + 0.5 for indices in np.nonzero(mask_HW))
    if not whole:
        return (place_at(float(rows.mean()) / height, float(columns.mean()) / width),)
    cells = np.unique((rows * 3 / height).astype(int) * 3 + (columns * 3 / width).astype(int))
    return tuple(place_at((cell // 3 + 0.5) / 3, (cell % 3 + 0.5) / 3) for cell in cells.tolist())


def _thing_named(category: str) -> str:
    """The category as a noun if it is one of the things we name, else unknown."""
    plain = re.sub(r"[_\W]+", " ", category).strip().lower()
    names = {name: name for name in THINGS} | {thing.name: name for name, thing in THINGS.items()}
    return names.get(plain, UNKNOWN)


def _kind_named(defect: str | None) -> str | None:
    """The kind that a defect's folder names ("scratch", "scratch_neck", "print error"), else None."""
    plain = re.sub(r"[_\W\d]+", " ", defect or "").strip().lower()
    for name, kind in _KIND_WORDS.items():
        if re.search(rf"\b{re.escape(name.replace('_', ' '))}\b", plain):
            return kind
    return None
