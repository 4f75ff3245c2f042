"""Contexts in the store: what is scored anew, what stays, and what goes with them."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly_ov.serving.faults import Fault
from anomaly_ov.serving.store.rows import Problem, ThresholdUsed
from anomaly_ov.serving.store.store import Store
from serving_store_fixtures import SCORED_BY, inspected, score_all, uploads


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data")
    yield opened
    opened.close()


def files_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


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


@pytest.mark.parametrize("items", [[], ["i_unknown"]])
def test_references_must_be_of_the_batch(store: Store, items: list[str]) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1))
    with pytest.raises(Fault) as raised:
        store.set_context(batch, "references", items)
    assert raised.value.status == 422
