"""How a question is put besides its wording: an opener, a polite end, contractions, and the way people type."""

from __future__ import annotations

import re

import numpy as np

from anomaly_ov_lab.instruct.phrases import pick

OPENERS = ("So, ", "And ", "OK, ", "Okay, ", "Well, ", "Now, ", "Hi, ", "Hello, ", "Please tell me: ", "Tell me, ")
YES_NO = (
    "Yes or no?", "Yes or no, please.", "Just yes or no.", "Only yes or no.", "Answer with yes or no.",
    "Please answer yes or no.", "Reply with Yes or No.", "Say yes or no.",
)  # fmt: skip
ONE_WORD = (
    "One word, please.", "In one word.", "In a word or two.", "Just a word or two.", "Short answer, please.",
    "Answer in a few words.", "Please answer with a single word.", "Be brief, one or two words.", "Keep it short.",
)  # fmt: skip
"""Requests for a short answer that only training uses, beside those of ``questions``."""

_PLAIN = 0.4
"""How often a wording is put just as it is written; else each of the below by its own chance."""
_OPENED, _POLITE, _CONTRACTED, _LOWER, _UNMARKED = 0.25, 0.1, 0.4, 0.35, 0.3
_CONTRACTION = re.compile(r"\b([Ww]hat|[Ww]here) is (?=(?:the|its|your|that|this|wrong|broken|damaged|off|mainly)\b)")


_OPEN = re.compile(r"(?:And|So|Now|OK|Okay|Hi|Please|Tell|(?:Can|Could) you tell)\b")  # begins with an opener already


def put(stem: str, request: str, rng: np.random.Generator) -> str:
    """The wording as somebody may type it, followed by ``request`` (empty for none). Slots stay as they are."""
    opened, polite, contracted, lower, unmarked = (float(chance) for chance in rng.random(5))
    if rng.random() < _PLAIN:
        return f"{stem} {request}".rstrip()
    if contracted < _CONTRACTED:
        stem = _CONTRACTION.sub(r"\1's ", stem)
    if polite < _POLITE and "," not in stem and "please" not in f"{stem} {request}".lower():
        stem = f"{stem[:-1]}, please{stem[-1]}"
    if opened < _OPENED and stem.endswith("?") and not _OPEN.match(stem):
        stem = pick(rng, OPENERS) + stem[0].lower() + stem[1:]
    text = f"{stem} {request}".rstrip()
    if lower < _LOWER:
        text = text.lower()
    return text.rstrip("?.") if unmarked < _UNMARKED else text
