"""Every layout's small copy is read as what it is; bad lists are refused or noted, never followed outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts import discover, lists
from anomaly_ov_lab.data.samples import read_mask
from fake_sets import FAKES
from fake_sets.pictures import mask, picture


@pytest.mark.parametrize("name", FAKES)
def test_layout_is_understood(name: str, tmp_path: Path) -> None:
    fake = FAKES[name]
    data = discover(fake.write(tmp_path / name))
    assert data.layout == fake.layout
    assert set(data.categories) == set(fake.categories)
    assert data.counts == {
        "normal": fake.normal,
        "anomalous": fake.anomalous,
        "unknown": fake.unknown,
        "masks": fake.masks,
    }
    assert sum(sample.split == "train" for sample in data) == fake.train
    assert data.notes == fake.notes
    for sample in data:
        assert sample.image.is_file()
        assert sample.mask is None or read_mask(sample.mask).any()
        assert sample.label == 1 or (sample.mask is None and sample.defect is None)


def test_aitex_names_its_defects_and_its_fabrics_are_one_category(tmp_path: Path) -> None:
    data = discover(FAKES["aitex"].write(tmp_path / "aitex"))
    assert {sample.image.stem: sample.defect for sample in data if sample.label} == {
        "0001_002_00": "broken end",
        "0044_019_04": "fuzzyball",
        "0100_025_08": "warp ball",
    }


def test_mtd_and_realiad_name_their_defects(tmp_path: Path) -> None:
    mtd = discover(FAKES["mtd"].write(tmp_path / "mtd"))
    assert {sample.defect for sample in mtd} == {None, "blowhole", "crack"}
    realiad = discover(FAKES["realiad"].write(tmp_path / "realiad"))
    assert {sample.defect for sample in realiad} == {None, "BX", "ZW"}
    assert {sample.image.relative_to(realiad.root).parts[0] for sample in realiad} == {"realiad_1024"}


# --- lists given by themselves --------------------------------------------------------------------------------------


def test_another_visa_split_is_read_from_its_file(tmp_path: Path) -> None:
    root = FAKES["visa"].write(tmp_path / "visa")
    rows = (root / "split_csv/1cls.csv").read_text().splitlines()
    (root / "split_csv/few.csv").write_text("\n".join(rows[:3]))
    data = discover(root / "split_csv/few.csv")
    assert (data.name, data.root, len(data)) == ("few", root, 2)


@pytest.mark.parametrize(
    ("fake", "file", "count"), [("meta", "meta.json", 10), ("coco", "annotations/instances_test.json", 5)]
)
def test_json_lists_are_read_by_themselves(fake: str, file: str, count: int, tmp_path: Path) -> None:
    root = FAKES[fake].write(tmp_path / fake)
    data = discover(root / file)
    assert (data.layout, data.root, len(data)) == (fake, root, count)


@pytest.mark.parametrize("name", ["x.json", "x.csv"])
def test_lists_of_no_known_kind_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"images": 3}')
    with pytest.raises(DataError, match="no list that we know"):
        discover(tmp_path / name)


# --- bad lists ------------------------------------------------------------------------------------------------------


def _rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


LISTS = {
    "visa": ("split_csv/1cls.csv", "candle/Data/Images/Anomaly/000.JPG"),
    "elpv": ("labels.csv", "images/cell0001.png"),
    "meta": ("meta.json", "carpet/test/good/001.png"),
    "realiad": ("realiad_jsons/realiad_jsons/pcb.json", "OK/S0003/pcb_0003_OK_C1_2023.jpg"),
    "coco": ("annotations/instances_test.json", "n2.png"),
    "jsonl": ("list.jsonl", "a.png"),
}


def _names() -> list[tuple[str, str, str]]:
    cases = []
    for fake in LISTS:
        cases.append((fake, "nothing-here.png", "listed picture is missing, left out: 1 "))
        cases.append((fake, "../" * 6 + "outside.png", "leads outside the data set's folder, left out: 1 "))
        cases.append((fake, "x" * 5000, "unusable path in the list, left out: 1 "))
        if fake in ("meta", "realiad", "coco", "jsonl"):
            cases.append((fake, "a\\u0000b.png", "unusable path in the list, left out: 1 "))
    return cases


@pytest.mark.parametrize(("fake", "name", "note"), _names(), ids=lambda value: str(value)[:20])
def test_listed_names_that_are_no_picture_inside_are_noted(fake: str, name: str, note: str, tmp_path: Path) -> None:
    base = tmp_path / "1/2/3/4/5"
    for level in (tmp_path, *(tmp_path / "/".join("12345"[: n + 1]) for n in range(5))):
        picture(level / "outside.png")  # wherever the dots lead, there is a picture to be tempted by
    path = FAKES[fake].write(base / fake)
    before = len(discover(path))
    file, entry = LISTS[fake]
    _rewrite(base / fake / file, entry, name)
    data = discover(path)
    assert len(data) == before - 1
    assert [line for line in data.notes if line.startswith(note)], data.notes
    assert all(len(line) < 400 for line in data.notes)


@pytest.mark.parametrize("fake", ["visa", "meta", "realiad"])
def test_listed_mask_that_is_missing_is_noted(fake: str, tmp_path: Path) -> None:
    path = FAKES[fake].write(tmp_path / fake)
    masks = [sample.mask for sample in discover(path) if sample.mask]
    assert masks[0]
    masks[0].unlink()
    data = discover(path)
    assert data.counts["masks"] == len(masks) - 1
    assert f"listed mask is missing: 1 ({masks[0].relative_to(data.root).as_posix()})" in data.notes


@pytest.mark.parametrize("fake", [name for name, one in FAKES.items() if one.masks and name != "aitex"])
def test_mask_of_another_shape_is_noted(fake: str, tmp_path: Path) -> None:
    path = FAKES[fake].write(tmp_path / fake)
    first = next(sample.mask for sample in discover(path) if sample.mask)
    mask(first, wh=(90, 20))
    notes = discover(path).notes
    assert any(line.startswith("mask has another shape than its picture: 1 ") for line in notes), notes


@pytest.mark.parametrize(
    ("fake", "what"), [("mtd", "anomalous picture without a mask"), ("kolektor", "listed mask is missing")]
)
def test_mask_beside_the_picture_that_is_missing_is_noted(fake: str, what: str, tmp_path: Path) -> None:
    path = FAKES[fake].write(tmp_path / fake)
    first = next(sample.mask for sample in discover(path) if sample.mask)
    first.unlink()
    data = discover(path)
    assert any(line.startswith(f"{what}: 1 ") for line in data.notes)
    assert data.counts["unknown"] == int(fake == "kolektor")  # where the mask is the label, it is unknown now


@pytest.mark.parametrize("fake", ["meta", "realiad", "coco"])
def test_huge_json_is_refused_before_it_is_parsed(fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FAKES[fake].write(tmp_path / fake)
    monkeypatch.setattr(lists, "MAX_JSON_BYTES", 500)
    monkeypatch.setattr(lists.json, "loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(DataError, match="more than 500") as error:
        discover(path)
    assert "\n" not in str(error.value)


def test_huge_csv_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FAKES["visa"].write(tmp_path / "visa")
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 100)
    with pytest.raises(DataError, match="more than 100"):
        discover(path)


@pytest.mark.parametrize(
    ("fake", "content"),
    [
        ("meta", '{"train": {"a": [{"img_path": "x.png"'),
        ("meta", '{"train": {"a": {"img_path": "x.png"}}}'),
        ("meta", '["img_path"]'),
        ("meta", '{"train": {"a": ["img_path"]}, "test": ' + "[" * 100_000),
        ("coco", '{"images": [3], "annotations": []}'),
        ("coco", '{"images": [], "annotations": [{}, 4]}'),
        ("coco", '[{"images": [], "annotations": []}]'),
        ("realiad", '{"meta": {"normal_class": "OK"}, "train": {}, "test": []}'),
        ("realiad", '["meta", "normal_class"]'),
    ],
)
def test_json_of_another_form_is_one_line(fake: str, content: str, tmp_path: Path) -> None:
    path = FAKES[fake].write(tmp_path / fake)
    (path / LISTS[fake][0]).write_text(content)
    with pytest.raises(DataError) as error:
        discover(path)
    assert "\n" not in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize(
    "entry",
    [None, 3, {}, {"img_path": 3, "anomaly": 0}, {"img_path": "x.png"}, {"img_path": "x.png", "anomaly": "perhaps"}],
)
def test_meta_entries_of_another_form_are_noted(entry: Any, tmp_path: Path) -> None:
    root = FAKES["meta"].write(tmp_path / "meta")
    content = json.loads((root / "meta.json").read_text())
    content["test"]["grid"].append(entry)
    (root / "meta.json").write_text(json.dumps(content))
    data = discover(root)
    assert len(data) == 10
    assert data.notes == ("unusable entry of the list, left out: 1 (test/grid/4)",)


def test_visa_rows_of_another_form_are_noted(tmp_path: Path) -> None:
    root = FAKES["visa"].write(tmp_path / "visa")
    with (root / "split_csv/1cls.csv").open("a") as file:
        file.write("candle,dev,normal,a.png,\ncandle,test,perhaps,a.png,\ncandle\n")
    assert discover(root).notes == ("unusable entry of the list, left out: 3 (line 12, line 13, line 14)",)


def test_headct_numbers_without_a_picture_and_odd_lines_are_noted(tmp_path: Path) -> None:
    root = FAKES["headct"].write(tmp_path / "headct")
    with (root / "labels.csv").open("a") as file:
        file.write("77,1\n3;1\n")
    assert discover(root).notes == (
        "listed picture is missing, left out: 1 (number 77)",
        "unreadable line of the list, left out: 1 (line 7)",
    )


def test_the_same_picture_with_two_labels_is_refused(tmp_path: Path) -> None:
    root = FAKES["visa"].write(tmp_path / "visa")
    with (root / "split_csv/1cls.csv").open("a") as file:
        file.write("candle,train,normal,candle/Data/Images/Anomaly/000.JPG,\n")
    with pytest.raises(DataError, match="label 1 and 0"):
        discover(root)


def test_json_that_only_speaks_of_images_is_no_data_set_list(tmp_path: Path) -> None:
    root = FAKES["good_bad"].write(tmp_path / "set")
    (root / "run.json").write_text('{"images": ["1.png"]}')
    assert discover(root).layout == "folders"


def test_control_characters_in_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    root = FAKES["jsonl"].write(tmp_path / "set")
    with root.open("a") as file:
        file.write(json.dumps({"image": "\x1b[2Jx.png"}) + "\n")
    assert all("\x1b" not in note for note in discover(root).notes)
