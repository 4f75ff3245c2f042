"""``Store``: everything that outlives the process, behind one object that any thread may use.

What a method has answered is on disk. Order of writing: a picture's bytes are flushed before its row is committed, a
finding's map before the finding; so a row's files exist, and files without a row are swept away at the next start.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from anomaly_ov.images.read import DEFAULT_LIMITS, Limits
from anomaly_ov.images.sources import Source, page_digest
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.inference_worker import Inspected
from anomaly_ov_server.reviewed import Reviewed, Verdict
from anomaly_ov_server.store import contexts, decisions, scoring
from anomaly_ov_server.store.batches import (
    expected,
    leftovers,
    next_revision,
    read_batch,
    read_batches,
    require_batch,
    require_item,
)
from anomaly_ov_server.store.database import Database
from anomaly_ov_server.store.folder import Folder, discard
from anomaly_ov_server.store.listing import Show, Sort, read_detail, read_item, read_page, read_reviewed
from anomaly_ov_server.store.names import clean, clean_note, new_id, now
from anomaly_ov_server.store.pictures import Rejected, Sent, add, stored
from anomaly_ov_server.store.renderings import write_renderings
from anomaly_ov_server.store.rows import (
    Batch,
    ContextJob,
    Item,
    ItemDetail,
    Page,
    Problem,
    ScoredBy,
    Task,
    Wanted,
    Work,
)
from anomaly_ov_server.store.scoring import published

FILE = "store.sqlite3"
MAX_NOTE = 2000


@dataclass(frozen=True)
class StoreLimits:
    """The most that is kept. ``keep_free``: bytes of disk that stay unused. ``picture``: limits of one picture."""

    max_items: int = 100_000
    max_batches: int = 10_000
    keep_free: int = 256 * 2**20
    picture: Limits = DEFAULT_LIMITS


class Store:
    """Raises ``UsageError`` for a folder that is in use, not writable, of a newer version or of another program."""

    def __init__(self, root: Path, *, limits: StoreLimits | None = None) -> None:
        self.limits = limits or StoreLimits()
        self.folder = Folder(root, self.limits.keep_free)
        self._files = threading.Lock()  # held while rows and the files they need appear or go together
        try:
            self._database = Database(root / FILE)
            with self._database.writing() as connection:
                scoring.recover(connection)
            with self._database.reading() as connection:
                self.folder.sweep(*expected(connection))
        except BaseException:
            self.folder.close()
            raise

    def close(self) -> None:
        """Lets another process have the folder."""
        self._database.close()
        self.folder.close()

    # ---- batches ---------------------------------------------------------------------------------------------------

    def create_batch(self, name: str | None = None) -> Batch:
        """A new, empty batch. Raises ``Fault`` 409 ``too_many_batches``."""
        named = clean(name or "", f"Batch of {datetime.now(UTC):%Y-%m-%d %H:%M}")
        batch = new_id("b")
        with self._database.writing() as connection:
            (count,) = connection.execute("SELECT count(*) FROM batch").fetchone()
            if count >= self.limits.max_batches:
                what = f"{count} batches are kept already"
                raise Fault(409, "too_many_batches", what, hint="delete those that are no longer needed")
            values = (batch, named, now(), contexts.TOO_FEW)
            connection.execute("INSERT INTO batch (id, name, created, auto, reason) VALUES (?, ?, ?, 1, ?)", values)
            return read_batch(connection, batch)

    def batches(self, limit: int = 100) -> list[Batch]:
        """The newest first."""
        with self._database.reading() as connection:
            return read_batches(connection, limit)

    def batch(self, batch: str) -> Batch:
        """Raises ``Fault`` 404."""
        with self._database.reading() as connection:
            return read_batch(connection, batch)

    def rename_batch(self, batch: str, name: str) -> Batch:
        """A name of nothing but odd characters leaves the old one. Raises ``Fault`` 404."""
        with self._database.writing() as connection:
            named = clean(name, require_batch(connection, batch)["name"])
            next_revision(connection, batch)
            connection.execute("UPDATE batch SET name = ? WHERE id = ?", (named, batch))
            return read_batch(connection, batch)

    def delete_batch(self, batch: str) -> None:
        """With its pictures, unless another batch has them too, findings and decisions. Raises ``Fault`` 404."""
        with self._files:
            with self._database.writing() as connection:
                require_batch(connection, batch)
                leftover = leftovers(connection, self.folder, batch)
                connection.execute("DELETE FROM batch WHERE id = ?", (batch,))
            # A file that loses its row is swept away at the next start; a row must never lose its file.
            for path in leftover:
                discard(path)

    # ---- pictures --------------------------------------------------------------------------------------------------

    def add_pictures(self, batch: str, sent: Sequence[Sent]) -> tuple[list[Item], list[Rejected]]:
        """Items of what looks like a picture, in order, one per page of a TIFF; the same picture twice is one item.

        Raises ``Fault`` 404, 413 ``batch_full`` and 507 ``storage_full``; then nothing was taken.
        """
        self.batch(batch)  # before anything is written to disk
        files, rejected = stored(self.folder, sent, self.limits.picture)
        with self._files, self._database.writing() as connection:
            ids = add(connection, self.folder, batch, files, self.limits.max_items)
            gone = contexts.follow(connection, batch)
        self._discard_contexts(gone)
        with self._database.reading() as connection:
            items = [read_item(connection, item) for item in dict.fromkeys(ids)]
        return [item for item in items if item is not None], rejected

    def picture_of(self, item: str) -> tuple[Source, str]:
        """The picture of ``item`` as it was sent, to be read under its own name, and the digest of picture and page.

        Raises ``Fault`` 404.
        """
        with self._database.reading() as connection:
            row = require_item(connection, item)
        return self.task_source(Task(item, row["name"], row["sha256"], row["page"], 0)), row["digest"]

    def task_source(self, task: Task) -> Source:
        """The picture of ``task``: its bytes, so that no path of ours gets into a record."""
        path = self.folder.picture(task.sha256)
        try:
            return Source(path.read_bytes(), task.name, task.page)
        except OSError:
            return Source(b"", task.name, task.page)  # reading it says that there is nothing to read

    # ---- items -----------------------------------------------------------------------------------------------------

    def items(
        self,
        batch: str,
        *,
        sort: Sort = "-score",
        show: Show = "all",
        threshold: float | None = None,
        text: str = "",
        offset: int = 0,
        limit: int = 200,
        since: int | None = None,
    ) -> Page:
        """A page of the items whose name contains ``text`` and that changed after revision ``since``.

        ``threshold``: what anomalous and normal are told by, instead of each finding's own. Raises ``Fault`` 404.
        """
        with self._database.reading() as connection:
            return read_page(
                connection,
                batch,
                sort=sort,
                show=show,
                threshold=threshold,
                text=text,
                offset=offset,
                limit=limit,
                since=since,
            )

    def item(self, item: str) -> ItemDetail:
        """Raises ``Fault`` 404."""
        with self._database.reading() as connection:
            require_item(connection, item)
            found = read_detail(connection, item)
        assert found is not None
        return found

    def files(self, item: str) -> Reviewed:
        """Where the files of ``item`` lie. Raises ``Fault`` 404."""
        with self._database.reading() as connection:
            row = require_item(connection, item)
            return read_reviewed(connection, self.folder, row["batch"], row["position"] - 1, 1)[0]

    def reviewed(self, batch: str) -> Iterator[Reviewed]:
        """All items in the order of arrival, read some at a time. Raises ``Fault`` 404 at once."""
        self.batch(batch)
        return self._reviewed(batch)

    def _reviewed(self, batch: str) -> Iterator[Reviewed]:
        after = -1
        while True:
            with self._database.reading() as connection:
                found = read_reviewed(connection, self.folder, batch, after)
            if not found:
                return
            yield from found
            after = found[-1].position

    # ---- decisions -------------------------------------------------------------------------------------------------

    def decide(self, item: str, verdict: Verdict, note: str = "") -> Item:
        """Adds a decision. Raises ``Fault`` 404."""
        with self._database.writing() as connection:
            decisions.decide(connection, item, verdict, clean_note(note, MAX_NOTE))
        return self.item(item).item

    def undo(self, item: str) -> Item:
        """One decision back. Raises ``Fault`` 404."""
        with self._database.writing() as connection:
            decisions.undo(connection, item)
        return self.item(item).item

    # ---- contexts --------------------------------------------------------------------------------------------------

    def set_context(self, batch: str, kind: Wanted, items: Sequence[str] = ()) -> Batch:
        """Asks for a context; the runner builds it. Raises ``Fault`` 404, 422 for items that are not of the batch."""
        with self._database.writing() as connection:
            gone = contexts.want(connection, batch, kind, items)
            changed = read_batch(connection, batch)
        self._discard_contexts(gone)
        return changed

    def context_job(self) -> ContextJob | None:
        """The next context to build, counted as begun."""
        with self._database.writing() as connection:
            return contexts.next_job(connection)

    def context_released(self, context: str) -> None:
        """Building it was broken off on purpose; it is to be built again."""
        with self._database.writing() as connection:
            contexts.release(connection, context)

    def context_wanted(self, context: str) -> bool:
        """Whether building it still serves anybody."""
        with self._database.reading() as connection:
            return contexts.exists(connection, context)

    def context_ready(self, context: str, pictures: int, reason: str | None = None) -> None:
        """Its file has been written: what waits for it is scored with it. ``reason``: why it was chosen."""
        with self._database.writing() as connection:
            gone = contexts.ready(connection, context, pictures, reason)
        self._discard_contexts(gone)

    def context_declined(self, context: str, reason: str) -> None:
        """It would not help."""
        with self._database.writing() as connection:
            gone = contexts.declined(connection, context, reason)
        self._discard_contexts(gone)

    def context_failed(self, context: str, problem: Problem) -> None:
        """It cannot be built."""
        with self._database.writing() as connection:
            contexts.failed(connection, context, problem)

    def context_lost(self, context: str) -> None:
        """Its file cannot be used: it is to be built again."""
        with self._database.writing() as connection:
            contexts.lost(connection, context)

    def _discard_contexts(self, ids: Sequence[str]) -> None:
        for context in ids:
            discard(self.folder.context(context))

    def shown_context(self, item: str) -> str | None:
        """Id of the context that the shown finding was made with; None without finding. Raises ``Fault`` 404."""
        with self._database.reading() as connection:
            shown: str | None = require_item(connection, item)["shown"]
        return shown

    # ---- scoring ---------------------------------------------------------------------------------------------------

    def take(self, limit: int, after: int = 0) -> Work | None:
        """Pictures to be scored next, all of one batch; batches take turns, those behind number ``after`` first."""
        with self._database.writing() as connection:
            return scoring.take(connection, limit, after)

    def release(self, items: Sequence[str]) -> None:
        """Gives back what was taken and not scored."""
        with self._database.writing() as connection:
            scoring.release(connection, items)

    def keep_findings(self, work: Work, inspected: Sequence[Inspected], scored_by: ScoredBy) -> None:
        """Writes what came of ``work``, in its order. A finding that is there already stays."""
        results = []
        for task, one in zip(work.tasks, inspected, strict=True):
            map_HW, digest = one.finding.significance_map, page_digest(task.sha256, task.page)
            made = write_renderings(self.folder, task.item, work.context, digest, one.preview_HW3, map_HW)
            results.append(scoring.Result(task.item, published(one.finding, task), made))
        with self._database.writing() as connection:
            replaced = scoring.keep(connection, work.batch, work.context, results, scored_by)
        for item, context in replaced:
            discard(self.folder.map(item, context))
