"""Wordings: many, distinct, every one reachable, some of every intent held out from training."""

from __future__ import annotations

import numpy as np

from anomaly_ov.instruct import ask
from anomaly_ov.instruct.questions import INTENTS, WORDINGS, forms, wordings
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
            train, held_out = (wordings(intent, form, split) for split in ("train", "held_out"))
            assert len(train) >= 3
            assert held_out
            assert 0.1 <= len(held_out) / (len(train) + len(held_out)) <= 0.26


def test_held_out_wordings_are_asked_only_when_asked_for_and_all_are_reachable() -> None:
    about = facts(defect("scratch", "top"), surface="wood")
    for intent in INTENTS:
        for form in forms(intent):
            for split in ("train", "held_out"):
                stems = {w.text.split("{")[0] for w in wordings(intent, form, split)}
                rng = np.random.default_rng(0)
                asked = [ask(about, intent, rng, form, split).question for _ in range(250)]
                assert all(any(text.startswith(stem) for stem in stems) for text in asked)
                assert all(any(text.startswith(stem) for text in asked) for stem in stems), (intent, form, split)


def test_forms_that_do_not_exist_have_no_wordings() -> None:
    assert wordings("report", "word", "train") == ()
    assert forms("report") == ("sentence",)


def test_yes_no_questions_say_how_to_answer() -> None:
    short = [w for w in WORDINGS if w.intent == "detect" and w.form == "word"]
    assert all("yes" in w.text.lower() and "no" in w.text.lower().split("yes")[1] for w in short)
    assert any(w.text == "Are there any defects for the object in the image? Please reply with 'Yes' or 'No'."
               for w in short if w.split == "train")  # fmt: skip
