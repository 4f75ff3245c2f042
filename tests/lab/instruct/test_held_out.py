"""The held-out combinations: about 12 %, fixed, and nothing disappears from training by them."""

from __future__ import annotations

import numpy as np

from anomaly_ov_lab.data.synthetic import KINDS
from anomaly_ov_lab.instruct import is_held_out
from anomaly_ov_lab.instruct.knowledge import OBJECTS, SURFACES
from anomaly_ov_lab.instruct.seen import is_combination_held_out
from instruct_fixtures import defect, facts

THINGS: list[tuple[str, str | None]] = [(surface, None) for surface in SURFACES] + [
    ("wood", thing) for thing in OBJECTS
]
TABLE = np.asarray([[is_combination_held_out(kind, *thing) for thing in THINGS] for kind in KINDS])
WOOD = ["dent", "fold", "pitting"]


def test_about_an_eighth_and_every_kind_and_thing_stays_in_training() -> None:
    assert 0.09 < TABLE.mean() < 0.15
    assert TABLE.mean(axis=1).max() < 0.35
    assert TABLE.mean(axis=0).max() < 0.35
    assert TABLE.any(axis=1).all(), "every kind has a held-out combination"


def test_the_rule_is_fixed() -> None:
    """A changed rule would let pictures of a released model's test into training."""
    assert int(TABLE.sum()) == 113
    assert [kind for kind in KINDS if is_combination_held_out(kind, "wood", None)] == WOOD


def test_any_defect_of_a_picture_counts_and_the_object_goes_before_the_surface() -> None:
    held, free = WOOD[0], next(kind for kind in KINDS if kind not in WOOD)
    assert is_held_out(facts(defect(held)))
    assert is_held_out(facts(defect(free), defect(held)))
    assert not is_held_out(facts(defect(free)))
    thing = next(thing for thing in OBJECTS if not is_combination_held_out(held, "wood", thing))
    assert not is_held_out(facts(defect(held), thing=thing))


def test_normal_pictures_and_photos_are_never_held_out() -> None:
    assert not any(is_held_out(facts(surface=surface)) for surface in SURFACES)
    assert not any(is_held_out(facts(defect(kind), surface="photo")) for kind in KINDS)
