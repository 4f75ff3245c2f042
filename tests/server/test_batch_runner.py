"""The runner: all that waits is scored once, failures end, contexts are built and survive, kill -9 costs nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.context import build
from anomaly_ov.errors import DeviceError
from anomaly_ov.images.sources import Source
from anomaly_ov.inspector import Inspector
from anomaly_ov_server import batch_runner
from anomaly_ov_server.batch_runner import BatchRunner
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.inference_worker import InferenceWorker
from anomaly_ov_server.store.store import Store
from anomaly_ov_server.uploads import Upload
from model_fixtures import small_model
from serving_store_fixtures import FakeEngine, FakeInspector, png, score_of, uploads


def runner_of(engine: Any, store: Store, **options: Any) -> BatchRunner:
    return BatchRunner(engine, store, cast("Inspector", FakeInspector()), **options)


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def run_until_done(runner: BatchRunner, store: Store, batch: str) -> None:
    runner.start()
    try:
        until(lambda: store.batch(batch).state == "done")
    finally:
        runner.stop()


def test_all_is_scored_once_and_in_chunks(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(*range(10)))
    engine = FakeEngine()
    run_until_done(runner_of(engine, store, chunk=4), store, batch)
    assert [len(call) for call in engine.calls] == [4, 4, 2]
    rows = list(store.reviewed(batch))
    assert [row.record and row.record["score"] for row in rows] == [score_of(png(shade)) for shade in range(10)]


def test_what_comes_later_wakes_it_and_its_rate_is_known(store: Store) -> None:
    batch = store.create_batch().id
    runner = runner_of(FakeEngine(slow=0.01), store, chunk=2)
    assert runner.rate(batch) is None
    runner.start()
    try:
        time.sleep(0.1)
        store.add_pictures(batch, uploads(*range(6)))
        runner.wake()
        until(lambda: store.batch(batch).state == "done", seconds=3)
        until(lambda: (runner.rate(batch) or 0) > 1, seconds=3)
    finally:
        runner.stop()


def test_a_picture_that_fails_is_kept_as_failed_and_costs_no_other(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, [*uploads(0, 1, 2, 3), Upload("torn.png", png(9)[:50])])
    failing = {"part1.png": DeviceError("out of memory", hint="smaller"), "part2.png": RuntimeError("/secret/path")}
    run_until_done(runner_of(FakeEngine(failing), store), store, batch)
    errors = {row.name: row.record and row.record["error"] for row in store.reviewed(batch)}
    assert errors["part0.png"] is None
    assert errors["part1.png"] == {"type": "DeviceError", "message": "out of memory", "hint": "smaller"}
    assert "secret" not in str(errors["part2.png"])
    assert errors["torn.png"] is not None
    counts = store.batch(batch).counts
    assert (counts.done, counts.failed, counts.pending) == (2, 3, 0)


def test_what_ends_the_process_again_and_again_is_given_up(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1))
    with store._database.writing() as connection:
        connection.execute("UPDATE item SET attempts = ?", (batch_runner.MOST_ATTEMPTS,))
    engine = FakeEngine()
    run_until_done(runner_of(engine, store), store, batch)
    assert engine.calls == []
    (item,) = store.items(batch).items
    assert item.error is not None
    assert "ended 6 times" in item.error.message


def test_an_engine_that_stops_gives_the_work_back(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1, 2))
    stopping = Fault(503, "stopping", "stopping")
    runner = runner_of(FakeEngine({"part1.png": stopping}), store)
    runner.start()
    time.sleep(0.2)
    runner.stop()
    assert store.batch(batch).counts.pending == 2
    work = store.take(5)
    assert work is not None
    assert [task.attempts for task in work.tasks] == [1, 1], "it does not count as an attempt"


def test_a_full_disk_holds_up_and_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "PAUSE_SECONDS", 0.05)
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1, 2))
    real, refused = store.keep_findings, []

    def keep(*arguments: Any) -> None:
        if len(refused) < 2:
            refused.append(1)
            raise Fault(507, "storage_full", "full")
        real(*arguments)

    monkeypatch.setattr(store, "keep_findings", keep)
    run_until_done(runner_of(FakeEngine(), store), store, batch)
    assert len(refused) == 2
    assert store.batch(batch).counts.done == 2


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector(small_model(), device="cpu")


@contextmanager
def real_parts(inspector: Inspector, root: Path) -> Iterator[tuple[Store, BatchRunner]]:
    """A store and a runner with networks, as long as they are wanted."""
    engine, store = InferenceWorker(inspector, batch_size=4), Store(root)
    runner = BatchRunner(engine, store, inspector)
    engine.start()
    runner.start()
    try:
        yield store, runner
    finally:
        runner.stop()
        engine.stop()
        store.close()


def noise(seed: int) -> Upload:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
    return Upload(f"noise{seed}.bmp", _bmp(pixels))


def alike(seed: int) -> Upload:
    """One pattern in a light of its own."""
    pixels = np.random.default_rng(0).integers(0, 200, (40, 40, 3)) + np.random.default_rng(seed).integers(0, 20, 3)
    return Upload(f"alike{seed}.bmp", _bmp(pixels.astype(np.uint8)))


def _bmp(pixels_HW3: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "BMP")
    return buffer.getvalue()


def test_contexts_are_built_saved_and_loaded_again(inspector: Inspector, tmp_path: Path) -> None:
    with real_parts(inspector, tmp_path) as (store, runner):
        batch = store.create_batch("line 1").id
        items, _ = store.add_pictures(batch, [noise(seed) for seed in range(5)])
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        before = [item.score for item in store.items(batch, sort="position").items]
        store.set_context(batch, "references", [item.id for item in items[:3]])
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        context = store.batch(batch).context
        assert (context.kind, context.state, context.references, context.error) == ("references", "ready", 3, None)
        after = [item.score for item in store.items(batch, sort="position").items]
        assert after != before
        assert all(item.score_context is not None for item in store.items(batch).items[3:])
        record = store.item(items[4].id).finding
        assert record is not None
        assert record["context"]["source"] == "3 pictures of line 1"
        assert runner.context_of(items[4].id)[1] is not None

    with real_parts(inspector, tmp_path) as (store, runner):
        assert [item.score for item in store.items(batch, sort="position").items] == after
        added, _ = store.add_pictures(batch, [noise(9)])
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        late = store.item(added[0].id)
        assert late.finding is not None
        assert late.finding["context"]["references"] == 3
        assert late.item.context == store.batch(batch).context_id
        (tmp_path / "contexts" / f"{late.item.context}.ctx").write_bytes(b"damaged")

    with real_parts(inspector, tmp_path) as (store, runner):
        added, _ = store.add_pictures(batch, [noise(10)])
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        assert store.item(added[0].id).item.score_context is not None, "a damaged file is made again"


def test_a_folder_of_too_few_pictures_keeps_its_scores(inspector: Inspector, tmp_path: Path) -> None:
    with real_parts(inspector, tmp_path) as (store, runner):
        batch = store.create_batch().id
        store.add_pictures(batch, [noise(1), Upload("torn.png", png(1)[:40])])
        store.set_context(batch, "folder")
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        read = store.batch(batch)
        assert read.context.state == "failed"
        assert read.context.error is not None
        assert str(tmp_path) not in read.context.error.message
        assert (read.counts.done, read.counts.failed) == (1, 1)


def test_a_context_that_cannot_be_written_says_so(inspector: Inspector, tmp_path: Path) -> None:
    with real_parts(inspector, tmp_path) as (store, runner):
        batch = store.create_batch().id
        store.add_pictures(batch, [noise(1), noise(2), noise(3)])
        store.folder.context("any").parent.rmdir()
        store.set_context(batch, "folder")
        runner.wake()
        until(lambda: store.batch(batch).context.state == "failed")
        error = store.batch(batch).context.error
        assert error is not None
        assert error.type == "storage_full"
        assert str(tmp_path) not in error.message


def test_a_batch_finds_its_own_context_as_the_command_line_does(inspector: Inspector, tmp_path: Path) -> None:
    with real_parts(inspector, tmp_path) as (store, runner):
        sent = [alike(seed) for seed in range(8)]
        batch = store.create_batch().id
        store.add_pictures(batch, sent[:7])
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        assert {item.score_context for item in store.items(batch).items} == {None}
        store.add_pictures(batch, sent[7:])
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        context = store.batch(batch).context
        assert (context.kind, context.auto, context.reason) == ("folder", True, "the pictures are alike")
        expected, _ = inspector.auto_context([Source(one.data, one.name) for one in sent])
        assert expected is not None
        for item in store.items(batch, sort="position").items:
            found = inspector.inspect(sent[item.position].data, context=expected)
            assert item.score == pytest.approx(found.score, rel=1e-4)


def test_pictures_too_unlike_are_judged_alone(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ALIKE", -1e9)
    with real_parts(inspector, tmp_path) as (store, runner):
        batch = store.create_batch().id
        store.add_pictures(batch, [noise(seed) for seed in range(9)])
        runner.wake()
        until(lambda: store.batch(batch).state == "done")
        context = store.batch(batch).context
        assert (context.kind, context.state, context.auto) == ("none", "ready", True)
        assert context.reason == "the pictures are too unlike each other"
        assert {item.score_context for item in store.items(batch).items} == {None}


def test_a_context_that_nobody_wants_any_more_is_left_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def look(self: Any, pictures: Any, *, progress: Callable[[int, int], None]) -> tuple[None, str]:
        for done in range(len(pictures)):
            looked.append(len(pictures))
            if looked == [8, 8]:
                store.set_context(batch, "none")
            progress(done, len(pictures))
        return None, "none"

    monkeypatch.setattr(FakeInspector, "auto_context", look)
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(*range(8)))
    run_until_done(runner_of(FakeEngine(), store), store, batch)
    assert looked == [8, 8]
    assert store.batch(batch).counts.done == 8


PICTURES, KILLS = 40, 5
KILLED = f"""
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from serving_store_fixtures import FakeEngine, FakeInspector, uploads
from anomaly_ov_server.batch_runner import BatchRunner
from anomaly_ov_server.store.store import Store

def serve():
    store = Store(Path(sys.argv[1]))
    (batch,) = store.batches() or [store.create_batch("killed")]
    runner = BatchRunner(FakeEngine(slow=0.004), store, FakeInspector(), chunk=3)
    runner.start()
    for shade in range({PICTURES}):
        for item in store.add_pictures(batch.id, uploads(shade))[0]:
            os.write(1, (item.sha256 + "\\n").encode())
        runner.wake()
        time.sleep(0.004)
    while store.batch(batch.id).state != "done":
        time.sleep(0.01)
    runner.stop()
    store.close()

chance = random.Random(3)
for turn in range({KILLS} + 1):
    child = os.fork()
    if not child:
        serve()
        os._exit(0)
    if turn < {KILLS}:
        time.sleep(chance.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.write(1, f"ended {{os.waitstatus_to_exitcode(status)}}\\n".encode())
"""


@pytest.mark.kill
def test_kill_9_loses_nothing_and_scores_nothing_twice(tmp_path: Path) -> None:
    """One process imports all once, and forks the one that is killed: accepted is what it wrote to its output."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    ends = [line for line in lines if line.startswith("ended")]
    assert ends == ["ended -9"] * KILLS + ["ended 0"], done.stderr
    promised = {line for line in lines if len(line) == 64}
    connection = sqlite3.connect(tmp_path / "store.sqlite3")
    stored = [row[0] for row in connection.execute("SELECT sha256 FROM item WHERE state = 'done'")]
    findings = connection.execute("SELECT item, count(*) FROM finding GROUP BY item").fetchall()
    connection.close()
    assert promised == set(stored)
    assert len(stored) == len(findings) == PICTURES
    assert {count for _, count in findings} == {1}
    for digest in stored:
        assert (tmp_path / "pictures" / digest[:2] / digest).is_file()
    assert len(list((tmp_path / "maps").iterdir())) == PICTURES
