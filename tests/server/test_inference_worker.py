from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from anomaly_ov.images.sources import Source
from anomaly_ov.inspector import Inspector
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.inference_worker import InferenceWorker, Inspected
from model_fixtures import small_model
from serving_core_fixtures import FakeInspector, png

PNG = png()
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def source(name: str) -> Source:
    return Source(PNG, name)


@pytest.fixture
def fake() -> FakeInspector:
    return FakeInspector(failing=("bad", "worse"))


@pytest.fixture
def engine(fake: FakeInspector) -> Iterator[InferenceWorker]:
    engine = InferenceWorker(fake, batch_size=4, max_waiting=5, pass_seconds=math.inf)  # type: ignore[arg-type]
    engine.start()
    yield engine
    fake.gate.set()
    engine.stop()


async def begun(fake: FakeInspector) -> None:
    """Until a pass has begun."""
    assert await asyncio.to_thread(fake.entered.acquire, timeout=10)


async def occupied(engine: InferenceWorker, fake: FakeInspector) -> asyncio.Task[Inspected]:
    """A pass that runs until the gate opens."""
    fake.gate.clear()
    first = asyncio.create_task(engine.inspect(source("first")))
    await begun(fake)
    return first


async def waits(engine: InferenceWorker, count: int) -> None:
    for _ in range(1000):
        if engine.waiting == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{engine.waiting} wait, not {count}")


async def test_a_picture_is_inspected(engine: InferenceWorker) -> None:
    inspected = await engine.inspect(source("a"))
    assert (inspected.finding.id, inspected.finding.score, inspected.preview_HW3) == ("a", 0.25, None)


async def test_while_a_pass_runs_the_next_collects(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    others = [asyncio.create_task(engine.inspect(source(f"p{i}"))) for i in range(5)]
    await waits(engine, 5)
    fake.gate.set()
    assert [one.finding.id for one in await asyncio.gather(first, *others)] == ["first", *(f"p{i}" for i in range(5))]
    assert fake.passes == [["first"], ["p0", "p1", "p2", "p3"], ["p4"]]


async def test_only_alike_jobs_share_a_pass_and_keep_their_turn(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    context: Any = object()
    kinds = [{}, {"preview": True}, {}, {"preview": True}, {"talk": True, "context": context}]
    tasks = []
    for index, kind in enumerate(kinds):
        tasks.append(asyncio.create_task(engine.inspect(source(f"p{index}"), **kind)))
        await waits(engine, index + 1)
    fake.gate.set()
    results = await asyncio.gather(first, *tasks)
    assert fake.passes == [["first"], ["p0", "p2"], ["p1", "p3"], ["p4"]]
    assert fake.settings[1:] == [(None, False, False), (None, True, False), (context, False, True)]
    assert [one.preview_HW3 is not None for one in results] == [False, False, True, False, True, False]


async def test_what_nobody_waits_for_is_never_computed(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    left, stays = (asyncio.create_task(engine.inspect(source(name))) for name in ("left", "stays"))
    await waits(engine, 2)
    left.cancel()
    await waits(engine, 1)
    fake.gate.set()
    assert (await stays).finding.id == "stays"
    await first
    assert left.cancelled()
    assert fake.passes == [["first"], ["stays"]]


async def test_cancelling_during_the_pass_harms_nobody(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    first.cancel()
    second = asyncio.create_task(engine.inspect(source("second")))
    await waits(engine, 1)
    fake.gate.set()
    assert (await second).finding.id == "second"


async def test_too_many_are_told_when_to_come_back(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    tasks = [asyncio.create_task(engine.inspect(source(f"p{i}"))) for i in range(5)]
    await waits(engine, 5)
    with pytest.raises(Fault) as refused:
        await engine.inspect(source("late"))
    assert (refused.value.status, refused.value.type) == (429, "overloaded")
    assert int(refused.value.headers["Retry-After"]) >= 1
    with pytest.raises(Fault):
        engine.require_room()
    fake.gate.set()
    await asyncio.gather(first, *tasks)
    engine.require_room()
    assert (await engine.inspect(source("again"))).finding.id == "again"


async def test_several_are_taken_together_or_not_at_all(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    together = asyncio.create_task(engine.inspect_together([source(f"p{i}") for i in range(9)]))
    await waits(engine, 9)  # more than may wait: they were let in because fewer waited
    with pytest.raises(Fault):
        await engine.inspect_together([source("x"), source("y")])
    together.cancel()
    await waits(engine, 0)
    fake.gate.set()
    await first
    assert fake.passes == [["first"]]


async def test_interactive_pictures_go_before_a_batch(engine: InferenceWorker, fake: FakeInspector) -> None:
    fake.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(engine.inspect_many, [source(f"b{i}") for i in range(10)])
        await begun(fake)
        quick = asyncio.create_task(engine.inspect(source("quick")))
        await waits(engine, 1)
        fake.gate.set()
        assert (await quick).finding.id == "quick"
        results = await asyncio.to_thread(many.result, 10)
    assert [one.finding.id for one in results] == [f"b{i}" for i in range(10)]
    assert all(one.preview_HW3 is not None for one in results)
    assert fake.passes == [["b0", "b1", "b2", "b3"], ["quick"], ["b4", "b5", "b6", "b7"], ["b8", "b9"]]


async def test_errors_reach_those_they_belong_to_alone(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    names = ["a", "bad", "b", "worse"]
    tasks = [asyncio.create_task(engine.inspect(source(name))) for name in names]
    await waits(engine, 4)
    fake.gate.set()
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [str(one) if isinstance(one, Exception) else one.finding.id for one in results] == [
        "first",
        "a",
        "secret of bad",
        "b",
        "secret of worse",
    ]
    assert (await engine.inspect(source("alive"))).finding.id == "alive"


async def test_a_failing_inspector_fails_every_waiting_job(engine: InferenceWorker, fake: FakeInspector) -> None:
    first = await occupied(engine, fake)
    tasks = [asyncio.create_task(engine.inspect(source(f"p{i}"))) for i in range(3)]
    await waits(engine, 3)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("gone")

    fake.stream_with_previews = broken  # type: ignore[method-assign]
    fake.gate.set()
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [str(one) for one in results[1:]] == ["gone"] * 3
    with pytest.raises(RuntimeError, match="gone"):
        await asyncio.to_thread(engine.inspect_many, [source("b")])


async def test_stopping_finishes_what_was_taken_and_refuses_the_rest(
    engine: InferenceWorker, fake: FakeInspector
) -> None:
    first = await occupied(engine, fake)
    tasks = [asyncio.create_task(engine.inspect(source(f"p{i}"))) for i in range(3)]
    await waits(engine, 3)
    stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
    while engine.takes_work:
        await asyncio.sleep(0.005)
    with pytest.raises(Fault) as refused:
        await engine.inspect(source("late"))
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
    with pytest.raises(Fault):
        await asyncio.to_thread(engine.inspect_many, [source("late")])
    assert not stopping.done()
    fake.gate.set()
    await asyncio.wait_for(stopping, 10)
    assert len(await asyncio.gather(first, *tasks)) == 4
    await asyncio.to_thread(engine.stop)  # a second time does no harm


async def test_before_the_start_it_refuses_instead_of_hanging(fake: FakeInspector) -> None:
    with pytest.raises(Fault):
        await InferenceWorker(fake).inspect(source("early"))  # type: ignore[arg-type]


async def test_many_clients_that_come_and_go_get_their_own_answers(
    engine: InferenceWorker, fake: FakeInspector
) -> None:
    random = np.random.default_rng(0)

    async def patient(index: int) -> str:
        while True:
            try:
                return (await engine.inspect(source(str(index)))).finding.id
            except Fault:  # too many wait
                await asyncio.sleep(0.005)

    async def one(index: int) -> str | None:
        await asyncio.sleep(float(random.random()) * 0.05)
        try:
            async with asyncio.timeout(float(random.random()) * 0.02 if index % 3 == 0 else 20):
                return await patient(index)
        except TimeoutError:
            return None

    answers = await asyncio.gather(*(one(i) for i in range(200)))
    assert all(answer == str(index) for index, answer in enumerate(answers) if index % 3)
    assert all(answer in (None, str(index)) for index, answer in enumerate(answers))
    assert engine.waiting == 0
    seen = [name for names in fake.passes for name in names]
    assert len(seen) == len(set(seen))


async def test_slow_pictures_go_in_small_passes_and_few_may_wait(fake: FakeInspector) -> None:
    engine = InferenceWorker(fake, batch_size=2, max_waiting=100, pass_seconds=0.02)  # type: ignore[arg-type]
    stream = fake.stream_with_previews

    def slow(sources: Any, *rest: Any, **more: Any) -> Any:
        time.sleep(0.03 * len(sources))
        return stream(sources, *rest, **more)

    fake.stream_with_previews = slow  # type: ignore[method-assign]
    engine.start()
    await asyncio.gather(*(engine.inspect(source(f"p{i}")) for i in range(12)))
    assert {len(names) for names in fake.passes} == {1}
    fake.entered = threading.Semaphore(0)
    first = await occupied(engine, fake)
    engine._seconds_each = 3.0
    tasks = []
    for index in range(2):
        tasks.append(asyncio.create_task(engine.inspect(source(f"q{index}"))))
        await waits(engine, index + 1)
    with pytest.raises(Fault) as refused:
        await engine.inspect(source("late"))
    assert refused.value.headers["Retry-After"] == "6"
    fake.gate.set()
    await asyncio.gather(first, *tasks)
    await asyncio.to_thread(engine.stop)


def test_the_real_inspector_scores_as_alone() -> None:
    inspector = Inspector(small_model(), device="cpu")
    pictures = [Source(png(40, 30, seed), f"p{seed}") for seed in range(6)]
    alone = [inspector.inspect(picture) for picture in pictures]
    passes: list[int] = []
    engine = InferenceWorker(
        inspector, batch_size=4, pass_seconds=math.inf, observe=lambda pictures, seconds: passes.append(pictures)
    )
    engine.start()

    async def all_at_once() -> list[Inspected]:
        return list(await asyncio.gather(*(engine.inspect(picture, preview=True) for picture in pictures)))

    together = asyncio.run(all_at_once())
    deadline = time.monotonic() + 10
    while sum(passes) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    engine.stop()
    assert threading.active_count() < 50
    np.testing.assert_allclose([o.finding.score for o in together], [f.score for f in alone], atol=1e-5)
    assert [o.finding.id for o in together] == [f"p{i}" for i in range(6)]
    assert together[0].preview_HW3 is not None
    assert together[0].preview_HW3.shape == (30, 40, 3)
    assert sum(passes) == 6
    assert max(passes) > 1
