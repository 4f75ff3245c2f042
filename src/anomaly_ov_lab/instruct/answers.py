"""``Teller``: answers a question about one picture, saying only what is known of it. One method per intent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly_ov.images.places import PLACES
from anomaly_ov_lab.instruct.knowledge import KINDS, OBJECTS, SURFACES, URGENCY, may_be_confused
from anomaly_ov_lab.instruct.phrases import (
    asked_kind,
    capital,
    defect_phrase,
    in_place,
    kind_phrase,
    kind_word,
    listed,
    pick,
    whole,
)
from anomaly_ov_lab.instruct.questions import Wording
from anomaly_ov_lab.instruct.seen import Seen, SeenDefect

NUMBERS = ("none", "one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Turn:
    """A question, its answer, and which of ``questions.INTENTS`` it is about."""

    question: str
    answer: str
    intent: str


class Teller:
    """Tells about one picture; the likely cause and the action of a kind stay the same throughout.

    All defects are meant where the wording's scope is "all", the most obvious one (``seen.defects[0]``) where "main".
    """

    def __init__(self, seen: Seen, rng: np.random.Generator) -> None:
        self.seen = seen
        self.rng = rng
        kinds = {defect.kind for defect in seen.defects if defect.kind}
        self.causes = {kind: pick(rng, KINDS[kind].causes) for kind in sorted(kinds)}
        self.actions = {kind: pick(rng, KINDS[kind].actions) for kind in sorted(kinds)}

    def turn(self, wording: Wording) -> Turn:
        """Fills the wording's slot, if it has one, and answers."""
        answer = getattr(self, wording.intent)  # a method for each of ``questions.INTENTS``
        if wording.intent.endswith("_check"):
            slot, phrase, truth, sentence = answer()
            short = "Yes." if truth else "No."
            question = wording.text.replace(slot, phrase)
            return Turn(question, short if wording.form == "word" else sentence, wording.intent)
        return Turn(wording.text, answer(wording), wording.intent)

    # Yes or no about the picture.

    def detect(self, wording: Wording) -> str:
        if wording.form == "word":
            return "Yes." if self.seen.defects else "No."
        return f"Yes, {self._found()}." if self.seen.defects else f"No, {self._nothing()}."

    def fine(self, wording: Wording) -> str:
        if wording.form == "word":
            return "No." if self.seen.defects else "Yes."
        return f"No, {self._found()}." if self.seen.defects else f"Yes, {self._nothing()}."

    # Yes or no about one kind, place or thing: (slot, what stands in it, truth, answer in a sentence).

    def kind_check(self) -> tuple[str, str, bool, str]:
        present = [defect for defect in self.seen.defects if defect.kind]
        truth = bool(present) and self._coin()
        if truth:
            defect = present[int(self.rng.integers(len(present)))]
            sentence = f"Yes, there is {defect_phrase(defect, self.rng)}."
            return "{kind}", asked_kind(defect.kind or "", self.rng), True, sentence
        others = sorted(KINDS.keys() - {defect.kind for defect in present})
        sentence = f"No, I see {self._all()}." if present else f"No, {self._nothing()}."
        return "{kind}", asked_kind(pick(self.rng, others), self.rng), False, sentence

    def place_check(self) -> tuple[str, str, bool, str]:
        present = [defect.place for defect in self.seen.defects if defect.place]
        absent = [place for place in PLACES if place not in (*present, *self.seen.touched)]
        if present and (not absent or self._coin()):
            place = pick(self.rng, present)
            here = next(defect for defect in self.seen.defects if defect.place == place)
            sentence = f"Yes, {kind_phrase(here.kind, self.rng)} is {in_place(place, self.rng)}."
            return "{place}", in_place(place, self.rng), True, sentence
        place = pick(self.rng, absent)
        sentence = f"No, it is {listed(self._places())}." if present else f"No, {self._nothing()}."
        return "{place}", in_place(place, self.rng), False, sentence

    def surface_check(self) -> tuple[str, str, bool, str]:
        shown = [thing for thing in (self.seen.thing, self.seen.ground) if thing]
        truth = self._coin()
        if truth:
            return "{other}", pick(self.rng, [thing.phrase for thing in shown]), True, f"Yes, I see {whole(self.seen)}."
        others = [
            thing.phrase
            for thing in (*SURFACES.values(), *OBJECTS.values())
            if not any(may_be_confused(thing.name, own.name) for own in shown)
        ]
        return "{other}", pick(self.rng, others), False, f"No, this is {whole(self.seen)}."

    # In words.

    def describe(self, wording: Wording) -> str:
        scene = whole(self.seen)
        if not self.seen.defects:
            return self._one_of(
                f"The picture shows {scene}. Nothing is wrong.",
                f"This is {scene} without any defect.",
                f"I see {scene}. It looks normal.",
                f"This is {scene}; {self._nothing()}.",
            )
        found = self._all(severity=True)
        return self._one_of(
            f"The picture shows {scene} with {found}.",
            f"This is {scene}. There is {found}.",
            f"I see {scene}. It has {found}.",
            f"This is {scene} with {found}.",
        )

    def kind(self, wording: Wording) -> str:
        if not self.seen.defects:
            return "none." if wording.form == "word" else self._none()
        meant = self._meant(wording)
        if wording.form == "word":
            return ", ".join(dict.fromkeys(kind_word(defect) for defect in meant)) + "."
        phrases = list(dict.fromkeys(kind_phrase(kind, self.rng) for kind in dict.fromkeys(d.kind for d in meant)))
        return self._one_of(
            f"It is {listed(phrases)}.",
            f"There is {listed(phrases)}.",
            f"I see {listed(phrases)}.",
            f"The picture shows {listed(phrases)}.",
        )

    def place(self, wording: Wording) -> str:
        if not self.seen.defects:
            return "nowhere." if wording.form == "word" else f"Nowhere; {self._nothing()}."
        main = self.seen.defects[0]
        if wording.form == "word":
            return f"{main.place}."
        if wording.scope == "all" and len(self.seen.defects) > 1:
            return f"There is {self._all()}."
        where = in_place(main.place or "", self.rng)
        return self._one_of(
            f"It is {where}.", f"You can see it {where}.", f"{capital(where)}.", f"The {kind_word(main)} is {where}."
        )

    def count(self, wording: Wording) -> str:
        number = len(self.seen.defects)
        if wording.form == "word":
            return f"{_number(number)}."
        if number == 0:
            return self._one_of("There are none.", "There is none; nothing is wrong.", "I see none.")
        plural = "There is one defect" if number == 1 else f"There are {_number(number)} defects"
        return self._one_of(f"{plural}.", f"{plural}: {self._all()}.", f"I count {_number(number)}.")

    def size(self, wording: Wording) -> str:
        return self._rated(wording, self.seen.defects[0].size if self.seen.defects else None, "to measure")

    def severity(self, wording: Wording) -> str:
        return self._rated(wording, self.seen.defects[0].severity if self.seen.defects else None, "to rate")

    def cause(self, wording: Wording) -> str:
        if not self.seen.defects:
            return self._one_of(
                "There is no cause, because there is no defect.", f"Nothing happened; {self._nothing()}."
            )
        main = self.seen.defects[0]
        cause = self.causes[main.kind or ""]
        return self._one_of(
            f"The likely cause is {cause}.",
            f"Most likely {cause}.",
            f"It may come from {cause}.",
            f"The {kind_word(main)} may come from {cause}.",
        )

    def action(self, wording: Wording) -> str:
        if not self.seen.defects:
            return self._one_of(
                "No action is needed.", f"Nothing; {self._nothing()}.", "Nothing needs to be done.", "Keep it as it is."
            )
        main = self.seen.defects[0]
        action = self.actions[main.kind or ""]
        advice = self._one_of(f"You should {action}.", f"{capital(action)}.", f"I would {action}.",
                              f"Because of the {kind_word(main)}, {action}.")  # fmt: skip
        return f"{advice} {URGENCY[main.severity]}." if main.severity and self._coin() else advice

    def surface(self, wording: Wording) -> str:
        if wording.form == "word":
            return f"{self.seen.thing.name if self.seen.thing else 'object'}."
        scene = whole(self.seen)
        return self._one_of(f"This is {scene}.", f"The picture shows {scene}.", f"I see {scene}.")

    def colours(self, wording: Wording) -> str:
        if wording.form == "word":
            return ", ".join(self.seen.colours) + "."
        names = listed(self.seen.colours)
        main = "The main colour is" if len(self.seen.colours) == 1 else "The main colours are"
        return self._one_of(f"{main} {names}.", f"I see mostly {names}.", f"Mostly {names}.")

    def report(self, wording: Wording) -> str:
        scene = capital(whole(self.seen))
        if not self.seen.defects:
            return self._one_of(
                f"{scene}. No defect was found. No action is needed.",
                f"{scene}. Kind: none. Place: nowhere. Severity: none. Action: none.",
                f"{scene}. It looks normal. There is no cause and nothing needs to be done.",
            )
        main, others = self.seen.defects[0], self.seen.defects[1:]
        cause, action = self.causes[main.kind or ""], self.actions[main.kind or ""]
        urgency = f" {URGENCY[main.severity]}." if main.severity else ""
        more = f" There is also {self._phrases(others)}." if others else ""
        if self._coin():
            found = defect_phrase(main, self.rng, severity=True)
            return f"{scene}. There is {found}. It may come from {cause}. You should {action}.{urgency}{more}"
        fields = (("Kind", kind_word(main)), ("Place", main.place), ("Severity", main.severity),
                  ("Likely cause", cause), ("Action", action))  # fmt: skip
        return f"{scene}. {' '.join(f'{name}: {value}.' for name, value in fields if value)}{urgency}{more}"

    # Pieces.

    def _rated(self, wording: Wording, word: str | None, purpose: str) -> str:
        if word is None:
            return "none." if wording.form == "word" else f"There is no defect {purpose}."
        if wording.form == "word":
            return f"{word}."
        name = kind_word(self.seen.defects[0])
        return self._one_of(f"It is {word}.", f"The {name} is {word}.", f"I would call it {word}.")

    def _found(self) -> str:
        """After "Yes, " or "No, " about an anomalous picture."""
        main = self.seen.defects[0]
        options = [f"there is {self._all()}", f"I see {kind_phrase(main.kind, self.rng)}", "something is wrong"]
        if main.place:
            options.append(f"there is a defect {in_place(main.place, self.rng)}")
        return self._one_of(*options)

    def _nothing(self) -> str:
        """After a comma, about a normal picture."""
        options = ["it looks normal", "nothing is wrong", "I see no defect", "everything looks fine"]
        if self.seen.thing:
            options.append(f"nothing is wrong with the {self.seen.thing.name}")
        return self._one_of(*options)

    def _none(self) -> str:
        return self._one_of("There is none.", "There is no defect.", f"None; {self._nothing()}.", "I see no defect.")

    def _meant(self, wording: Wording) -> tuple[SeenDefect, ...]:
        return self.seen.defects[:1] if wording.scope == "main" else self.seen.defects

    def _all(self, severity: bool = False) -> str:
        return self._phrases(self.seen.defects, severity)

    def _phrases(self, defects: tuple[SeenDefect, ...], severity: bool = False) -> str:
        return listed([defect_phrase(defect, self.rng, severity) for defect in defects])

    def _places(self) -> list[str]:
        return [in_place(place, self.rng) for place in dict.fromkeys(d.place for d in self.seen.defects) if place]

    def _one_of(self, *options: str) -> str:
        return pick(self.rng, options)

    def _coin(self) -> bool:
        return bool(self.rng.random() < 0.5)


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)
