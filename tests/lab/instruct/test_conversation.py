"""Conversations state the facts, all of a question's facts where it asks for all, and nothing else."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from anomaly_ov.errors import UsageError
from anomaly_ov_lab.data.synthetic import Facts, generate, normal
from anomaly_ov_lab.instruct import Turn, ask, conversation_about, reading
from anomaly_ov_lab.instruct.answers import Teller
from anomaly_ov_lab.instruct.conversation import askable
from anomaly_ov_lab.instruct.knowledge import KINDS
from anomaly_ov_lab.instruct.labels import Known
from anomaly_ov_lab.instruct.questions import INTENTS, SCOPES, drawn, forms, paraphrased
from anomaly_ov_lab.instruct.seen import seen_in
from instruct_fixtures import defect, facts, random_facts

SEEDS = range(400)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def all_turns(seeds: range = SEEDS, turns: int = 12) -> list[tuple[Facts, Turn]]:
    made = []
    for seed in seeds:
        about = random_facts(seed)
        conversation = conversation_about(about, rng(seed), turns, "held_out" if seed % 3 == 0 else "train")
        made += [(about, turn) for turn in conversation.turns]
    return made


TURNS = all_turns()


def check_against(about: Facts, turn: Turn) -> None:
    """Reads the answer back and compares it with the facts."""
    seen = seen_in(about)
    main = seen.defects[0] if seen.defects else None
    kinds, places = {d.kind for d in about.defects}, {d.place for d in about.defects}
    said_kinds, said_places = reading.kinds(turn.answer), reading.places(turn.answer)
    assert said_kinds <= kinds, turn
    assert said_places <= places, turn
    if turn.intent == "kind":  # of the main defect or of all, as the scope of the question is
        assert said_kinds in ({main.kind} if main else set(), kinds), turn
    if turn.intent == "place":
        assert said_places in ({main.place} if main else set(), places), turn
    if turn.intent == "severity":
        assert reading.severity(turn.answer) == (main.severity if main else None), turn
    if turn.intent == "size":
        assert reading.size(turn.answer) == (main.size if main else None), turn
    if turn.intent == "count":
        assert reading.count(turn.answer) == len(about.defects), turn
    if turn.intent in ("detect", "fine"):
        assert reading.yes_no(turn.answer) is (bool(about.defects) == (turn.intent == "detect")), turn
    if turn.intent in ("describe", "report") and main:
        assert main.kind in said_kinds, turn
        assert main.place in said_places, turn
        assert turn.intent == "report" or said_kinds == kinds, turn


def test_answers_read_back_are_the_facts() -> None:
    for about, turn in TURNS:
        check_against(about, turn)
    assert {turn.intent for _, turn in TURNS} == set(INTENTS)


@pytest.mark.parametrize("seed", range(8))
def test_drawn_pictures_too(seed: int) -> None:
    about = (generate if seed % 2 else normal)(seed, 64).facts
    for turn in conversation_about(about, rng(seed), 20).turns:
        check_against(about, turn)


@pytest.mark.parametrize("seed", range(20))
def test_a_question_for_the_main_defect_names_it_and_one_for_all_names_all(seed: int) -> None:
    about = random_facts(seed, True)
    seen = seen_in(about)
    for intent, read in (("kind", reading.kinds), ("place", reading.places)):
        for form in forms(intent):
            wording = drawn(intent, form, "train", rng(seed))
            meant = seen.defects[:1] if wording.scope == "main" else seen.defects
            answer = Teller(seen, rng(seed)).turn(wording).answer
            assert read(answer) == {getattr(defect, intent) for defect in meant}, (wording, answer)


def test_checks_are_answered_by_what_the_question_names() -> None:
    for about, turn in TURNS:
        if turn.intent == "kind_check":
            (asked,) = reading.kinds(turn.question)
            assert reading.yes_no(turn.answer) is (asked in {d.kind for d in about.defects}), turn
        if turn.intent == "place_check":
            assert reading.yes_no(turn.answer) is (reading.place(turn.question) in {d.place for d in about.defects})


@pytest.mark.parametrize("intent", ["kind_check", "place_check", "surface_check"])
def test_checks_are_balanced_on_anomalous_pictures(intent: str) -> None:
    turns = [ask(random_facts(seed, True), intent, rng(seed), "word") for seed in range(600)]
    yes = np.mean([turn.answer == "Yes." for turn in turns])
    assert 0.43 < yes < 0.57
    assert {turn.answer for turn in turns} == {"Yes.", "No."}


def test_detection_is_as_balanced_as_the_pictures() -> None:
    answers = Counter(turn.answer[:2] for about, turn in TURNS if turn.intent == "detect")
    assert 0.4 < answers["Ye"] / answers.total() < 0.6


def test_every_conversation_asks_once_for_yes_or_no_alone() -> None:
    first = Counter[str]()
    for seed in SEEDS:
        turns = conversation_about(random_facts(seed), rng(seed)).turns
        detect = [turn for turn in turns if turn.intent == "detect"]
        assert 1 <= len(detect) <= 2
        assert sum(turn.answer in ("Yes.", "No.") for turn in detect) == 1
        assert len(turns) == 6
        assert len({turn.question for turn in turns}) == 6
        first[turns[0].intent] += 1
    assert (first["detect"] + first["describe"]) / first.total() > 0.45
    assert len(first) > 8


def test_short_first_puts_the_short_detection_question_first() -> None:
    for seed in range(40):
        about = random_facts(seed)
        first = conversation_about(about, rng(seed), short_first=True).turns[0]
        assert (first.intent, first.answer) == ("detect", "Yes." if about.defects else "No.")


def test_one_turn_is_the_short_detection_question_and_none_is_refused() -> None:
    about = facts(defect())
    assert [turn.answer for turn in conversation_about(about, rng(0), turns=1).turns] == ["Yes."]
    with pytest.raises(UsageError, match="0 turns"):
        conversation_about(about, rng(0), turns=0)


def test_the_most_obvious_defect_is_the_largest_contrast_times_area() -> None:
    faint_large, strong_small = defect("stain", "left", 0.1, 0.1), defect("crack", "right", 0.02, 0.9)
    about = facts(faint_large, strong_small)
    for seed in range(20):
        kind, place = (ask(about, intent, rng(seed), "word") for intent in ("kind", "place"))
        assert place.answer == "right."
        assert kind.answer in ("crack.", "crack, stain.")


@pytest.mark.parametrize(("areas", "obvious"), [((0.1, 0.01), "stain"), ((0.1, 0.09), "crack")])
def test_neither_contrast_nor_area_alone_decides(areas: tuple[float, float], obvious: str) -> None:
    about = facts(defect("crack", "top", areas[1], 0.5), defect("stain", "left", areas[0], 0.3))
    assert seen_in(about).defects[0].kind == obvious


def test_a_head_scan_lies_on_nothing_and_a_gear_on_its_ground() -> None:
    assert ask(facts(surface="tissue section", thing="head"), "surface", rng(0)).answer.endswith("a head scan.")
    assert ask(facts(surface="wood", thing="gear"), "surface", rng(0)).answer.endswith("a gear on wood.")


def test_normal_pictures_are_asked_everything_and_nothing_is_found() -> None:
    for intent in INTENTS:
        for form in forms(intent):
            for seed in range(30):
                answer = ask(facts(), intent, rng(seed), form).answer
                assert not reading.kinds(answer)
                assert not reading.places(answer)
                assert not reading.severity(answer)
    assert ask(facts(), "kind", rng(0), "word").answer == "none."
    assert ask(facts(), "place", rng(0), "word").answer == "nowhere."
    assert "action" in ask(facts(), "report", rng(1)).answer.lower()


def test_cause_and_action_belong_to_the_kind_and_stay_the_same() -> None:
    for seed in range(200):
        about = random_facts(seed, True)
        main = KINDS[seen_in(about).defects[0].kind or ""]
        turns = {turn.intent: turn.answer for turn in conversation_about(about, rng(seed), 28).turns}
        (cause,) = [cause for cause in main.causes if cause in turns["cause"]]
        assert cause in turns["report"]
        assert any(action in turns["action"].lower() for action in main.actions)


def test_equal_state_gives_an_equal_conversation_and_another_state_another() -> None:
    about = random_facts(3, True)
    assert conversation_about(about, rng(1)) == conversation_about(about, rng(1))
    assert conversation_about(about, rng(1)) != conversation_about(about, rng(2))


def test_wordings_are_many_short_and_of_few_words() -> None:
    words = {word for _, turn in TURNS for word in re.findall(r"[a-z-]+", f"{turn.question} {turn.answer}".lower())}
    assert len({turn.question for _, turn in TURNS}) > 1500
    assert len(words) < 900
    lengths = {intent: [len(t.answer.split()) for _, t in TURNS if t.intent == intent] for intent in INTENTS}
    assert max(lengths["report"]) <= 60
    assert np.mean([n <= 25 for intent in INTENTS if intent != "report" for n in lengths[intent]]) > 0.95


def test_an_intent_is_answered_in_several_ways() -> None:
    about = facts(defect())
    for intent in INTENTS:
        questions = {ask(about, intent, rng(seed)).question for seed in range(60)}
        answers = {ask(about, intent, rng(seed)).answer for seed in range(60)}
        assert len(questions) >= 3, intent
        assert len(answers) >= (2 if intent == "surface_check" else 3), intent


def test_a_photo_is_not_named() -> None:
    about = facts(defect(), surface="photo")
    assert not {"surface", "surface_check"} & set(askable(seen_in(about)))
    with pytest.raises(UsageError, match="surface"):
        ask(about, "surface", rng(0))
    assert all("photo" not in turn.answer for turn in conversation_about(about, rng(0), 30).turns)


def test_a_form_that_an_intent_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="report"):
        ask(facts(), "report", rng(0), "word")


def test_labels_are_asked_only_what_they_tell() -> None:
    fruit = Known("banana", True, "rot", places_known=False)
    turns = conversation_about(fruit, rng(0), 40).turns
    assert not {turn.intent for turn in turns} & {"place", "place_check", "size", "count", "severity", "colours"}
    assert {"kind", "cause", "action", "report"} <= {turn.intent for turn in turns}
    assert not any(reading.severity(turn.answer) or reading.places(turn.answer) for turn in turns)
    same = conversation_about(Known("banana", False, places_known=False), rng(0), 40).turns
    assert {turn.intent for turn in same} == {turn.intent for turn in turns}


def test_places_that_a_mask_reaches_are_not_denied() -> None:
    board = Known("circuit board scan", True, None, "top", "small", False, True, ("top", "left", "upper left"))
    denied = {
        reading.place(turn.question)
        for turn in (ask(board, "place_check", rng(seed), "word") for seed in range(200))
        if turn.answer == "No."
    }
    assert denied == {"upper right", "centre", "right", "lower left", "bottom", "lower right"}


def test_one_part_of_a_mask_is_not_told_as_all_of_it() -> None:
    board = Known("circuit board scan", True, None, "top", "small", False, True, ("top", "left"))
    told = [ask(board, "place", rng(seed)) for seed in range(100)]
    assert all(reading.places(turn.answer) == {"top"} for turn in told)
    assert {drawn("place", "sentence", "train", rng(seed), SCOPES[:1]).scope for seed in range(50)} == {"main"}
    asked_all = {stem for scope, stem in paraphrased("place", "sentence") if scope == "all"}
    assert not asked_all & {turn.question for turn in told}


@pytest.mark.parametrize("seed", range(20))
def test_short_conversations_ask_only_for_words(seed: int) -> None:
    about = random_facts(seed)
    told = conversation_about(about, rng(seed), 30, form="word").turns
    known = {(turn.intent, turn.question) for turn in told}
    assert len(known) == len(told) > 5
    assert all(len(turn.answer.split()) <= 3 * max(1, len(about.defects)) + 2 for turn in told)
    assert all("word" in forms(turn.intent) for turn in told)
