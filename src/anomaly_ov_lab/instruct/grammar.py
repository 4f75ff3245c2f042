"""A paraphrase grammar in one line of text: ``(a|b)`` is one of several, ``[a]`` may be left out, ``<name>`` is a name.

Slots of questions ({kind}, {place}, {other}) are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKENS = re.compile(r"[()|]|[^()|]+")


def expand(template: str, names: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Every text that ``template`` stands for, in order, each once. ``names``: what "<name>" is short for.

    Raises ``ValueError`` for a bracket too many or too few, ``KeyError`` for a name that is not there.
    """
    while "<" in template:
        template = re.sub(r"<(\w+)>", lambda found: f"({(names or {})[found.group(1)]})", template)
    tokens = _TOKENS.findall(template.replace("[", "(").replace("]", "|)"))
    texts = _alternatives(tokens, closing=False)
    return tuple(dict.fromkeys(" ".join(text.split()) for text in texts))


def _alternatives(tokens: list[str], closing: bool) -> list[str]:
    """The texts up to the bracket that closes, or to the end; takes them off ``tokens``."""
    done: list[str] = []
    texts = [""]
    while tokens:
        token = tokens.pop(0)
        if token == ")" and closing:
            return done + texts
        if token == ")":
            raise ValueError("a bracket closes that was never opened")
        if token == "|":
            done, texts = done + texts, [""]
        else:
            ends = _alternatives(tokens, closing=True) if token == "(" else [token]
            texts = [text + end for text in texts for end in ends]
    if closing:
        raise ValueError("a bracket is never closed")
    return done + texts


_LONG = {"what's": "what is", "where's": "where is", "how's": "how is", "who's": "who is", "that's": "that is",
         "it's": "it is", "there's": "there is", "which's": "which is", "colors": "colours", "color": "colour",
         "center": "centre", "okay": "ok"}  # fmt: skip
_FILLERS = frozenset(("so", "and", "ok", "well", "now", "then", "please", "tell", "me", "hi", "hello", "here"))


def bare(text: str) -> str:
    """What two wordings have in common that differ in dress only: case, signs, contractions, spelling, politeness."""
    words = [part for word in re.findall(r"[\w{}'-]+", text.lower()) for part in _LONG.get(word, word).split()]
    while len(words) > 1 and words[0] in _FILLERS:
        words.pop(0)
    while len(words) > 1 and words[-1] in _FILLERS:
        words.pop()
    return " ".join(words)
