"""Pieces of sentences (a defect with its article and place, lists, capitals), and how questions are dressed and varied.

``put``: a question with an opener, a polite end, contractions, and the way people type. ``expand``: a paraphrase
grammar in one line of text: ``(a|b)`` is one of several, ``[a]`` may be left out, ``<name>`` is a name. Slots of
questions ({kind}, {place}, {other}) are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
