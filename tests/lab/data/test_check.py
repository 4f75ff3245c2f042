"""What ``check`` finds in sets that are clean, and in sets with one thing wrong each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from anomaly_ov_lab.data import check as check_module
from anomaly_ov_lab.data.check import Remark, Report, check
from anomaly_ov_lab.data.layouts import discover
from fake_sets import FAKES
from fake_sets.pictures import mask, picture

CLEAN = [name for name in FAKES if name not in ("aitex",)]


def _check(path: Path, *against: Path, near: bool = True) -> Report:
    return check([discover(path)], [discover(one) for one in against], near, workers=1)


def _kinds(report: Report) -> dict[str, Remark]:
    return {remark.kind: remark for remark in report.sets[0].remarks}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean set of the MVTec style, with two splits and masks."""
    return FAKES["mvtec"].write(tmp_path / "mvtec")


@pytest.mark.parametrize("name", CLEAN)
def test_faithful_copies_are_clean(name: str, tmp_path: Path) -> None:
    fake = FAKES[name]
    report = _check(fake.write(tmp_path / name))
    assert report.problems == 0, report.sets[0].remarks
    counts = report.sets[0].counts
    assert sum(count.normal for count in counts) == fake.normal
    assert sum(count.masks for count in counts) == fake.masks
    assert report.to_json()["clean"]


def test_counts_are_by_category_and_split(root: Path) -> None:
    counts = {(c.category, c.split): (c.normal, c.anomalous, c.unknown, c.masks) for c in _check(root).sets[0].counts}
    assert counts == {
        (c, s): n for c in ("bottle", "cable") for s, n in (("train", (2, 0, 0, 0)), ("test", (2, 4, 0, 4)))
    }


def test_aitex_lacks_a_mask_as_released(tmp_path: Path) -> None:
    kinds = _kinds(_check(FAKES["aitex"].write(tmp_path / "aitex")))
    assert kinds["anomalous picture without a mask"].problem
    assert not kinds["mask in several files, joined only by 'anomaly-ov data convert'"].problem


def test_pictures_that_do_not_decode(root: Path) -> None:
    (root / "bottle/test/good/000.png").write_bytes(b"no picture")
    data = (root / "cable/test/good/000.png").read_bytes()
    (root / "cable/test/good/000.png").write_bytes(data[: len(data) // 2])
    report = _check(root)
    remark = _kinds(report)[check_module.UNREADABLE]
    assert (remark.count, remark.problem) == (2, True)
    assert remark.examples[0].startswith("bottle/test/good/000.png: ")
    assert check_module.UNREADABLE not in _kinds(_check(root, near=False))


def test_masks_of_another_size_and_of_another_shape(root: Path) -> None:
    mask(root / "bottle/ground_truth/broken/000_mask.png", wh=(64, 48))
    mask(root / "bottle/ground_truth/broken/001_mask.png", wh=(64, 20))
    kinds = _kinds(_check(root))
    size = kinds[check_module.MASK_SIZE]
    assert (size.count, size.problem) == (1, False)
    assert size.examples == ("bottle/test/broken/000.png: (64, 48) for (32, 24)",)
    assert kinds["mask has another shape than its picture"].problem


def test_identical_pictures_and_conflicting_labels(root: Path) -> None:
    shutil.copy(root / "bottle/test/good/000.png", root / "bottle/test/good/100.png")
    shutil.copy(root / "bottle/test/good/000.png", root / "bottle/test/good/101.png")
    shutil.copy(root / "cable/test/good/000.png", root / "cable/test/broken/100.png")
    kinds = _kinds(_check(root))
    assert kinds[check_module.IDENTICAL].count == 3
    assert "bottle/test/good/000.png = bottle/test/good/100.png = bottle/test/good/101.png" in (
        kinds[check_module.IDENTICAL].examples
    )
    conflict = kinds[check_module.CONFLICT]
    assert (conflict.count, conflict.problem) == (1, True)
    assert set(conflict.examples[0].split(" = ")) == {"cable/test/good/000.png", "cable/test/broken/100.png"}
    assert check_module.LEAKED not in kinds


def test_training_pictures_in_the_test_split(root: Path) -> None:
    shutil.copy(root / "bottle/train/good/000.png", root / "bottle/test/good/100.png")
    with Image.open(root / "cable/train/good/000.png") as original:
        original.resize((64, 48)).save(root / "cable/test/good/100.jpg", quality=90)
    kinds = _kinds(_check(root))
    leaked, alike = kinds[check_module.LEAKED], kinds[check_module.ALIKE_TRAIN]
    assert (leaked.count, leaked.problem) == (1, True)
    assert leaked.examples == ("bottle/test/good/100.png = bottle/train/good/000.png",)
    assert (alike.count, alike.problem) == (1, False)
    assert alike.examples == ("cable/test/good/100.jpg ~ cable/train/good/000.png",)
    assert check_module.ALIKE_TRAIN not in _kinds(_check(root, near=False))


def test_look_alikes_count_pictures_and_name_each_two_once(root: Path) -> None:
    with Image.open(root / "cable/test/good/000.png") as original:
        original.resize((64, 48)).save(root / "cable/test/good/100.png")
    report = _check(root)
    alike = _kinds(report)[check_module.ALIKE]
    assert (alike.count, len(alike.examples)) == (2, 1)
    assert report.problems == 0


def test_plain_pictures_and_one_label_are_remarks(tmp_path: Path) -> None:
    picture(tmp_path / "set/good/1.png")
    Image.new("L", (40, 30), 255).save(tmp_path / "set/good/2.png")
    report = _check(tmp_path / "set")
    assert {kind: remark.problem for kind, remark in _kinds(report).items()} == {
        check_module.PLAIN: False,
        check_module.ONE_LABEL: False,
    }


def test_pictures_shared_with_other_sets(root: Path, tmp_path: Path) -> None:
    other = FAKES["good_bad"].write(tmp_path / "other")
    shutil.copy(root / "bottle/test/good/000.png", other / "good/9.png")
    with Image.open(root / "cable/test/good/000.png") as original:
        original.resize((64, 48)).save(other / "bad/9.png")
    mask(other / "masks/9.png", wh=(64, 48))
    clean = FAKES["brainmri"].write(tmp_path / "clean")
    report = _check(root, other, clean)
    assert [(one.first, one.second) for one in report.overlaps] == [("mvtec", "other")]
    exact, alike = report.overlaps[0].remarks
    assert (exact.kind, exact.problem) == (check_module.IDENTICAL_ACROSS, True)
    assert exact.examples == ("bottle/test/good/000.png = good/9.png",)
    assert (alike.kind, alike.problem) == (check_module.ALIKE_ACROSS, False)
    assert alike.examples == ("cable/test/good/000.png ~ bad/9.png",)
    assert len(report.sets) == 1


def test_several_sets_are_compared_with_each_other_and_progress_counts_all(root: Path, tmp_path: Path) -> None:
    other = FAKES["good_bad"].write(tmp_path / "other")
    shutil.copy(root / "bottle/test/good/000.png", other / "good/9.png")
    told: list[tuple[int, int]] = []
    report = check(
        [discover(root), discover(other)], workers=1, progress=lambda done, total: told.append((done, total))
    )
    assert [(one.first, one.second) for one in report.overlaps] == [("mvtec", "other")]
    assert told == [(done, 21) for done in range(1, 22)]


def test_faults_of_lists_are_problems_and_the_report_is_plain_json(tmp_path: Path) -> None:
    path = FAKES["jsonl"].write(tmp_path / "set")
    with path.open("a") as file:
        file.write('{"image": "none.png"}\nbroken\n')
    report = _check(path)
    assert report.problems == 2
    content = json.loads(json.dumps(report.to_json()))
    assert content["clean"] is False
    assert [r["kind"] for r in content["sets"][0]["remarks"] if r["problem"]] == [
        "listed picture is missing, left out",
        "unreadable line of the list, left out",
    ]
