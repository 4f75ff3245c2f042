"""Which pictures of a folder may serve: drawn whatever their order, kept where they look like their lookalikes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from anomaly_ov.context.choose import CANDIDATES, FEWEST, drawn, kept
from context_fixtures import World, digest


def test_drawn_does_not_see_the_order() -> None:
    digests = [digest(str(i)) for i in range(500)]
    shuffled = digests.copy()
    random.Random(0).shuffle(shuffled)
    first, second = ([names[i] for i in drawn(names)] for names in (digests, shuffled))
    assert first == second
    assert len(first) == CANDIDATES


def test_drawn_takes_copies_once_and_the_first_of_them() -> None:
    assert drawn(["b", "a", "b", "a", "c"]) == [1, 0, 4]


def test_drawn_takes_what_there_is() -> None:
    assert drawn([]) == []
    assert drawn(["c", "a"], 5) == [1, 0]
    assert drawn(["c", "a", "b"], 2) == [1, 2]


def test_drawn_keeps_most_when_pictures_are_added() -> None:
    """A sample by digest is stable: one more picture replaces one at most."""
    digests = [digest(str(i)) for i in range(300)]
    before = {digests[i] for i in drawn(digests, 100)}
    digests.append(digest("new"))
    assert len(before - {digests[i] for i in drawn(digests, 100)}) <= 1


@pytest.mark.parametrize("count", [1, 2, FEWEST])
def test_all_are_kept_when_there_are_few(count: int) -> None:
    world = World()
    assert kept([world.reference(f"r{i}", odd=20 * (i == 0)) for i in range(count)]) == list(range(count))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_odd_pictures_are_not_kept(share: float) -> None:
    world, count = World(), 60
    odd = round(share * count)
    references = [world.reference(f"r{i}", odd=12 if i < odd else 0) for i in range(count)]
    found = kept(references)
    assert len(found) >= count // 3
    assert sum(r < odd for r in found) <= 0.05 * len(found)


def test_kept_is_sorted_and_does_not_see_the_order() -> None:
    world = World()
    references = [world.reference(f"r{i}", odd=10 * (i % 4 == 0)) for i in range(30)]
    order = np.random.default_rng(0).permutation(30).tolist()
    first = kept(references)
    assert first == sorted(first)
    assert sorted(order[i] for i in kept([references[i] for i in order])) == first


def test_a_rougher_look_keeps_its_share() -> None:
    """Two looks side by side, one lying farther from itself than the other: both keep some, not the even one alone."""
    world = World()
    even = [world.reference(f"even {i}", kind=0) for i in range(120)]
    world.noise = 0.14
    rough = [world.reference(f"rough {i}", kind=1) for i in range(120)]
    found = kept([*even, *rough])
    assert sum(r >= 120 for r in found) >= 40


def test_equal_pictures_are_not_all_thrown_away() -> None:
    world = World(noise=0.0)
    assert len(kept([world.reference(f"r{i}") for i in range(20)])) >= FEWEST
