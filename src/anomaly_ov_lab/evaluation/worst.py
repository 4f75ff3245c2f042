"""Which pictures a detector gets most wrong: found at the end, or told while they are scored.

Of the anomalous ones the lowest scores (misses), of the normal ones the highest (false alarms). ``WorstSoFar`` says of
each picture as it comes whether it is among the worst of those seen, so that only few maps need be kept: of n pictures
in no order about count x (1 + ln(n / count)) of each label.
"""

from __future__ import annotations

import heapq

MOST_SHOWN = 9
"""How many misses, and how many false alarms, a report shows."""


class WorstSoFar:
    """Remembers the ``count`` worst scores of each label."""

    def __init__(self, count: int = MOST_SHOWN) -> None:
        self._count = count
        self._heaps: dict[int, list[float]] = {0: [], 1: []}

    def add(self, label: int | None, score: float | None) -> bool:
        """Whether this picture is among the worst so far. One without a label or a score never is."""
        if label is None or score is None:
            return False
        heap, wrongness = self._heaps[label], score if label == 0 else -score
        if len(heap) < self._count:
            heapq.heappush(heap, wrongness)
            return True
        return heapq.heappushpop(heap, wrongness) != wrongness
