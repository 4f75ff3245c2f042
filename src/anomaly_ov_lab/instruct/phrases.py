"""Pieces of sentences: a defect with its article and place, lists, capitals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomaly_ov.images.places import ways_to_place
from anomaly_ov_lab.instruct.knowledge import KINDS
from anomaly_ov_lab.instruct.seen import Seen, SeenDefect

SYNONYMS = 0.15  # how often a kind goes by another name in a sentence


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def in_place(place: str, rng: np.random.Generator) -> str:
    """ "upper left" -> "in the upper left" or another way to say it."""
    return pick(rng, ways_to_place(place))


def kind_word(defect: SeenDefect) -> str:
    """The main name of the kind, without article; "defect" if it is unknown."""
    return KINDS[defect.kind].name if defect.kind else "defect"


def kind_phrase(kind: str | None, rng: np.random.Generator, adjective: str = "") -> str:
    """ "a scratch", "some severe corrosion", "an absent part"."""
    if kind is None:
        return _with_article("a", f"{adjective} defect")
    names = KINDS[kind].names
    name = pick(rng, names[1:]) if rng.random() < SYNONYMS else names[0]
    return _with_article(KINDS[kind].article, f"{adjective} {name}")


def asked_kind(kind: str, rng: np.random.Generator) -> str:
    """ "a scratch", "any corrosion": what stands in a question."""
    phrase = kind_phrase(kind, rng)
    return f"any {phrase.removeprefix('some ')}" if KINDS[kind].article == "some" else phrase


def defect_phrase(defect: SeenDefect, rng: np.random.Generator, severity: bool = False) -> str:
    """ "a scratch in the upper left", with its severity if asked and known."""
    phrase = kind_phrase(defect.kind, rng, (defect.severity or "") if severity else "")
    return f"{phrase} {in_place(defect.place, rng)}" if defect.place else phrase


def whole(seen: Seen) -> str:
    """ "a gear on wood", "wood"; "an object" if what is shown is unknown."""
    if seen.thing is None:
        return "an object"
    return f"{seen.thing.phrase} on {seen.ground.phrase}" if seen.ground else seen.thing.phrase


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def capital(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def _with_article(article: str, words: str) -> str:
    words = " ".join(words.split())
    return f"{'an' if article == 'a' and words[0] in 'aeiou' else article} {words}"
