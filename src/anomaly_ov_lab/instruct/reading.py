"""What an answer says, read strictly: whole words only, longest name first, nothing read into it.

Reads the answers of ``answers.Teller`` and those of any other model that answers in plain English. A name that is
denied ("no scratch", "without any dent") is not said. Of thoughts and boxes what is meant in the end is read.

Two rules for yes and no. ``strict``: the first word is "yes" or "no" (``yes_no``); anything else is unread.
``official``: yes if the text holds "Yes" or "yes" anywhere, else no, which is the rule of the released evaluation
(released code, commit d85bec0, scripts/eval/calc_accuracy.py); there "eyes" is a yes, and "YES" and an empty answer
are a no. It is offered to compare with published figures.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal

from anomaly_ov.images.places import PLACE_WORDS
from anomaly_ov.words.final import final_answer
from anomaly_ov_lab.instruct.knowledge import KINDS
from anomaly_ov_lab.instruct.seen import SEVERITIES, SIZES

_NUMBERS = {"none": 0, "no": 0, "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_DENIED = r"(?:\b(?:no|not|without|nor|never)(?: (?:a|an|any|some|the))?(?: (?:{adjectives}))? )"
# Names accepted beyond those that answers use.
_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "blur": ("blur",),
    "burn": ("burn",),
    "colour_shift": ("color shift", "wrong color", "discolouration", "discoloration"),
    "fibre": ("fiber",),
    "fold": ("wrinkle",),
    "rot": ("rotten spot", "rotten area"),
    "pitting": ("pit",),
    "dark_area": ("dark spot",),
    "print_error": ("printing error",),
}


def yes_no(text: str) -> bool | None:
    """Whether the first word is "yes" or "no" (any case, whole: "eyes" and "nothing" are neither); else None."""
    found = re.match(r"\W*(yes|no)\b(?!'\w)", text, re.IGNORECASE)
    return None if found is None else found.group(1).lower() == "yes"


def kinds(text: str) -> set[str]:
    """The kinds of defects that the text says are there."""
    return {_KIND_NAMES[name] for name in _said(_KIND_PATTERN, text)}


def places(text: str) -> set[str]:
    """The places on the 3 x 3 board that the text names."""
    return {place for name in _said(_PLACE_PATTERN, text) if (place := PLACE_WORDS[name])}


def place(text: str) -> str | None:
    """The only place that the text names; None if it names none, or several."""
    return _only(places(text))


def severity(text: str) -> str | None:
    """ "slight", "moderate" or "severe" if the text names just one of them."""
    return _only(_said(_SEVERITY_PATTERN, text))


def size(text: str) -> str | None:
    """ "tiny", "small", "medium-sized" or "large" if the text names just one of them."""
    return _only(_said(_SIZE_PATTERN, text))


def count(text: str) -> int | None:
    """The first number that the text names, as word or digits; "no" and "none" are 0; None without a number."""
    found = re.search(rf"\b(?:{_alternatives(_NUMBERS)}|\d{{1,6}})\b", text.lower())
    return None if found is None else _NUMBERS[found.group()] if found.group() in _NUMBERS else int(found.group())


def _alternatives(names: Iterable[str]) -> str:
    """Longest first, so that "upper left" is not read as "left"."""
    return "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))


def _pattern(names: Iterable[str], plural: bool = False) -> re.Pattern[str]:
    denied = _DENIED.format(adjectives=_alternatives((*SEVERITIES, *SIZES)))
    return re.compile(rf"(?P<denied>{denied})?\b(?P<name>{_alternatives(names)}){'(?:e?s)?' if plural else ''}\b")


def _said(pattern: re.Pattern[str], text: str) -> set[str]:
    plain = " ".join(text.lower().replace("top-", "top ").replace("bottom-", "bottom ").split())
    return {found.group("name") for found in pattern.finditer(plain) if not found.group("denied")}


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None


_KIND_NAMES: dict[str, str] = {
    name: kind for kind, known in KINDS.items() for name in (*known.names, *_OTHER_NAMES.get(kind, ()))
}
_KIND_PATTERN = _pattern(_KIND_NAMES, plural=True)
_PLACE_PATTERN = _pattern(PLACE_WORDS)
_SEVERITY_PATTERN = _pattern(SEVERITIES)
_SIZE_PATTERN = _pattern(SIZES)


Parser = Literal["strict", "official"]

_LEAD = r"(?i:(?:so,? )?(?:my |the )?(?:(?:right|correct|best|final) )?(?:answer|option|choice)(?: is)?)?"
# After a letter comes a mark or nothing: "A scratch" begins with an article, not with a choice.
_LETTER = re.compile(rf"[\W_]*{_LEAD}[\W_]*([A-Z])(?=\s*$|\s*\n|[\W_]*[.,:;。、：；）)\]*_-]|\s+(?:and|or)\b)")
_OPTION = re.compile(r"^[\W_]*([A-Z])[.:)]", re.MULTILINE)
_ANOTHER = re.compile(r"\W*\b(?:and|or)\b\W*([A-Z])\b|\s*[,/&+]\s*([A-Z])\b")


def says_yes(text: str, parser: Parser = "strict") -> bool | None:
    """Whether the answer is yes; None where ``strict`` reads neither yes nor no."""
    if parser == "official":
        return "Yes" in text or "yes" in text
    return yes_no(final_answer(text))


def letter(text: str, letters: Collection[str]) -> str | None:
    """The letter that the answer names, one of ``letters``; None if it names none, or two.

    Read are a letter by itself ("b" too), with marks ("(B)", "**B**"), before its option ("B. a dent") and after
    "Answer:" or "The right option is"; not a letter that could be an article ("A dent is there").
    """
    text = final_answer(text)
    bare = text.strip("()[]*_.:\"' \t\r\n")
    if len(bare) == 1:
        return bare.upper() if bare.upper() in letters else None
    found = _LETTER.match(text)
    if found is None or found.group(1) not in letters:
        return None
    another = _ANOTHER.match(text[found.end(1) :])
    if another is not None and (another.group(1) or another.group(2)) in letters:
        return None
    # "A. Yes\nB. No" repeats the options and chooses none.
    return None if len({line[1] for line in _OPTION.finditer(text)} & set(letters)) > 1 else found.group(1)
