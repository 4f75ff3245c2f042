"""Which samples a process passes through the model in a step, and in which passes.

A step's samples are fixed by the step alone: ``loop.batch`` x ``loop.accumulate`` consecutive indices. How they are
cut into passes and dealt to processes changes no gradient where the loss is a mean over all tokens of the step
(``loop.Weighed``). So grouping by length happens within the step: it saves padding and biases nothing, unlike batches
of one length, and needs no state to resume. Packing would save a little more, at the price of attention masks that not
every attention kernel of the stock models respects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

from anomaly_ov.errors import UsageError


@runtime_checkable
class Measured(Protocol):
    """Samples whose lengths are known without making them."""

    def lengths(self, indices: Sequence[int]) -> list[int]:
        """Ids of each sample, at least about."""
        ...


@dataclass(frozen=True)
class Passes:
    """Lists of indices, pass after pass, of process ``rank`` among ``world``; iterable again and again.

    ``batch``: most samples of a pass; ``total``: samples of a step. Raises ``UsageError`` unless ``world`` divides it.
    """

    batch: int
    total: int
    start: int
    steps: int
    rank: int = 0
    world: int = 1
    measured: Measured | None = None

    def __post_init__(self) -> None:
        if self.total % self.world:
            raise UsageError(
                f"{self.total} samples of a step cannot be shared evenly among {self.world} processes",
                hint="make loop.batch x loop.accumulate a multiple of the number of processes",
            )

    @property
    def of_a_step(self) -> int:
        """Passes of each process in one step."""
        return -(-self.total // (self.world * self.batch))

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            yield from self.of(step)

    def of(self, step: int) -> list[list[int]]:
        """The passes of ``step``: simultaneous passes of different processes are neighbours in length."""
        indices = list(range(step * self.total, (step + 1) * self.total))
        if self.measured is not None:
            lengths = dict(zip(indices, self.measured.lengths(indices), strict=True))
            indices.sort(key=lambda index: (-lengths[index], index))  # longest first: too little memory shows at once
        count = self.of_a_step * self.world
        bounds = [self.total * k // count for k in range(count + 1)]
        passes = [indices[start:end] for start, end in pairwise(bounds)]
        return passes[self.rank :: self.world]
