"""What an answer says: yes or no, or which letter. Of thoughts and boxes what is meant in the end is read.

Two rules for yes and no. ``strict``: the first word is "yes" or "no" (``instruct.reading``); anything else is unread.
``official``: yes if the text holds "Yes" or "yes" anywhere, else no, which is the rule of the released evaluation
(released code, commit d85bec0, scripts/eval/calc_accuracy.py); there "eyes" is a yes, and "YES" and an empty answer
are a no. It is offered to compare with published figures.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from anomaly_ov.words.final import final_answer
from anomaly_ov_lab.instruct import reading

Parser = Literal["strict", "official"]
PARSERS: tuple[Parser, ...] = ("strict", "official")

_LEAD = r"(?i:(?:so,? )?(?:my |the )?(?:(?:right|correct|best|final) )?(?:answer|option|choice)(?: is)?)?"
# After a letter comes a mark or nothing: "A scratch" begins with an article, not with a choice.
_LETTER = re.compile(rf"[\W_]*{_LEAD}[\W_]*([A-Z])(?=\s*$|\s*\n|[\W_]*[.,:;)\]*_-]|\s+(?:and|or)\b)")
_ANOTHER = re.compile(r"\W*\b(?:and|or)\b\W*([A-Z])\b|\s*[,/&+]\s*([A-Z])\b")


def says_yes(text: str, parser: Parser = "strict") -> bool | None:
    """Whether the answer is yes; None where ``strict`` reads neither yes nor no."""
    if parser == "official":
        return "Yes" in text or "yes" in text
    return reading.yes_no(final_answer(text))


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
    return found.group(1)
