"""Which regions a question picks: by number ("region 2", "the third one"), by rank ("the largest"), by place.

Takes questions as ``question`` leaves them: lower-case words with one blank between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from anomaly_ov.images.places import PLACE_WORDS

Which = int | str
"""A number from 1 (-1 the last), one of ``places.PLACES``, or one of ``MOST``."""
MOST = ("strongest", "weakest", "largest", "smallest")


def picked(text: str) -> tuple[str, tuple[Which, ...]]:
    """``text`` without the words that pick regions, and what they pick: numbers, ranks, places."""
    found: list[Which] = []

    def numbers(match: re.Match[str]) -> str:
        found.extend(_NUMBERS.get(word) or int(word) for word in re.findall(_ONE_NUMBER, match["numbers"]))
        return " "

    def order(match: re.Match[str]) -> str:
        word = match["order"]
        found.append(_ORDER.get(word) or int(word[:-2]))
        return " "

    def rank(match: re.Match[str]) -> str:
        found.append(_RANKS[match["rank"]])
        return " "

    def place(match: re.Match[str]) -> str:
        named = PLACE_WORDS[match["at"] or match["of"]]
        if named is None:
            return match[0]
        found.append(named)
        return " "

    for pattern, take in ((_BY_NUMBER, numbers), (_BY_ORDER, order), (_BY_RANK, rank), (_BY_PLACE, place)):
        text = pattern.sub(take, text)
    return " ".join(text.split()), tuple(dict.fromkeys(found))


def one_of(words: Iterable[str]) -> str:
    """A pattern for one of ``words``, the longest first."""
    return f"(?:{'|'.join(sorted(words, key=lambda word: (-len(word), word)))})"


def _numbered(words: str) -> dict[str, int]:
    return {word: number for number, word in enumerate(words.split(), start=1)}


_NUMBERS = _numbered("one two three four five six seven eight nine ten")
_ORDER = _numbered("first second third fourth fifth sixth seventh eighth ninth tenth") | {"last": -1}
_RANKS = {
    **dict.fromkeys(("strongest", "main", "most suspicious", "most anomalous", "most obvious"), MOST[0]),
    **dict.fromkeys(("weakest", "least suspicious"), MOST[1]),
    **dict.fromkeys(("largest", "biggest"), MOST[2]),
    "smallest": MOST[3],
}
_NOUN = (
    r"(?: (?:suspicious|anomalous|abnormal|unusual))? "
    r"(?:region|area|spot|box|one|defect|anomaly|damage|flaw|fault|issue|problem)\b"
)
_ONE_NUMBER = rf"\b(?:\d{{1,6}}|{one_of(_NUMBERS)})\b"
_BY_NUMBER = re.compile(
    rf"\b(?:regions?|areas?|spots?|box(?:es)?|defects?|anomal(?:y|ies)|numbers?)(?: numbers?)? "
    rf"(?P<numbers>{_ONE_NUMBER}(?: (?:and |or )?{_ONE_NUMBER})*)"
)
# A second, a third: only where a region follows, or nothing that could be counted.
_BY_ORDER = re.compile(
    rf"\b(?P<order>{one_of(_ORDER)}|\d{{1,6}}(?:st|nd|rd|th))(?:{_NOUN}|(?=$| (?:and|or|is|has|how|where|why)\b))"
)
_BY_RANK = re.compile(rf"\b(?P<rank>{one_of(_RANKS)})(?:{_NOUN}|$)")
_PLACE = one_of(PLACE_WORDS)
# "At the top of the box": places are known of the image, not of things in it.
_BY_PLACE = re.compile(
    rf"\b(?:on|in|at|near) (?:the )?(?P<at>{_PLACE})\b(?: (?:corner|side|part|half|edge|area|region)\b)?(?! of\b)|"
    rf"\b(?P<of>{_PLACE}){_NOUN}"
)
