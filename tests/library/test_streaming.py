"""Both ways of streaming give the same results in the same order, within the same bounds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from anomaly_ov.streaming import Stages, cores, in_turns, overlapped

WAYS = [in_turns, overlapped]


class Recorder:
    """Squares numbers; remembers the batches it was handed and how far ahead of the results it read."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.drawn = 0

    def stages(self) -> Stages[int, int, int, str]:
        return Stages(prepare=abs, forward=self.forward, finish=lambda a, b: f"{a}:{b}", size=lambda a: a)

    def forward(self, together: list[int]) -> list[int]:
        self.batches.append(together)
        return [a * a for a in together]

    def count(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            self.drawn += 1
            yield item


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 50])
def test_order_and_bounds(way: object, count: int) -> None:
    recorder = Recorder()
    with ThreadPoolExecutor(3) as pool:
        found = list(way(recorder.stages(), [-k for k in range(count)], 4, 60, pool))  # type: ignore[operator]
    assert found == [f"{k}:{k * k}" for k in range(count)]
    assert all(len(batch) <= 4 and (sum(batch) <= 60 or len(batch) == 1) for batch in recorder.batches)
    assert [k for batch in recorder.batches for k in batch] == list(range(count))


@pytest.mark.parametrize("way", WAYS)
def test_reads_no_further_ahead_than_a_few_batches(way: object) -> None:
    recorder = Recorder()
    with ThreadPoolExecutor(2) as pool:
        results = way(recorder.stages(), recorder.count(range(1000)), 4, 10**9, pool)  # type: ignore[operator]
        for _ in range(8):
            next(results)
        results.close()
    assert recorder.drawn <= 24


@pytest.mark.parametrize("way", WAYS)
def test_an_error_in_any_stage_reaches_the_caller(way: object) -> None:
    def broken(*_: object) -> int:
        raise RuntimeError("broken")

    for stage in ("prepare", "forward", "finish"):
        parts = {"prepare": abs, "forward": lambda x: x, "finish": lambda a, b: a, "size": abs} | {stage: broken}
        with ThreadPoolExecutor(2) as pool, pytest.raises(RuntimeError, match="broken"):
            list(way(Stages(**parts), range(3), 2, 9, pool))  # type: ignore[operator, arg-type]


def test_cores_are_counted_where_the_system_tells_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for counted, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda counted=counted: counted)
        assert cores() == expected
