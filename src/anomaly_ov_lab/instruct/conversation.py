"""Conversations about one picture, made of what is known of it: several turns, or one question on demand.

Every conversation asks once whether there is an anomaly, answered by exactly "Yes." or "No.", and often a second time
in a sentence; the other questions and their order are random. Normal pictures are asked the same questions, those that
presuppose a defect less often: asked where it is, a model that is unsure whether there is one shall name a place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly_ov.errors import UsageError
from anomaly_ov_lab.data.synthetic import Facts
from anomaly_ov_lab.instruct.answers import Teller, Turn
from anomaly_ov_lab.instruct.labels import Known, seen_by
from anomaly_ov_lab.instruct.questions import INTENTS, SCOPES, Form, Scope, Split, Wording, drawn, forms
from anomaly_ov_lab.instruct.seen import Seen, seen_in

# How often an (intent, form) is asked, relative to each other; the short detection question is always asked.
_WEIGHTS: dict[tuple[str, Form], float] = {
    ("detect", "sentence"): 0.9, ("fine", "word"): 0.4, ("fine", "sentence"): 0.3, ("describe", "sentence"): 1.0,
    ("kind", "word"): 1.6, ("kind", "sentence"): 1.0, ("kind_check", "word"): 1.0, ("kind_check", "sentence"): 0.6,
    ("place", "word"): 1.6, ("place", "sentence"): 1.0, ("place_check", "word"): 0.8, ("place_check", "sentence"): 0.5,
    ("count", "word"): 0.5, ("count", "sentence"): 0.4, ("size", "word"): 0.5, ("size", "sentence"): 0.4,
    ("severity", "word"): 0.6, ("severity", "sentence"): 0.5, ("cause", "sentence"): 0.8, ("action", "sentence"): 0.8,
    ("surface", "word"): 0.6, ("surface", "sentence"): 0.5, ("surface_check", "word"): 0.5,
    ("surface_check", "sentence"): 0.3, ("colours", "word"): 0.4, ("colours", "sentence"): 0.4,
    ("report", "sentence"): 0.8,
}  # fmt: skip
_PRESUPPOSING = frozenset({"kind", "place", "size", "severity", "cause"})
_RARELY = 0.15
"""Weight of a presupposing question about a normal picture, relative to one about an anomalous picture."""
_DETECT: tuple[str, Form] = ("detect", "word")
_DESCRIBE: tuple[str, Form] = ("describe", "sentence")


@dataclass(frozen=True)
class Conversation:
    """Turns about one picture, in order."""

    turns: tuple[Turn, ...]


def conversation_about(
    about: Facts | Known,
    rng: np.random.Generator,
    turns: int = 6,
    split: Split = "train",
    short_first: bool = False,
    form: Form | None = None,
) -> Conversation:
    """``turns`` >= 1 turns about a synthetic picture, or a labelled real one (fewer only if there is less to ask).

    Of a real one only what its label and mask tell is asked. ``split``: the wordings to ask in, those of training,
    those held out from it, or those as people type. Equal state of ``rng``, equal conversation. ``short_first`` puts
    the short detection question first. ``form``: only questions of that form.
    """
    if turns < 1:
        raise UsageError(f"a conversation of {turns} turns", hint="ask for at least 1")
    seen = _seen(about)
    teller = Teller(seen, rng)
    plan = _plan(seen, rng, turns, short_first, form)
    return Conversation(tuple(teller.turn(_worded(seen, intent, form, split, rng)) for intent, form in plan))


def ask(
    about: Facts | Known, intent: str, rng: np.random.Generator, form: Form = "sentence", split: Split = "train"
) -> Turn:
    """One question of ``intent`` with its answer. Raises ``UsageError`` where it has no answer or no such form."""
    seen = _seen(about)
    if intent not in askable(seen) or form not in forms(intent):
        raise UsageError(
            f"no question of intent {intent!r} in form {form!r} can be asked about this picture",
            hint=f"intents: {', '.join(askable(seen))}",
        )
    return Teller(seen, rng).turn(_worded(seen, intent, form, split, rng))


def askable(seen: Seen) -> tuple[str, ...]:
    """The intents that have an answer for a picture; the same for the normal and the anomalous ones of a set."""
    allowed = {
        "kind": seen.kinds_known, "kind_check": seen.kinds_known, "cause": seen.kinds_known,
        "action": seen.kinds_known, "report": seen.kinds_known,
        "place": seen.places_known, "place_check": seen.places_known, "size": seen.places_known,
        "count": seen.measured, "severity": seen.measured,
        "surface": seen.thing is not None, "surface_check": seen.thing is not None, "colours": bool(seen.colours),
    }  # fmt: skip
    return tuple(intent for intent in INTENTS if allowed.get(intent, True))


def _seen(about: Facts | Known) -> Seen:
    return seen_in(about) if isinstance(about, Facts) else seen_by(about)


def _plan(
    seen: Seen, rng: np.random.Generator, turns: int, short_first: bool, only: Form | None
) -> list[tuple[str, Form]]:
    """What to ask, in order: the short detection question among others; mostly detection or description first."""
    possible = askable(seen)
    options = [option for option in _WEIGHTS if option[0] in possible and only in (None, option[1])]
    rarely = frozenset() if seen.defects else _PRESUPPOSING
    weights = np.asarray([_WEIGHTS[option] * (_RARELY if option[0] in rarely else 1.0) for option in options])
    count = min(turns - 1, len(options))
    chosen = rng.choice(len(options), count, replace=False, p=weights / weights.sum())
    plan = [_DETECT, *(options[int(i)] for i in chosen)]
    order = [plan[int(i)] for i in rng.permutation(len(plan))]
    draw = rng.random()
    if short_first or draw < 0.3:
        first: tuple[str, Form] | None = _DETECT
    else:
        wanted = _DESCRIBE if draw < 0.55 else ("detect", "sentence") if draw < 0.75 else None
        first = wanted if wanted in order else None
    return order if first is None else [first, *(option for option in order if option != first)]


def _worded(seen: Seen, intent: str, form: Form, split: Split, rng: np.random.Generator) -> Wording:
    """A wording at random; where the defects are not counted, none that asks for every place."""
    scopes: tuple[Scope, ...] = SCOPES if seen.measured or intent != "place" else ("main",)
    return drawn(intent, form, split, rng, scopes)
