"""Work in threads: in order, bounded, and not beyond a failure."""

from __future__ import annotations

import pytest

from anomaly_ov.remote.limits import in_order


def test_work_is_done_in_order_and_not_beyond_a_failure() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        done.append(item)
        return item

    assert list(in_order(lambda item: -item, range(5), 3)) == [0, -1, -2, -3, -4]
    found = in_order(work, range(100), 1)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)
    assert done == [0, 1, 2]
