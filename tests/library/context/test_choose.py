"""Which pictures of a folder may serve: drawn whatever their order."""

from __future__ import annotations

import random

from anomaly_ov.context.choose import CANDIDATES, drawn
from context_fixtures import digest


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
