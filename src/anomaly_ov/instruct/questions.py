"""How questions are worded, by intent; some wordings of every intent are held out from training.

``form`` "word" asks for a word or a phrase (for yes/no: exactly "Yes." or "No."), "sentence" for a sentence. ``scope``
"main" asks about the most obvious defect, "all" about every defect. Slots: {kind} "a scratch", {place} "in the
centre", {other} "wood".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "held_out"]
Form = Literal["word", "sentence"]
Scope = Literal["main", "all"]

INTENTS: tuple[str, ...] = (
    "detect", "fine", "describe", "kind", "kind_check", "place", "place_check", "count", "size", "severity",
    "cause", "action", "surface", "surface_check", "colours", "report",
)  # fmt: skip


@dataclass(frozen=True)
class Wording:
    """One question; ``text`` may hold one slot."""

    intent: str
    form: Form
    scope: Scope
    split: Split
    text: str


YES_NO = ("Please reply with 'Yes' or 'No'.", "Answer yes or no.", "Reply with only yes or no.")
ONE_WORD = ("Answer with one word or phrase.", "Reply with a single word or phrase.", "Keep it to a word or two.")

# (intent, scope, stems, held-out stems, takes the word form, takes the sentence form)
_Row = tuple[str, Scope, tuple[str, ...], tuple[str, ...], bool, bool]

_TABLE: tuple[_Row, ...] = (
    ("detect", "all", (
        "Are there any defects for the object in the image?",
        "Is there any defect in the image?",
        "Is there an anomaly in this picture?",
        "Is anything wrong here?",
        "Can you see a fault?",
        "Does the picture show any damage?",
        "Is something unusual in this image?",
        "Do you find any flaw?",
    ), ("Do you see anything wrong in this picture?", "Is there any damage in the image?"), True, True),
    ("fine", "all", (
        "Is everything fine here?",
        "Is the object in the picture free of defects?",
        "Does it look normal?",
        "Is this a good part?",
    ), ("Does everything look fine in this picture?",), True, True),
    ("describe", "all", (
        "Describe the picture.",
        "What do you see, and is anything wrong?",
        "Tell me what is in the image and what is wrong with it.",
        "What does the picture show?",
        "Please describe the object and its condition.",
        "What can you say about this image?",
    ), ("Describe the image and what is wrong.",), False, True),
    ("kind", "main", (
        "What kind of defect is most obvious?",
        "What is the main defect?",
        "Which defect stands out most?",
        "What type is the main defect?",
    ), ("Which kind is the most obvious defect?",), True, True),
    ("kind", "all", (
        "What is wrong here?",
        "Which kinds of defects are there?",
        "Name every defect.",
        "What defects do you see?",
    ), ("Which defects does the image show?",), True, True),
    ("kind_check", "all", (
        "Is there {kind}?",
        "Do you see {kind}?",
        "Does the picture show {kind}?",
        "Can you find {kind} here?",
    ), ("Is there {kind} in this image?",), True, True),
    ("place", "main", (
        "Where is the main defect?",
        "Where is the most obvious defect?",
        "In which part of the image is the main defect?",
        "Where should I look for the main defect?",
    ), ("In which part of the picture is the most obvious defect?",), True, True),
    ("place", "all", (
        "Where are the defects?",
        "Where is it damaged?",
        "Point out where the defects are.",
    ), ("Where in the image are the defects?",), False, True),
    ("place_check", "all", (
        "Is there a defect {place}?",
        "Do you see any damage {place}?",
        "Is something wrong {place}?",
    ), ("Is there any damage {place}?",), True, True),
    ("count", "all", (
        "How many defects are there?",
        "How many faults do you see?",
        "Count the defects.",
    ), ("How many defects do you see?",), True, True),
    ("size", "main", (
        "How big is the main defect?",
        "What size is the main defect?",
        "How large is the most obvious defect?",
    ), ("What size is the most obvious defect?",), True, True),
    ("severity", "main", (
        "How severe is the main defect?",
        "How bad is it?",
        "How serious is the main defect?",
        "What is the severity of the main defect?",
    ), ("How bad is the main defect?",), True, True),
    ("cause", "main", (
        "What is the likely cause?",
        "Why did this happen?",
        "How could this happen?",
        "What may have caused the main defect?",
        "Where may the main defect come from?",
    ), ("What may be the cause of the main defect?",), False, True),
    ("action", "main", (
        "What should be done?",
        "What do you recommend?",
        "What is the next step?",
        "How can this be fixed?",
        "What should I do about it?",
    ), ("What do you recommend to do about it?",), False, True),
    ("surface", "all", (
        "What is in the picture?",
        "What object or material is this?",
        "What is being inspected?",
        "Which material or object do you see?",
    ), ("What object or material is in the picture?",), True, True),
    ("surface_check", "all", (
        "Is this {other}?",
        "Does the picture show {other}?",
        "Do you see {other}?",
    ), ("Does this image show {other}?",), True, True),
    ("colours", "all", (
        "Which colours do you see?",
        "What are the main colours?",
        "Name the main colours.",
    ), ("Which main colours does the picture show?",), True, True),
    ("report", "main", (
        "Give a full report.",
        "Write an inspection report.",
        "Report the kind, place, severity, cause and action.",
        "Explain in full what you found and what to do.",
    ), ("Write a full report of what you found.",), False, True),
)  # fmt: skip


def _wordings() -> tuple[Wording, ...]:
    found = []
    for intent, scope, train, held_out, word, sentence in _TABLE:
        short = YES_NO if intent in ("detect", "fine") or intent.endswith("_check") else ONE_WORD
        stems: tuple[tuple[str, Split], ...] = (*((t, "train") for t in train), *((t, "held_out") for t in held_out))
        for stem, split in stems:
            if word:
                found += [Wording(intent, "word", scope, split, f"{stem} {suffix}") for suffix in short]
            if sentence:
                found.append(Wording(intent, "sentence", scope, split, stem))
    return tuple(found)


WORDINGS: tuple[Wording, ...] = _wordings()
_FORMS: frozenset[tuple[str, str]] = frozenset((wording.intent, wording.form) for wording in WORDINGS)


def wordings(intent: str, form: Form, split: Split) -> tuple[Wording, ...]:
    """The wordings of an intent in a form; empty where the intent has no such form."""
    return tuple(w for w in WORDINGS if (w.intent, w.form, w.split) == (intent, form, split))


def forms(intent: str) -> tuple[Form, ...]:
    """The forms in which an intent may be asked."""
    both: tuple[Form, ...] = ("word", "sentence")
    return tuple(form for form in both if (intent, form) in _FORMS)
