"""Which pictures of an unlabelled folder say what is normal: a sample that depends on nothing but what they hold.

No picture is left out for looking suspicious. A rule that keeps the most uniform half of a folder keeps one sort of
normal and drops the other (single- and multi-crystalline cells), and on the training sets it gained nothing over
comparing each picture with its lookalikes and trusting what most of them agree on (``bank``). See docs/log.md.
"""

from __future__ import annotations

from collections.abc import Sequence

CANDIDATES = 192
"""Pictures drawn from a folder: four times as many as one picture is compared with, so that each finds lookalikes."""


def drawn(digests: Sequence[str], count: int = CANDIDATES) -> list[int]:
    """Positions of at most ``count`` distinct digests, smallest first: a random sample that no order can change."""
    first: dict[str, int] = {}
    for position, digest in enumerate(digests):
        first.setdefault(digest, position)
    return [first[digest] for digest in sorted(first)[:count]]
