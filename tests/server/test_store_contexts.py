"""Contexts in the store: what is scored anew, what stays, and what goes with them."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from anomaly_ov_server.faults import Fault
from anomaly_ov_server.store import contexts
from anomaly_ov_server.store.rows import ContextJob, Problem, ThresholdUsed
from anomaly_ov_server.store.store import Store
from serving_store_fixtures import SCORED_BY, files_below, inspected, score_all, uploads


def test_a_context_has_everything_scored_anew_and_keeps_decisions(store: Store) -> None:
    batch = store.create_batch("b").id
    items, _ = store.add_pictures(batch, uploads(1, 2))
    score_all(store, 0.8)
    store.decide(items[0].id, "normal")
    wanted = store.set_context(batch, "references", [items[0].id])
    assert (wanted.context.state, wanted.state, wanted.counts.pending) == ("building", "running", 0)
    assert store.take(5) is None, "nothing to score until the context is there"

    job = store.context_job()
    assert job is not None
    assert [task.item for task in job.tasks] == [items[0].id]
    store.context_ready(job.id, 1)
    waiting = store.items(batch).items
    assert [(item.state, item.score) for item in waiting] == [("pending", 0.8)] * 2, "earlier scores stay"
    beside = dataclasses.replace(SCORED_BY, threshold=ThresholdUsed(0.8, "beside"))
    score_all(store, 0.3, beside)
    assert store.batch(batch).scored_by == beside
    item = store.item(items[0].id).item
    assert (item.score, item.context, item.state) == (0.3, job.id, "done")
    assert item.decision is not None

    store.set_context(batch, "none")
    assert [item.score for item in store.items(batch).items] == [0.8, 0.8], "scored without context before"
    assert store.batch(batch).scored_by == SCORED_BY, "thresholds are those of the scores shown"
    assert store.take(5) is None
    assert store.batch(batch).state == "done"


def test_a_context_that_cannot_be_built_changes_no_score(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1, 2, 3))
    score_all(store, 0.8)
    store.set_context(batch, "folder")
    job = store.context_job()
    assert job is not None
    store.context_failed(job.id, Problem("too_few_pictures", "too few", "more"))
    read = store.batch(batch)
    assert (read.state, read.context.state, read.context.error) == (
        "done",
        "failed",
        Problem("too_few_pictures", "too few", "more"),
    )
    assert store.context_job() is None
    store.add_pictures(batch, uploads(4))
    score_all(store, 0.1)
    assert store.batch(batch).state == "done"


def test_replaced_contexts_leave_nothing_behind(store: Store) -> None:
    batch = store.create_batch().id
    items, _ = store.add_pictures(batch, uploads(1))
    score_all(store)
    for _ in range(3):
        store.set_context(batch, "references", [items[0].id])
        job = store.context_job()
        assert job is not None
        store.folder.write(store.folder.context(job.id), b"context")
        store.context_ready(job.id, 1)
        score_all(store)
    assert len(files_below(store.folder.root / "maps")) == 2, "without context, and the last one"
    assert len(files_below(store.folder.root / "contexts")) == 1
    with sqlite3.connect(store.folder.root / "store.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM scored_by").fetchone() == (2,)


def test_findings_with_a_context_that_is_gone_are_no_error(store: Store) -> None:
    batch = store.create_batch().id
    items, _ = store.add_pictures(batch, uploads(1))
    store.set_context(batch, "references", [items[0].id])
    job = store.context_job()
    assert job is not None
    store.context_ready(job.id, 1)
    work = store.take(1)
    assert work is not None
    store.set_context(batch, "none")
    store.keep_findings(work, [inspected(store.task_source(work.tasks[0]), 0.3)], SCORED_BY)
    assert store.batch(batch).scored_by is None
    score_all(store, 0.8)
    assert store.items(batch).items[0].score == 0.8


def context_of(store: Store, batch: str) -> tuple[str, str, bool, str | None]:
    context = store.batch(batch).context
    return context.kind, context.state, context.auto, context.reason


def job_of(store: Store) -> ContextJob:
    job = store.context_job()
    assert job is not None
    return job


def test_a_new_batch_tries_its_own_pictures_once_there_are_eight(store: Store) -> None:
    batch = store.create_batch("b").id
    assert context_of(store, batch) == ("none", "ready", True, contexts.TOO_FEW)
    store.add_pictures(batch, uploads(*range(7)))
    assert context_of(store, batch) == ("none", "ready", True, contexts.TOO_FEW)
    assert store.context_job() is None
    score_all(store, 0.8)
    store.add_pictures(batch, uploads(7))
    assert context_of(store, batch) == ("folder", "building", True, None)
    job = job_of(store)
    assert (job.auto, job.kind, len(job.tasks)) == (True, "folder", 8)
    store.context_ready(job.id, 8, "they are alike")
    assert context_of(store, batch) == ("folder", "ready", True, "they are alike")
    assert store.batch(batch).counts.pending == 8, "all of it is scored anew"
    score_all(store, 0.3)

    store.add_pictures(batch, uploads(*range(7), *range(8, 15)))
    assert context_of(store, batch) == ("folder", "ready", True, "they are alike"), "15 are not twice as many"
    store.add_pictures(batch, uploads(15))
    assert context_of(store, batch) == ("folder", "building", True, None)
    job = job_of(store)
    assert len(job.tasks) == 16
    store.context_declined(job.id, "they are too unlike")
    assert context_of(store, batch) == ("none", "ready", True, "they are too unlike")
    assert [item.score for item in store.items(batch, sort="position").items][:7] == [0.8] * 7, "as without it before"
    score_all(store)
    store.add_pictures(batch, uploads(16))
    assert context_of(store, batch) == ("none", "ready", True, "they are too unlike")


def test_so_few_that_one_picture_may_decide_are_tried_each_time(store: Store) -> None:
    batch = store.create_batch().id
    for shade in range(12):
        store.add_pictures(batch, uploads(shade))
        while (job := store.context_job()) is not None:
            assert len(job.tasks) == shade + 1
            store.context_declined(job.id, "unreadable")
        store.add_pictures(batch, uploads(shade))
        assert store.context_job() is None, "nothing has changed"


def test_pictures_that_follow_at_once_join_those_that_wait(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(*range(8)))
    store.add_pictures(batch, uploads(8, 9))
    job = job_of(store)
    assert len(job.tasks) == 10
    store.add_pictures(batch, uploads(10))
    assert store.context_wanted(job.id), "it has begun, and one more changes little"
    store.add_pictures(batch, uploads(*range(11, 20)))
    assert not store.context_wanted(job.id)
    store.context_declined(job.id, "too late")
    store.context_ready(job.id, 10, "too late")
    assert context_of(store, batch) == ("folder", "building", True, None)
    assert len(job_of(store).tasks) == 20


def test_what_somebody_chooses_stays(store: Store) -> None:
    batch = store.create_batch().id
    store.set_context(batch, "none")
    items, _ = store.add_pictures(batch, uploads(*range(20)))
    assert context_of(store, batch) == ("none", "ready", False, None)
    store.set_context(batch, "folder")
    job = job_of(store)
    assert not job.auto
    store.context_ready(job.id, 20)
    store.set_context(batch, "auto")
    assert context_of(store, batch) == ("folder", "building", True, None)
    assert job_of(store).auto
    store.set_context(batch, "references", [items[0].id])
    assert context_of(store, batch) == ("references", "building", False, None)
    few = store.create_batch().id
    items, _ = store.add_pictures(few, uploads(1))
    store.set_context(few, "references", [items[0].id])
    store.set_context(few, "auto")
    assert context_of(store, few) == ("none", "ready", True, contexts.TOO_FEW)


def test_batches_of_the_first_format_keep_their_context(tmp_path: Path) -> None:
    opened = Store(tmp_path)
    batch = opened.create_batch().id
    opened.add_pictures(batch, uploads(1))
    opened.close()
    with sqlite3.connect(tmp_path / "store.sqlite3") as connection:
        for column in ("auto", "reason", "tried"):
            connection.execute(f"ALTER TABLE batch DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
    for _ in range(2):
        opened = Store(tmp_path)
        assert context_of(opened, batch) == ("none", "ready", False, None)
        assert opened.create_batch().context.auto
        opened.close()


@pytest.mark.parametrize("items", [[], ["i_unknown"]])
def test_references_must_be_of_the_batch(store: Store, items: list[str]) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1))
    with pytest.raises(Fault) as raised:
        store.set_context(batch, "references", items)
    assert raised.value.status == 422
