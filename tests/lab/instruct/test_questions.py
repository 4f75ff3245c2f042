"""Wordings: many, distinct, every one reachable, some of every intent held out from training."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest

from anomaly_ov_lab.instruct import ask, phrases, reading
from anomaly_ov_lab.instruct.questions import (
    INTENTS,
    ONE_WORD,
    WORDINGS,
    YES_NO,
    Form,
    Split,
    drawn,
    forms,
    paraphrased,
    wordings,
)
from instruct_fixtures import defect, facts


def test_wordings_are_distinct_and_at_least_forty_stems() -> None:
    texts = [wording.text for wording in WORDINGS]
    assert len(set(texts)) == len(texts)
    stems = {w.text for w in WORDINGS if w.split == "train" and (w.form == "sentence")}
    assert len(stems) >= 60


def test_every_intent_and_form_has_training_and_held_out_wordings() -> None:
    for intent in INTENTS:
        assert forms(intent)
        for form in forms(intent):
            train, held_out, typed = (wordings(intent, form, split) for split in get_args(Split))
            assert len(train) >= 3
            assert held_out
            assert typed
            assert 0.1 <= len(held_out) / (len(train) + len(held_out)) <= 0.26


def asked(intent: str, form: Form, split: Split, count: int = 250) -> list[str]:
    """Questions about one picture; its kind, place and surface stand in the slots."""
    rng = np.random.default_rng(0)
    about = facts(defect("scratch", "top"), surface="wood")
    return [ask(about, intent, rng, form, split).question for _ in range(count)]


@pytest.mark.parametrize("split", ["held_out", "typed"])
def test_wordings_kept_from_training_are_asked_only_when_asked_for_and_all_are_reachable(split: Split) -> None:
    for intent in INTENTS:
        for form in forms(intent):
            known = [re.escape(wording.text) for wording in wordings(intent, form, split)]
            patterns = [re.compile(re.sub(r"\\{\w+\\}", ".+", text)) for text in known]
            texts = asked(intent, form, split)
            assert all(any(pattern.fullmatch(text) for pattern in patterns) for text in texts)
            assert all(any(pattern.fullmatch(text) for text in texts) for pattern in patterns), (intent, form)


@pytest.mark.parametrize("intent", INTENTS)
def test_training_asks_in_the_wordings_written_out_and_in_many_more(intent: str) -> None:
    rng = np.random.default_rng(0)
    for form in forms(intent):
        texts = [drawn(intent, form, "train", rng).text for _ in range(600)]
        written = {w.text for w in wordings(intent, form, "train")}
        assert written <= set(texts)
        assert 0.24 < np.mean([text in written for text in texts]) < 0.55
        assert len(set(texts)) > 200
        stems = {stem for _, stem in paraphrased(intent, form)}
        assert 100 <= len(stems) <= 3000


def undressed(text: str) -> str:
    """Words in lower case without what ``phrases.put`` and the requests for a short answer add to a stem."""
    for request in (*YES_NO, *ONE_WORD, *phrases.YES_NO, *phrases.ONE_WORD):
        text = re.sub(re.escape(request.rstrip(".?")) + r"[.?]?$", "", text, flags=re.IGNORECASE)
    text = re.sub(rf"^({'|'.join(map(re.escape, phrases.OPENERS))})", "", text, flags=re.IGNORECASE)
    words = re.findall(r"[\w{}]+", re.sub(r"(?<=what|here)'s\b", " is", text.lower()))
    return " ".join(words[:-1] if words[-1:] == ["please"] else words)


KEPT = {undressed(w.text) for w in WORDINGS if w.split != "train"}


@pytest.mark.parametrize("intent", INTENTS)
def test_training_asks_nothing_that_is_held_out_in_any_dress(intent: str) -> None:
    rng = np.random.default_rng(1)
    for form in forms(intent):
        assert not KEPT & {undressed(stem) for _, stem in paraphrased(intent, form)}
        assert not KEPT & {undressed(drawn(intent, form, "train", rng).text) for _ in range(400)}


def test_what_people_type_is_kept_from_training() -> None:
    typed = {w.text for w in WORDINGS if w.split == "typed"}
    assert typed >= {
        "What should I do?", "What should I do now?", "Anything wrong?", "Where exactly?", "Why?",
        "How did that happen?", "How bad is it really?", "What am I looking at?",
    }  # fmt: skip
    near = {stem for intent in INTENTS for _, stem in paraphrased(intent, "sentence")}
    assert near >= {"What should we do?", "What do I do now?", "Where?", "Why is that?", "How did this happen?"}
    assert not near & typed


def test_a_wording_belongs_to_one_intent_and_scope() -> None:
    owners: dict[str, set[tuple[str, str]]] = {}
    for intent in INTENTS:
        for scope, stem in paraphrased(intent, "sentence"):
            owners.setdefault(undressed(stem), set()).add((intent, scope))
    assert {stem: owner for stem, owner in owners.items() if len(owner) > 1} == {}


def test_the_scope_of_a_wording_is_true() -> None:
    for intent in ("kind", "place"):
        for scope, stem in paraphrased(intent, "sentence"):
            if scope == "main":
                assert not re.search(r"\b(defects|faults|they|all)\b(?! wrong)", stem.replace("above all", "")), stem
            else:
                assert not re.search(r"\b(main|most|mainly)\b", stem), stem


def test_paraphrases_are_plain_questions_with_the_slot_of_their_intent() -> None:
    slots = {"kind_check": "{kind}", "place_check": "{place}", "surface_check": "{other}"}
    for intent in INTENTS:
        for _, stem in paraphrased(intent, "sentence"):
            assert re.findall(r"\{\w+\}", stem) == ([slots[intent]] if intent in slots else []), stem
            assert re.fullmatch(r"[A-Z{][A-Za-z{},:' -]*[.?]", stem), stem
            assert not re.search(" [ ,?.]", stem)
            assert len(stem.split()) <= 16
            assert not reading.kinds(stem), stem
            assert not reading.place(stem) or intent != "place_check", stem


def test_people_type_without_capitals_signs_and_with_contractions() -> None:
    texts = asked("surface", "sentence", "train", 600)
    assert 0.1 < np.mean([text == text.lower() for text in texts]) < 0.35
    assert 0.1 < np.mean([text[-1].isalpha() for text in texts]) < 0.3
    assert any("hat's" in text for text in texts)
    assert any(text.lower().startswith(("so, ", "ok, ")) for text in texts)
    assert texts == asked("surface", "sentence", "train", 600)


def test_forms_that_do_not_exist_have_no_wordings() -> None:
    assert wordings("report", "word", "train") == ()
    assert forms("report") == ("sentence",)


def test_yes_no_questions_say_how_to_answer() -> None:
    short = [w for w in WORDINGS if w.intent == "detect" and w.form == "word"]
    short += [drawn("detect", "word", "train", np.random.default_rng(seed)) for seed in range(200)]
    assert all("yes" in w.text.lower() and "no" in w.text.lower().split("yes")[1] for w in short)
    assert any(w.text == "Are there any defects for the object in the image? Please reply with 'Yes' or 'No'."
               for w in short if w.split == "train")  # fmt: skip
