"""Rate limit, waits and the spend cap, on a clock that only moves when somebody sleeps."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ov.errors import SpendCapReached
from anomaly_ov.remote.limits import WINDOW_S, Budget, RateLimit, retry_after, retry_delay
from remote_fixtures import FakeTime


def test_no_limit_never_waits() -> None:
    time = FakeTime()
    limit = RateLimit(None, None, time.clock)
    for _ in range(1000):
        limit.wait(10**9)
    assert time.slept == []


def test_requests_per_minute() -> None:
    time = FakeTime()
    limit = RateLimit(2, None, time.clock)
    limit.wait(1)
    time.time += 20
    limit.wait(1)
    limit.wait(1)
    assert time.slept == [40]
    limit.wait(1)
    assert time.slept == [40, 20]


def test_tokens_per_minute() -> None:
    time = FakeTime()
    limit = RateLimit(None, 100, time.clock)
    limit.wait(60)
    limit.wait(40)
    assert time.slept == []
    time.time += 10
    limit.wait(61)  # both earlier ones have to go
    assert time.slept == [50]


def test_one_request_over_the_limit_of_tokens_is_sent_alone() -> None:
    time = FakeTime()
    limit = RateLimit(None, 100, time.clock)
    limit.wait(500)
    assert time.slept == []
    limit.wait(500)
    assert time.slept == [60]


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 80)), min_size=1, max_size=40))
def test_no_window_holds_more_than_allowed(steps: list[tuple[float, int]]) -> None:
    time, sent = FakeTime(), []
    limit = RateLimit(3, 100, time.clock)
    for pause, tokens in steps:
        time.time += pause
        limit.wait(tokens)
        sent.append((time.time, tokens))
    for start, _ in sent:
        inside = [tokens for at, tokens in sent if start <= at < start + WINDOW_S - 1e-6]
        assert len(inside) <= 3
        assert sum(inside) <= 100


def test_threads_share_the_limit() -> None:
    time = FakeTime()
    limit = RateLimit(5, None, time.clock)
    threads = [threading.Thread(target=limit.wait, args=(1,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.slept == []
    limit.wait(1)
    assert time.slept == [60]


def test_delays_double_up_to_a_bound() -> None:
    for attempt, longest in [(1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (500, 30.0)]:
        assert 0.75 * longest <= retry_delay(attempt, None) <= longest
    assert retry_delay(5, 7.5) == 7.5
    assert retry_delay(5, 0.0) == 0.0


@pytest.mark.parametrize(
    ("milliseconds", "value", "seconds"),
    [
        (None, "3", 3.0),
        (None, "0.25", 0.25),
        ("1500", "9", 1.5),
        ("soon", "9", 9.0),
        (None, None, None),
        (None, "", None),
        (None, "soon", None),
        (None, "-1", None),
        (None, "nan", None),
        (None, "inf", None),
        (None, "Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after(milliseconds: str | None, value: str | None, seconds: float | None) -> None:
    assert retry_after(milliseconds, value) == seconds


def test_retry_after_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after(None, later) == pytest.approx(90, abs=3)


def test_the_cap_stops_before_it_is_exceeded() -> None:
    budget = Budget(1.0, price_in=1.0, price_out=2.0)
    budget.reserve(400_000, 100_000).settle(400_000, 50_000)
    assert budget.spent == pytest.approx(0.5)
    with pytest.raises(SpendCapReached, match=r"cost 0.6; 0.5 of the cap of 1") as caught:
        budget.reserve(400_000, 100_000)
    assert "spend_cap" in caught.value.hint
    assert budget.spent == pytest.approx(0.5)
    budget.reserve(300_000, 100_000)


def test_requests_under_way_count() -> None:
    budget = Budget(1.0, 1.0, 0.0)
    first = budget.reserve(600_000, 0)
    with pytest.raises(SpendCapReached):
        budget.reserve(600_000, 0)
    first.release()
    first.settle(600_000, 0)  # settled already
    assert budget.spent == 0
    budget.reserve(600_000, 0)


def test_estimates_learn_from_what_was_counted() -> None:
    budget = Budget(1.0, 1.0, 0.0)
    budget.reserve(10_000, 0).settle(200_000, 0)  # this endpoint counts pictures twenty times as high
    budget.reserve(10_000, 0).settle(None, 0)  # nothing counted: what was estimated, by now corrected
    assert budget.spent == pytest.approx(0.4)
    budget.reserve(10_000, 0).settle(1_000, 0)  # a smaller one does not make it bold
    with pytest.raises(SpendCapReached):
        budget.reserve(40_000, 0)


def test_without_prices_nothing_is_spent() -> None:
    budget = Budget(None, 0, 0)
    budget.reserve(10**9, 10**9).settle(10**9, 10**9)
    assert budget.spent == 0
