"""The table is complete, and none of its causes or actions can be misread as a kind, a place or a rating."""

from __future__ import annotations

from collections import Counter

import numpy as np

from anomaly_ov_lab.data.synthetic import KINDS as GENERATED
from anomaly_ov_lab.data.synthetic.generator import random_scene
from anomaly_ov_lab.data.synthetic.noise import stream
from anomaly_ov_lab.data.synthetic.objects import MAKERS
from anomaly_ov_lab.data.synthetic.surfaces import SURFACES as DRAWN
from anomaly_ov_lab.instruct import reading
from anomaly_ov_lab.instruct.knowledge import KINDS, LOOK_ALIKE, OBJECTS, SURFACES, THINGS, URGENCY, may_be_confused
from anomaly_ov_lab.instruct.seen import SEVERITIES


def test_every_generated_kind_surface_and_object_is_known() -> None:
    assert KINDS.keys() == set(GENERATED)
    drawn = [draw(np.random.Generator(np.random.PCG64(seed)), 64) for draw in DRAWN.values() for seed in range(3)]
    drawn += [random_scene(stream(seed, 0), 64) for seed in range(60)]
    assert {scene.surface for scene in drawn} <= SURFACES.keys()
    assert {scene.object for scene in drawn} - {None} <= OBJECTS.keys()
    assert MAKERS.keys() <= OBJECTS.keys()
    assert URGENCY.keys() == set(SEVERITIES)


def test_names_belong_to_one_kind_and_are_lower_case() -> None:
    names = Counter(name for kind in KINDS.values() for name in kind.names)
    assert max(names.values()) == 1
    assert all(name == name.lower() for name in names)
    assert all(reading.kinds(f"There is {name}.") == {k} for k, kind in KINDS.items() for name in kind.names)


def test_causes_and_actions_name_nothing_else() -> None:
    for kind in KINDS.values():
        assert 2 <= len(kind.causes) <= 3
        assert 2 <= len(kind.actions) <= 3
        for text in (*kind.causes, *kind.actions):
            said = reading.kinds(text), reading.places(text), reading.severity(text), reading.size(text)
            assert not any(said), text


def test_names_of_things_name_no_kind_and_no_place() -> None:
    for thing in THINGS.values():
        assert not reading.kinds(thing.phrase), thing
        assert not reading.places(thing.phrase), thing


def test_look_alikes() -> None:
    assert may_be_confused("stone", "granite")
    assert may_be_confused("wood", "wood")
    assert not may_be_confused("wood", "gear")
    assert {name for group in LOOK_ALIKE for name in group} <= {thing.name for thing in THINGS.values()}
