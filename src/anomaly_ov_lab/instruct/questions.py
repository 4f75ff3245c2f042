"""How questions are worded, by intent; some wordings of every intent are held out from training.

``form`` "word" asks for a word or a phrase (for yes/no: exactly "Yes." or "No."), "sentence" for a sentence. ``scope``
"main" asks about the most obvious defect, "all" about every defect. Slots: {kind} "a scratch", {place} "in the
centre", {other} "wood".

``WORDINGS`` are written out here (split "typed": in ``TYPED``). Training draws from them and from the thousands more
that ``paraphrases`` stands for (``drawn``), none of which is held out in other dress.

``TYPED``: questions as people type them, written by hand and kept out of training whole (case and signs aside). They
measure what the wordings held out from training cannot: short, careless, everyday questions. Every intent is asked in
every form it has. Never add one of them to the wordings of training; it is dropped there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from anomaly_ov_lab.instruct import phrases
from anomaly_ov_lab.instruct.paraphrases import paraphrases
from anomaly_ov_lab.instruct.phrases import bare

TYPED: tuple[tuple[str, Literal["word", "sentence"], Literal["main", "all"], str], ...] = (
    ("detect", "sentence", "all", "Anything wrong?"),
    ("detect", "sentence", "all", "is this thing broken"),
    ("detect", "sentence", "all", "do you notice anything odd?"),
    ("detect", "word", "all", "any defects? just yes or no"),
    ("detect", "word", "all", "Is it damaged at all? Yes or no, please."),
    ("fine", "sentence", "all", "looks good to you?"),
    ("fine", "sentence", "all", "Would this pass inspection?"),
    ("fine", "word", "all", "is it still ok? yes/no"),
    ("describe", "sentence", "all", "tell me about this picture"),
    ("describe", "sentence", "all", "What's going on here?"),
    ("kind", "sentence", "all", "what's the matter with it?"),
    ("kind", "sentence", "main", "What is the biggest problem you see?"),
    ("kind", "word", "main", "what sort of flaw is it mainly? one or two words"),
    ("kind_check", "sentence", "all", "could that be {kind}?"),
    ("kind_check", "word", "all", "Got {kind} in there? Yes or no."),
    ("place", "sentence", "main", "Where exactly?"),
    ("place", "sentence", "main", "where do i have to look"),
    ("place", "word", "main", "And where is that? Short answer."),
    ("place_check", "sentence", "all", "What about {place}, anything bad there?"),
    ("place_check", "word", "all", "is it broken {place}? yes or no"),
    ("count", "sentence", "all", "how many did you find"),
    ("count", "sentence", "all", "So how many problems in total?"),
    ("count", "word", "all", "number of faults? only the number"),
    ("size", "sentence", "main", "how large is that thing?"),
    ("size", "word", "main", "big or small? one word"),
    ("severity", "sentence", "main", "How bad is it really?"),
    ("severity", "sentence", "main", "Do I need to worry?"),
    ("severity", "word", "main", "is that serious? just a word please"),
    ("cause", "sentence", "main", "Why?"),
    ("cause", "sentence", "main", "How did that happen?"),
    ("cause", "sentence", "main", "any idea where this comes from"),
    ("action", "sentence", "main", "What should I do?"),
    ("action", "sentence", "main", "What should I do now?"),
    ("action", "sentence", "main", "can this be saved"),
    ("surface", "sentence", "all", "What am I looking at?"),
    ("surface", "sentence", "all", "what is that supposed to be"),
    ("surface", "word", "all", "object name please, a word will do"),
    ("surface_check", "sentence", "all", "Would you say that is {other}?"),
    ("surface_check", "word", "all", "{other}, yes or no?"),
    ("colours", "sentence", "all", "what color is it mostly?"),
    ("colours", "word", "all", "colours? just a few words"),
    ("report", "sentence", "main", "Can I have the whole story?"),
    ("report", "sentence", "main", "report please, with everything that matters"),
)

Split = Literal["train", "held_out", "typed"]
Form = Literal["word", "sentence"]
Scope = Literal["main", "all"]
SCOPES: tuple[Scope, ...] = ("main", "all")

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
        stems: tuple[tuple[str, Split], ...] = (*((t, "train") for t in train), *((t, "held_out") for t in held_out))
        for stem, split in stems:
            if word:
                found += [Wording(intent, "word", scope, split, f"{stem} {suffix}") for suffix in _requests(intent)]
            if sentence:
                found.append(Wording(intent, "sentence", scope, split, stem))
    return (*found, *(Wording(intent, form, scope, "typed", text) for intent, form, scope, text in TYPED))


def _requests(intent: str) -> tuple[str, ...]:
    return YES_NO if intent in ("detect", "fine") or intent.endswith("_check") else ONE_WORD


WORDINGS: tuple[Wording, ...] = _wordings()
_FORMS: frozenset[tuple[str, str]] = frozenset((wording.intent, wording.form) for wording in WORDINGS)
_AS_WRITTEN = 0.3
"""How often training asks in a wording of ``WORDINGS``; else each template is as likely, however much it stands for."""


def wordings(intent: str, form: Form, split: Split) -> tuple[Wording, ...]:
    """The wordings of an intent in a form that are written out; empty where the intent has no such form."""
    return tuple(w for w in WORDINGS if (w.intent, w.form, w.split) == (intent, form, split))


def drawn(
    intent: str, form: Form, split: Split, rng: np.random.Generator, scopes: Collection[Scope] = SCOPES
) -> Wording:
    """A wording at random, of one of ``scopes``; in training often a paraphrase, typed as people do.

    The intent must have the form. Equal state of ``rng``, equal wording.
    """
    templates = [(scope, stems) for scope, stems in _templates(intent, form) if scope in scopes]
    if split != "train" or not templates or rng.random() < _AS_WRITTEN:
        options = [wording for wording in wordings(intent, form, split) if wording.scope in scopes]
        return options[int(rng.integers(len(options)))]
    scope, stems = templates[int(rng.integers(len(templates)))]
    stem = stems[int(rng.integers(len(stems)))]
    more = phrases.YES_NO if _requests(intent) is YES_NO else phrases.ONE_WORD
    requests = (*_requests(intent), *more) if form == "word" else ("",)
    request = requests[int(rng.integers(len(requests)))]
    return Wording(intent, form, scope, split, phrases.put(stem, request, rng))


def paraphrased(intent: str, form: Form) -> tuple[tuple[Scope, str], ...]:
    """What training may ask, each with its scope, before ``phrases.put`` dresses it; nothing that is held out."""
    return tuple((scope, stem) for scope, stems in _templates(intent, form) for stem in stems)


@cache
def _templates(intent: str, form: Form) -> tuple[tuple[Scope, tuple[str, ...]], ...]:
    """Each template's scope and texts; the table's stems of training count as one template."""
    found: list[tuple[Scope, tuple[str, ...]]] = []
    for name, scope, train, _, word, sentence in _TABLE:
        if name == intent and (word if form == "word" else sentence):
            for stems in (train, *paraphrases(intent, scope)):
                found.append((scope, tuple(stem for stem in stems if bare(stem) not in _reserved())))
    return tuple((scope, stems) for scope, stems in found if stems)


@cache
def _reserved() -> frozenset[str]:
    """The held-out and the typed wordings, bare; those of the word form with and without their request."""
    held_out = {stem for _, _, _, stems, _, _ in _TABLE for stem in stems} | {text for _, _, _, text in TYPED}
    unasked = {text[: text.index("?") + 1] for *_, text in TYPED if "?" in text}
    return frozenset(bare(text) for text in held_out | unasked)


def forms(intent: str) -> tuple[Form, ...]:
    """The forms in which an intent may be asked."""
    both: tuple[Form, ...] = ("word", "sentence")
    return tuple(form for form in both if (intent, form) in _FORMS)
