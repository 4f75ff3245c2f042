"""Pieces of sentences are plain English."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_ov.images.places import PLACES
from anomaly_ov_lab.instruct.knowledge import KINDS
from anomaly_ov_lab.instruct.phrases import asked_kind, capital, defect_phrase, in_place, kind_phrase, listed, whole
from anomaly_ov_lab.instruct.seen import Seen, SeenDefect


def spoken(kind: str | None, adjective: str = "") -> set[str]:
    return {kind_phrase(kind, np.random.default_rng(seed), adjective) for seed in range(80)}


def test_kinds_take_their_article() -> None:
    assert spoken("missing_part") == {"a missing part", "an absent part"}
    assert spoken("missing_part", "severe") == {"a severe missing part", "a severe absent part"}
    assert spoken("corrosion", "slight") == {"some slight corrosion", "some slight rust"}
    assert spoken(None) == {"a defect"}


def test_the_main_name_is_much_more_frequent_than_the_synonyms() -> None:
    rng = np.random.default_rng(0)
    share = np.mean([kind_phrase("crack", rng) == "a crack" for _ in range(800)])
    assert 0.8 < share < 0.9


def test_questions_ask_for_any_of_what_cannot_be_counted() -> None:
    rng = np.random.default_rng(0)
    assert {asked_kind("rot", rng) for _ in range(60)} == {"any rot", "any decay"}
    assert asked_kind("hole", np.random.default_rng(0)).startswith("a ")
    assert all(asked_kind(kind, rng).split()[0] in ("a", "an", "any") for kind in KINDS)


@pytest.mark.parametrize("place", PLACES)
def test_places_have_a_preposition_and_the_article(place: str) -> None:
    said = {in_place(place, np.random.default_rng(seed)) for seed in range(30)}
    assert len(said) == 2
    assert all(phrase.split()[0] in ("in", "at", "on", "near") for phrase in said)
    assert all(phrase.endswith(f" the {place}") for phrase in said)


def test_a_defect_is_told_with_what_is_known_of_it() -> None:
    rng = np.random.default_rng(0)
    assert defect_phrase(SeenDefect(None, "left"), rng) in ("a defect on the left", "a defect at the left")
    assert defect_phrase(SeenDefect(None, None, None, "severe"), rng, severity=True) == "a severe defect"
    assert defect_phrase(SeenDefect(None, None, None, "severe"), rng) == "a defect"


def test_lists_capitals_and_the_unknown_object() -> None:
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [capital("a Gear"), capital("")] == ["A Gear", ""]
    assert whole(Seen(None)) == "an object"
