from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.layouts import discover, discover_all


def _image(path: Path, size: tuple[int, int] = (8, 6), value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def _mask(path: Path, size: tuple[int, int] = (8, 6), empty: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    if not empty:
        pixels[:2, :2] = 255
    Image.fromarray(pixels).save(path)
    return path


def _mvtec(root: Path) -> Path:
    for name in ("000.png", "001.png"):
        _image(root / "test/good" / name)
        _image(root / "test/cut" / name)
        _mask(root / "ground_truth/cut" / f"{Path(name).stem}_mask.png")
    _image(root / "train/good/000.png")
    _image(root / "validation/good/000.png")
    return root


def _jsonl(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


# --- mvtec ----------------------------------------------------------------------------------------------------------


def test_mvtec_category_itself(tmp_path: Path) -> None:
    data = discover(_mvtec(tmp_path / "tire"))
    assert (data.name, data.layout, data.categories, data.notes) == ("tire", "mvtec", ("tire",), ())
    assert data.counts == {"normal": 4, "anomalous": 2, "unknown": 0, "masks": 2}
    cut = [s for s in data if s.defect == "cut"]
    assert [(s.label, s.split, s.mask.name if s.mask else None) for s in cut] == [
        (1, "test", "000_mask.png"),
        (1, "test", "001_mask.png"),
    ]
    assert len(data.of_split("train")) == 2  # validation goods are on the training side


def test_mvtec_parent_of_several_categories(tmp_path: Path) -> None:
    _mvtec(tmp_path / "set/bottle")
    _mvtec(tmp_path / "set/deeper/cable")
    data = discover(tmp_path / "set")
    assert data.categories == ("bottle", "deeper/cable")
    assert len(data) == 12


def test_mvtec_missing_masks_are_noted_in_one_line(tmp_path: Path) -> None:
    root = _mvtec(tmp_path / "tire")
    for mask in (root / "ground_truth/cut").iterdir():
        mask.unlink()
    data = discover(root)
    assert data.counts["masks"] == 0
    assert data.notes == ("anomalous picture without a mask: 2 (test/cut/000.png, test/cut/001.png)",)


def test_mvtec_without_ground_truth_has_no_masks_and_no_complaint(tmp_path: Path) -> None:
    _image(tmp_path / "set/test/good/0.png")
    _image(tmp_path / "set/test/hole/0.png")
    data = discover(tmp_path / "set")
    assert data.counts == {"normal": 1, "anomalous": 1, "unknown": 0, "masks": 0}
    assert data.notes == ()


def test_masks_that_are_empty_misshapen_or_broken_are_noted(tmp_path: Path) -> None:
    root = _mvtec(tmp_path / "tire")
    _mask(root / "ground_truth/cut/000_mask.png", empty=True)
    _mask(root / "ground_truth/cut/001_mask.png", size=(30, 6))
    _image(root / "test/cut/002.png")
    (root / "ground_truth/cut/002_mask.png").write_bytes(b"broken")
    data = discover(root)
    assert data.notes == (
        "mask is empty: 1 (ground_truth/cut/000_mask.png)",
        "mask has another shape than its picture: 1 (ground_truth/cut/001_mask.png)",
        "mask does not decode, taken as missing: 1 (ground_truth/cut/002_mask.png)",
    )
    assert data.counts["masks"] == 2
    assert discover(root, check_masks=False).notes == ()


def test_mask_of_a_turned_or_resized_picture_is_no_mismatch(tmp_path: Path) -> None:
    root = tmp_path / "tire"
    _image(root / "test/cut/0.png", size=(80, 60))
    _mask(root / "ground_truth/cut/0_mask.png", size=(60, 80))
    _image(root / "test/cut/1.png", size=(80, 60))
    _mask(root / "ground_truth/cut/1_mask.png", size=(27, 20))
    assert discover(root).notes == ()


# --- mvtec3d --------------------------------------------------------------------------------------------------------


def _mvtec3d(root: Path) -> Path:
    for part, kind in (("train", "good"), ("validation", "good"), ("test", "good"), ("test", "crack")):
        for name in ("000", "001"):
            _image(root / part / kind / "rgb" / f"{name}.png")
            _mask(root / part / kind / "gt" / f"{name}.png", empty=kind == "good")
            (root / part / kind / "xyz").mkdir(exist_ok=True)
            (root / part / kind / "xyz" / f"{name}.tiff").write_bytes(b"depth")
    return root


def test_mvtec3d_reads_colour_and_masks_and_no_depth(tmp_path: Path) -> None:
    for category in ("bagel", "tire"):
        _mvtec3d(tmp_path / "mvtec3d" / category)
    data = discover(tmp_path / "mvtec3d")
    assert (data.layout, data.categories, data.notes) == ("mvtec3d", ("bagel", "tire"), ())
    assert data.counts == {"normal": 12, "anomalous": 4, "unknown": 0, "masks": 4}
    assert len(data.of_split("train")) == 8
    crack = [s for s in data if s.defect == "crack" and s.category == "tire"]
    assert [(s.image.parent.name, s.split, s.mask) for s in crack] == [
        ("rgb", "test", tmp_path / f"mvtec3d/tire/test/crack/gt/{name}.png") for name in ("000", "001")
    ]


def test_mvtec3d_missing_mask_is_noted(tmp_path: Path) -> None:
    root = _mvtec3d(tmp_path / "tire")
    (root / "test/crack/gt/001.png").unlink()
    data = discover(root)
    assert data.counts["masks"] == 1
    assert data.notes == ("anomalous picture without a mask: 1 (test/crack/rgb/001.png)",)


# --- folders --------------------------------------------------------------------------------------------------------


def test_normal_abnormal_masks_by_category(tmp_path: Path) -> None:
    for category in ("apple", "banana"):
        _image(tmp_path / "fruit" / category / "normal/a.jpg")
        _image(tmp_path / "fruit" / category / "abnormal/b.jpg")
        _mask(tmp_path / "fruit" / category / "masks/b.png")
    _image(tmp_path / "fruit/plain/normal/c.jpg")
    data = discover(tmp_path / "fruit")
    assert data.layout == "folders"
    assert data.categories == ("apple", "banana", "plain")
    assert data.counts == {"normal": 3, "anomalous": 2, "unknown": 0, "masks": 2}
    assert all(s.split is None for s in data)


@pytest.mark.parametrize(("normal", "anomalous"), [("no", "yes"), ("good", "bad"), ("OK", "NG"), ("normal", "anomaly")])
def test_plain_good_and_bad_folders(tmp_path: Path, normal: str, anomalous: str) -> None:
    _image(tmp_path / "set" / normal / "1.JPG")
    _image(tmp_path / "set" / anomalous / "x/2.png")
    data = discover(tmp_path / "set")
    assert [(s.image.name, s.label, s.category) for s in sorted(data, key=lambda s: s.image.name)] == [
        ("1.JPG", 0, "set"),
        ("2.png", 1, "set"),
    ]


def test_masks_follow_nested_folders(tmp_path: Path) -> None:
    _image(tmp_path / "set/good/a/1.png")
    _image(tmp_path / "set/bad/a/1.png")
    _image(tmp_path / "set/bad/b/1.png")
    _mask(tmp_path / "set/masks/a/1.png")
    _mask(tmp_path / "set/masks/bad/b/1_mask.png")
    masks = [s.mask.relative_to(tmp_path).as_posix() for s in discover(tmp_path / "set") if s.mask]
    assert masks == ["set/masks/a/1.png", "set/masks/bad/b/1_mask.png"]


def test_natural_order_hidden_files_and_other_files(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.png", ".hidden.png"):
        _image(tmp_path / "set/good" / name)
    (tmp_path / "set/good/Thumbs.db").write_bytes(b"x")
    data = discover(tmp_path / "set")
    assert [s.image.name for s in data] == ["img2.png", "img10.png"]
    assert data.notes == ("not a picture by its name, left out: 1 (good/Thumbs.db)",)


def test_unlabelled_folders_beside_labelled_ones_are_noted(tmp_path: Path) -> None:
    _image(tmp_path / "set/good/1.png")
    _image(tmp_path / "set/unsorted/2.png")
    assert discover(tmp_path / "set").notes == ("folder of pictures without labels, left out: 1 (unsorted)",)
    _image(tmp_path / "sets/a/good/1.png")
    _image(tmp_path / "sets/rest/2.png")
    assert discover(tmp_path / "sets").notes == ("folder of pictures without labels, left out: 1 (rest)",)


def test_links_that_lead_outside_are_left_out(tmp_path: Path) -> None:
    secret = _image(tmp_path / "secret/1.png")
    inside = _image(tmp_path / "set/good/1.png")
    (tmp_path / "set/good/2.png").symlink_to(secret)
    (tmp_path / "set/good/3.png").symlink_to(inside)
    (tmp_path / "set/bad").symlink_to(secret.parent, target_is_directory=True)
    data = discover(tmp_path / "set")
    assert [s.image.name for s in data] == ["1.png", "3.png"]
    assert data.notes == ("leads outside the data set's folder, left out: 2 (bad, good/2.png)",)


# --- elpv -----------------------------------------------------------------------------------------------------------


def _elpv(root: Path, text: str) -> Path:
    for number in range(1, 5):
        _image(root / f"images/cell{number:04}.png")
    (root / "labels.csv").write_text(text)
    return root


def test_elpv_leaves_uncertain_labels_open(tmp_path: Path) -> None:
    lines = (
        "images/cell0001.png  1.0   mono\nimages/cell0002.png 0.0 poly\nimages/cell0003.png 0.3333333333333333 mono\n"
    )
    data = discover(_elpv(tmp_path / "elpv", lines + "images/cell0004.png  0.6666666666666666  poly\n"))
    assert data.layout == "elpv"
    assert [s.label for s in data] == [1, 0, None, None]
    assert [s.label for s in data.uncertain_as_anomalous()] == [1, 0, 1, 1]
    assert data.samples[2].probability == pytest.approx(1 / 3)
    assert data.notes == ()


def test_elpv_bad_lines_missing_files_and_repeats_are_noted(tmp_path: Path) -> None:
    _image(tmp_path / "outside.png")
    text = (
        "images/cell0001.png 1.0 mono\nimages/cell0001.png 1.0 mono\nimages/cell0002.png high mono\n"
        "images/cell0003.png 1.5 mono\nimages/cell0004.png nan mono\nimages/none.png 0.0 mono\n"
        "../outside.png 0.0 mono\n"
    )
    data = discover(_elpv(tmp_path / "elpv", text))
    assert len(data) == 1
    assert data.notes == (
        "unreadable line of the list, left out: 3 (line 3, line 4, line 5)",
        "listed picture is missing, left out: 1 (images/none.png)",
        "leads outside the data set's folder, left out: 1 (../outside.png)",
        "listed twice: 1 (images/cell0001.png)",
    )


def test_elpv_conflicting_labels_are_an_error(tmp_path: Path) -> None:
    root = _elpv(tmp_path / "elpv", "images/cell0001.png 1.0 mono\nimages/../images/cell0001.png 0.0 mono\n")
    with pytest.raises(DataError, match=r"cell0001\.png .*listed twice, with label 1 and 0"):
        discover(root)


# --- jsonl ----------------------------------------------------------------------------------------------------------


def test_jsonl_list(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        _image(tmp_path / "pictures" / name)
    _mask(tmp_path / "masks/b.png")
    path = _jsonl(
        tmp_path / "my list.jsonl",
        {"image": "pictures/a.png", "label": "normal"},
        {
            "image": "pictures/b.png",
            "label": 1,
            "mask": "masks/b.png",
            "category": "nut",
            "defect": "x",
            "split": "test",
        },
        "",
        {"image": "pictures/c.png", "label": None, "probability": 0.5, "something": "else"},
        {"image": str(tmp_path / "pictures/d.png"), "label": True, "mask": "masks/none.png"},
    )
    data = discover(path)
    assert (data.name, data.layout, data.root) == ("my list", "jsonl", tmp_path)
    assert [(s.label, s.category, s.split, s.probability) for s in data] == [
        (0, "my list", None, None),
        (1, "nut", "test", None),
        (None, "my list", None, 0.5),
        (1, "my list", None, None),
    ]
    assert data.samples[1].mask == tmp_path / "masks/b.png"
    assert data.id_of(data.samples[3]) == "pictures/d.png"
    assert data.notes == ("listed mask is missing: 1 (masks/none.png)",)


@pytest.mark.parametrize(
    "line",
    [
        '{"image": "a.png", "lab',
        '["a.png"]',
        {"label": 0},
        {"image": ""},
        {"image": 3},
        {"image": "a.png", "label": 2},
        {"image": "a.png", "label": "perhaps"},
        {"image": "a.png", "split": "dev"},
        {"image": "a.png", "probability": 2},
        {"image": "a.png", "mask": 1},
        "[" * 100_000,
    ],
)
def test_jsonl_bad_lines_are_noted_with_their_number(tmp_path: Path, line: Any) -> None:
    _image(tmp_path / "good.png")
    _image(tmp_path / "a.png")
    data = discover(_jsonl(tmp_path / "list.jsonl", {"image": "good.png", "label": 0}, line))
    assert [s.image.name for s in data] == ["good.png"]
    assert len(data.notes) == 1
    assert data.notes[0].startswith("unreadable line of the list, left out: 1 (line 2: ")


def test_jsonl_conflicts_and_outside_paths(tmp_path: Path) -> None:
    _image(tmp_path / "set/a.png")
    _image(tmp_path / "b.png")
    path = tmp_path / "set/list.jsonl"
    with pytest.raises(DataError, match="holds no pictures"):
        discover(_jsonl(path, {"image": "../b.png", "label": 0}))
    with pytest.raises(DataError, match="label 0 and 1"):
        discover(_jsonl(path, {"image": "a.png", "label": 0}, {"image": "a.png", "label": 1}))


# --- what is no data set --------------------------------------------------------------------------------------------


def test_unknown_structure_says_what_is_there(tmp_path: Path) -> None:
    _image(tmp_path / "photos/cats/1.png")
    with pytest.raises(DataError, match="holds cats") as error:
        discover(tmp_path / "photos")
    assert "known layouts" in error.value.hint
    with pytest.raises(DataError, match="no data set at"):
        discover(tmp_path / "absent")


def test_layout_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "set/good").mkdir(parents=True)
    with pytest.raises(DataError, match="laid out as 'folders' but holds no pictures"):
        discover(tmp_path / "set")


def test_several_data_sets_are_not_mixed_silently(tmp_path: Path) -> None:
    _mvtec(tmp_path / "all/first/tire")
    _image(tmp_path / "all/second/yes/1.png")
    _image(tmp_path / "all/second/no/1.png")
    with pytest.raises(DataError, match=r"several data sets: first/tire \(mvtec\), second \(folders\)"):
        discover(tmp_path / "all")
    assert [(d.name, d.layout) for d in discover_all(tmp_path / "all")] == [("first", "mvtec"), ("second", "folders")]
    assert [d.name for d in discover_all(tmp_path / "all/second")] == ["second"]


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("drivetrain.json", {None}),
        ("contest.json", {None}),
        ("invalidated.json", {None}),
        ("instances_train2017.json", {"train"}),
        ("Training.json", {"train"}),
        ("test-set.json", {"test"}),
        ("validation.json", {"test"}),
    ],
)
def test_a_coco_list_belongs_to_a_split_by_whole_words(name: str, splits: set[str | None], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    _image(folder / "a.png", (20, 20))
    images = [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}]
    (folder / name).write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    assert {sample.split for sample in discover(folder / name)} == splits


@pytest.mark.parametrize(
    ("train", "validation", "test", "good", "bad"),
    [
        ("train", "validation", "test", "normal", "anomaly"),
        ("train", "validation", "test_public", "good", "bad"),
        ("Train", "Valid", "TEST", "Good", "Scratch"),
        ("training", "val", "testing", "OK", "NG"),
    ],
)
def test_splits_are_splits_however_they_are_spelt(
    train: str, validation: str, test: str, good: str, bad: str, tmp_path: Path
) -> None:
    root = tmp_path / "set/can"
    for part in (train, validation, test):
        _image(root / part / good / "0.png")
    _image(root / test / bad / "1.png")
    _mask(root / test / "Ground_Truth" / bad / "1_mask.png")
    data = discover(tmp_path / "set")
    assert data.categories == ("can",)
    assert sorted((s.split, s.label) for s in data) == [("test", 0), ("test", 1), ("train", 0), ("train", 0)]
    (found,) = [s.mask for s in data if s.label == 1]
    assert found == root / test / "Ground_Truth" / bad / "1_mask.png"


def test_a_category_may_be_called_like_a_split(tmp_path: Path) -> None:
    for category in ("train", "drivetrain"):
        _image(tmp_path / "set" / category / "train/good/0.png")
        _image(tmp_path / "set" / category / "test/good/1.png")
        _image(tmp_path / "set" / category / "test/bent/2.png")
    assert discover(tmp_path / "set").categories == ("drivetrain", "train")
