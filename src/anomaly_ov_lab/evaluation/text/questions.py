"""Questions about pictures with their right answers, whatever file they came from (see ``layouts``).

``ImageQuestions`` are what is asked about one image: turns that build on each other (``remember``), or questions that
each stand alone. Four kinds of question:

* ``detect``: yes or no; asked of every labelled picture in several phrasings, of which the first is the released one.
* ``low``, ``complex``: free text against a reference answer (low-level: what is to be seen; complex: why, what to do).
* ``choice``: one of several lettered options.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from anomaly_ov.errors import UsageError
from anomaly_ov_lab.instruct.questions import YES_NO, wordings

Kind = Literal["detect", "low", "complex", "choice"]
OPEN: tuple[Kind, ...] = ("low", "complex")

DETECT = "Are there any defects for the object in the image? Please reply with 'Yes' or 'No'."
"""The detection question of VisA-D&R (released code, commit d85bec0, scripts/eval/test_detection.py)."""
_SPLITS: tuple[Literal["train", "held_out"], ...] = ("train", "held_out")
ASK_LETTER = "Answer with the letter of the right option only."


@dataclass(frozen=True)
class Question:
    """One question. ``id``: unique within its set. ``text``: as it is put, options included.

    ``reference``: the right answer: "yes" or "no", a letter, or words. ``topic``: the type of a choice question.
    ``options``: letters with their texts. ``phrasing``: which of the detection question's wordings this is.
    """

    id: str
    kind: Kind
    text: str
    reference: str
    topic: str = ""
    options: tuple[tuple[str, str], ...] = ()
    phrasing: int = 0


@dataclass(frozen=True)
class ImageQuestions:
    """What is asked about ``image``, in order. ``id``: unique within its set, the picture's path in the list.

    ``remember``: whether later questions are asked after the earlier ones with the model's own answers.
    """

    id: str
    image: Path
    category: str
    questions: tuple[Question, ...]
    remember: bool = False


@dataclass(frozen=True)
class QuestionSet:
    """``phrasings``: the wordings of the detection question. ``notes``: what a reader of the figures should know."""

    name: str
    layout: str
    conversations: tuple[ImageQuestions, ...]
    phrasings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """In order of first appearance."""
        return tuple(dict.fromkeys(one.category for one in self.conversations))

    @property
    def counts(self) -> dict[str, int]:
        """Pictures asked about, and questions by kind."""
        kinds = Counter(question.kind for one in self.conversations for question in one.questions)
        return {"conversations": len(self.conversations), **dict(sorted(kinds.items()))}

    @property
    def digest(self) -> str:
        """16 hex digits of every question and its right answer; pictures' bytes are told apart row by row."""
        parts = [repr((one.id, one.category, one.remember, one.questions)) for one in self.conversations]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def has(self, *kinds: Kind) -> bool:
        """Whether any question is of these kinds."""
        return any(question.kind in kinds for one in self.conversations for question in one.questions)

    def of_categories(self, wanted: Sequence[str]) -> QuestionSet:
        """Only these categories. Raises ``UsageError`` for one that is not there."""
        unknown = [name for name in wanted if name not in self.categories]
        if unknown:
            known = ", ".join(self.categories[:20])
            raise UsageError(f"{self.name} has no class {', '.join(unknown)}", hint=f"it has: {known}")
        return replace(self, conversations=tuple(one for one in self.conversations if one.category in wanted))

    def first(self, limit: int) -> QuestionSet:
        """``limit`` pictures of every category with all that is asked about them, normal and anomalous ones in turn.

        So each category stays represented, and both labels, where the detection question is asked.
        """
        labels: dict[str, dict[Path, str]] = defaultdict(dict)
        for one in self.conversations:
            own = labels[one.category]
            own[one.image] = _label(one) or own.get(one.image, "")
        kept = {category: set(_in_turn(own)[:limit]) for category, own in labels.items()}
        return replace(self, conversations=tuple(one for one in self.conversations if one.image in kept[one.category]))


def _label(one: ImageQuestions) -> str:
    """The right answer to the detection question, empty where it is not asked."""
    return next((question.reference for question in one.questions if question.kind == "detect"), "")


def _in_turn(labels: Mapping[Path, str]) -> list[Path]:
    """The first picture of each label, then the second of each, and so on; in their order otherwise."""
    seen: Counter[str] = Counter()
    rank = {}
    for image, label in labels.items():
        rank[image] = seen[label]
        seen[label] += 1
    return sorted(rank, key=rank.__getitem__)


def phrasings(count: int) -> tuple[str, ...]:
    """The first ``count`` wordings of the detection question, the released one first; the last two no training saw.

    Raises ``UsageError`` for more than there are.
    """
    asked = [wording.text for split in _SPLITS for wording in wordings("detect", "word", split)]
    stems = [text.removesuffix(YES_NO[0]) for text in asked if text.endswith(YES_NO[0])]
    if not 1 <= count <= len(stems):
        raise UsageError(f"{count} phrasings of the detection question", hint=f"1 to {len(stems)} are known")
    return tuple(stem + YES_NO[k % len(YES_NO)] for k, stem in enumerate(stems[:count]))


def detection(conversation: str, label: int, texts: Sequence[str]) -> tuple[Question, ...]:
    """The detection question in each of its wordings, about a picture with ``label`` (0 normal, 1 anomalous)."""
    truth = "yes" if label else "no"
    return tuple(
        Question(f"{conversation}#detect{k}", "detect", text, truth, phrasing=k) for k, text in enumerate(texts)
    )


def choice(id_: str, question: str, options: Sequence[tuple[str, str]], right: str, topic: str) -> Question:
    """A multiple-choice question with its options, one a line, and the request for a letter."""
    listed = "\n".join(f"{letter}. {text}" for letter, text in options)
    return Question(id_, "choice", f"{question}\n{listed}\n{ASK_LETTER}", right, topic, tuple(options))
