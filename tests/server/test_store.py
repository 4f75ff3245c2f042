"""The store: nothing accepted is lost, nothing is there twice, decisions last, files and rows belong together."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.images.read import Limits
from anomaly_ov_server.faults import Fault
from anomaly_ov_server.store.store import Store, StoreLimits
from anomaly_ov_server.uploads import Upload
from serving_store_fixtures import SCORED_BY, files_below, inspected, png, score_all, uploads


def test_a_picture_is_on_disk_before_it_is_known(store: Store) -> None:
    batch = store.create_batch("parts")
    (item,), rejected = store.add_pictures(batch.id, uploads(1))
    assert not rejected
    assert store.folder.picture(item.sha256).read_bytes() == png(1)
    assert (item.state, item.position, item.name, item.score) == ("pending", 0, "part1.png", None)
    assert store.batch(batch.id).state == "running"


def test_adding_again_adds_nothing(store: Store) -> None:
    batch = store.create_batch(None).id
    first, _ = store.add_pictures(batch, uploads(1, 2))
    revision = store.batch(batch).revision
    again, _ = store.add_pictures(batch, uploads(2, 1))
    assert {item.id for item in again} == {item.id for item in first}
    assert store.batch(batch).revision == revision
    other_name, _ = store.add_pictures(batch, uploads(1, name="other.png"))
    assert other_name[0].position == 2
    assert len(list(store.folder.root.joinpath("pictures").rglob("*"))) == 4  # two folders, two files


def test_what_is_no_picture_is_rejected_and_the_rest_is_taken(tmp_path: Path) -> None:
    store = Store(tmp_path, limits=StoreLimits(picture=Limits(max_bytes=2000)))
    batch = store.create_batch().id
    sent = [
        Upload("a.txt", b"hello"),
        Upload("b.png", b""),
        Upload("c.png", png(3)),
        Upload("d.png", png(4) + b" " * 2000),
    ]
    items, rejected = store.add_pictures(batch, sent)
    assert [item.name for item in items] == ["c.png"]
    assert [(one.name, one.error.type) for one in rejected] == [
        ("a.txt", "unreadable_image"),
        ("b.png", "unreadable_image"),
        ("d.png", "image_too_large"),
    ]
    assert files_below(tmp_path / "pictures") == {items[0].sha256}
    store.close()


def test_each_page_of_a_tiff_is_an_item(store: Store) -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 10).save(buffer, "TIFF", save_all=True, append_images=[Image.new("L", (6, 6), 20)])
    batch = store.create_batch().id
    items, _ = store.add_pictures(batch, [Upload("scan.tif", buffer.getvalue())])
    assert [item.name for item in items] == ["scan.tif#page=1", "scan.tif#page=2"]
    score_all(store)
    widths = [item.width for item in store.items(batch, sort="position").items]
    assert widths == [8, 6]
    assert len({row.thumbnail for row in store.reviewed(batch)}) == 2


def test_odd_names_are_made_fit(store: Store) -> None:
    batch = store.create_batch("  two\nlines\x00 ")
    assert batch.name == "two lines"
    sent = [Upload("\ud800a\x1b[31m\u202eb.png", png(1)), Upload("\x00", png(2)), Upload("x" * 900, png(3))]
    items, _ = store.add_pictures(batch.id, sent)
    assert [item.name for item in items] == ["a [31m b.png", "picture", "x" * 200]
    json.dumps([dataclasses.asdict(item) for item in items]).encode()


def test_findings_are_kept_once(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1))
    work = store.take(5)
    assert work is not None
    assert store.take(5) is None, "taken already"
    source = store.task_source(work.tasks[0])
    store.keep_findings(work, [inspected(source, 0.9)], SCORED_BY)
    store.keep_findings(work, [inspected(source, 0.1)], SCORED_BY)
    (item,) = store.items(batch).items
    assert (item.state, item.score, item.anomalous, item.regions) == ("done", 0.9, True, 1)
    assert store.batch(batch).state == "done"
    assert store.batch(batch).scored_by == SCORED_BY


def test_records_name_the_picture_and_no_path(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, [*uploads(1), Upload("bad.png", png(2)[:40])])
    score_all(store)
    good, bad = store.reviewed(batch)
    assert good.record is not None
    assert good.record["image"]["path"] == good.record["id"] == "part1.png"
    assert bad.record is not None
    assert bad.record["error"]["type"] == "UnreadableImage"
    assert bad.record["image"]["sha256"] == bad.sha256
    assert str(store.folder.root) not in json.dumps([good.record, bad.record])
    assert (bad.map_path, bad.thumbnail, bad.preview) == (None, None, None)
    for path in (good.map_path, good.thumbnail, good.preview, good.picture):
        assert path is not None
        assert path.is_file()
    counts = store.batch(batch).counts
    assert (counts.total, counts.done, counts.failed, counts.pending) == (2, 1, 1, 0)


def test_images_have_the_right_size_and_values(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, [Upload("wide.png", png(1, (600, 300)))])
    score_all(store, 0.4)
    (row,) = store.reviewed(batch)
    sizes = []
    for path in (row.thumbnail, row.preview, row.map_path):
        assert path is not None
        with Image.open(path) as image:
            sizes.append(image.size)
            pixel = image.getpixel((0, 0))
    assert sizes == [(256, 128), (600, 300), (600, 300)]
    assert pixel == round(0.4 * 255)


def test_sorting_filtering_and_paging(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1, 2, 10, name="img{}.png"))
    for score in (0.2, 0.9, 0.6):
        work = store.take(1)
        assert work is not None
        store.keep_findings(work, [inspected(store.task_source(work.tasks[0]), score)], SCORED_BY)
    store.add_pictures(batch, [Upload("img03%.png", png(3))])

    def names(**options: object) -> list[str]:
        return [item.name.removeprefix("img")[:-4] for item in store.items(batch, **options).items]  # type: ignore[arg-type]

    assert names() == ["2", "10", "1", "03%"], "pictures that wait come last"
    assert names(sort="score") == ["1", "10", "2", "03%"]
    assert names(sort="name") == ["1", "2", "03%", "10"]
    assert names(show="anomalous") == ["2", "10"]
    assert names(show="anomalous", threshold=0.7) == ["2"]
    assert names(show="normal", threshold=0.7) == ["10", "1"]
    assert names(show="pending") == ["03%"]
    assert names(text="%") == ["03%"]
    assert names(text="IMG1") == ["10", "1"]
    assert names(text="_") == []
    page = store.items(batch, offset=1, limit=2)
    assert ([item.score for item in page.items], page.total) == ([0.6, 0.2], 4)
    (item,) = store.items(batch, text="img10", threshold=0.7).items
    assert (item.anomalous, item.threshold and item.threshold.value) == (False, 0.7)


def test_since_gives_what_changed(store: Store) -> None:
    batch = store.create_batch().id
    items, _ = store.add_pictures(batch, uploads(1, 2, 3))
    revision = store.items(batch).revision
    assert store.items(batch, since=revision).items == []
    store.decide(items[1].id, "unsure")
    changed = store.items(batch, since=revision)
    assert [item.id for item in changed.items] == [items[1].id]
    assert changed.revision > revision


def test_decisions_undo_step_by_step_and_keep_their_history(tmp_path: Path) -> None:
    store = Store(tmp_path)
    batch = store.create_batch().id
    (item,), _ = store.add_pictures(batch, uploads(1))
    store.decide(item.id, "anomalous", "a\x00 scratch\nhere")
    store.decide(item.id, "anomalous", "a  scratch\nhere")
    store.decide(item.id, "normal")
    assert (store.undo(item.id).decision or item).note == "a  scratch\nhere"  # type: ignore[union-attr]
    store.decide(item.id, "unsure")
    store.close()

    store = Store(tmp_path)
    verdicts = []
    for _ in range(3):
        decision = store.undo(item.id).decision
        verdicts.append(decision and decision.verdict)
    assert verdicts == ["anomalous", None, None]
    history = [(step.action, step.verdict) for step in store.item(item.id).decisions]
    assert history == [
        ("decide", "anomalous"),
        ("decide", "normal"),
        ("undo", "anomalous"),
        ("decide", "unsure"),
        ("undo", "anomalous"),
        ("undo", None),
    ]
    assert store.batch(batch).counts.decided == 0
    store.close()


def test_deleting_a_batch_spares_pictures_of_others(store: Store) -> None:
    one, other = store.create_batch().id, store.create_batch().id
    store.add_pictures(one, uploads(1, 2))
    store.add_pictures(other, uploads(2))
    score_all(store)
    store.delete_batch(one)
    (row,) = store.reviewed(other)
    assert files_below(store.folder.root / "pictures") == {row.sha256}
    assert row.thumbnail is not None
    assert row.thumbnail.is_file()
    for folder in ("maps", "thumbnails", "previews"):
        assert len(files_below(store.folder.root / folder)) == 1
    with pytest.raises(Fault) as raised:
        store.batch(one)
    assert raised.value.status == 404


def test_findings_of_a_deleted_batch_are_dropped(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1))
    work = store.take(1)
    assert work is not None
    found = [inspected(store.task_source(work.tasks[0]))]
    store.delete_batch(batch)
    store.keep_findings(work, found, SCORED_BY)
    assert store.batches() == []


def test_a_restart_takes_up_what_was_begun_and_sweeps_what_belongs_to_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1, 2))
    score_all(store)
    store.add_pictures(batch, uploads(3))
    assert store.take(5) is not None
    store.close()
    orphans = [
        "pictures/ab/abcd",
        "pictures/ab/.0123.tmp",
        "thumbnails/ff.webp",
        "previews/ff.webp",
        "maps/i_1-none.png",
        "contexts/c_1.ctx",
    ]
    for name in orphans:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    store = Store(tmp_path)
    assert not any((tmp_path / name).exists() for name in orphans)
    assert len(files_below(tmp_path / "pictures")) == 3
    assert len(files_below(tmp_path / "maps")) == 2
    work = store.take(5)
    assert work is not None
    assert [(task.name, task.attempts) for task in work.tasks] == [("part3.png", 2)]
    store.close()


def test_what_was_begun_often_is_tried_alone(store: Store) -> None:
    batch = store.create_batch().id
    store.add_pictures(batch, uploads(1, 2))
    sizes = []
    for _ in range(4):
        work = store.take(5)
        assert work is not None
        sizes.append(len(work.tasks))
        with store._database.writing() as connection:
            connection.execute("UPDATE item SET state = 'pending'")
    assert sizes == [2, 2, 1, 1]
    store.release([task.item for task in work.tasks])


def test_batches_take_turns(store: Store) -> None:
    numbers, after = [], 0
    for shade in range(3):
        store.add_pictures(store.create_batch().id, uploads(shade, shade + 10))
    while (work := store.take(1, after)) is not None:
        after = work.number
        numbers.append(after)
    assert numbers == [1, 2, 3, 1, 2, 3]


def test_limits_hold(tmp_path: Path) -> None:
    store = Store(tmp_path, limits=StoreLimits(max_items=2, max_batches=1))
    batch = store.create_batch().id
    with pytest.raises(Fault, match="batches are kept"):
        store.create_batch()
    with pytest.raises(Fault) as raised:
        store.add_pictures(batch, uploads(1, 2, 3))
    assert (raised.value.status, raised.value.type) == (413, "batch_full")
    assert store.batch(batch).counts.total == 0, "all or nothing"
    store.close()


def test_a_full_disk_is_said_before_anything_is_taken(tmp_path: Path) -> None:
    store = Store(tmp_path, limits=StoreLimits(keep_free=shutil.disk_usage(tmp_path).free * 2))
    batch = store.create_batch().id
    with pytest.raises(Fault) as raised:
        store.add_pictures(batch, uploads(1))
    assert (raised.value.status, raised.value.type) == (507, "storage_full")
    assert str(tmp_path) not in raised.value.message
    assert files_below(tmp_path / "pictures") == set()
    store.close()


def test_one_process_holds_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UsageError, match="in use by another process"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


@pytest.mark.parametrize(
    ("script", "message"),
    [("PRAGMA user_version = 99", "has format 99"), ("PRAGMA application_id = 7", "is not a store of anomaly-ov")],
)
def test_another_version_or_program_is_refused(tmp_path: Path, script: str, message: str) -> None:
    Store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "store.sqlite3")
    connection.execute(script)
    connection.commit()
    connection.close()
    for _ in range(2):  # the folder is let go of
        with pytest.raises(UsageError, match=message):
            Store(tmp_path)


def test_a_damaged_database_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"no database, but long enough to have a header " * 50)
    with pytest.raises(UsageError, match="cannot use store"):
        Store(tmp_path)


def test_a_picture_whose_file_is_gone_fails_by_itself(store: Store) -> None:
    batch = store.create_batch().id
    (item,), _ = store.add_pictures(batch, uploads(1))
    store.folder.picture(item.sha256).unlink()
    score_all(store)
    assert store.item(item.id).item.state == "failed"


def test_unknown_ids(store: Store) -> None:
    for ask in (store.item, store.files, store.picture_of, store.undo, store.batch, store.delete_batch, store.reviewed):
        with pytest.raises(Fault) as raised:
            ask("x' OR 1=1 --")
        assert raised.value.status == 404
