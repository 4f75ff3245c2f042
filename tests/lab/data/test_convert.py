"""Any set as an MVTec-style tree: what is read back is what was there, with outlines drawn and strips cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import DataError, UsageError
from anomaly_ov_lab.data.convert import convert
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.data.samples import read_mask
from fake_sets import FAKES
from fake_sets.pictures import WH, mask, picture, square


@pytest.mark.parametrize("name", [name for name in FAKES if name not in ("aitex", "coco", "roboflow")])
def test_what_is_read_back_is_what_was_there(name: str, tmp_path: Path) -> None:
    fake = FAKES[name]
    done = convert(fake.write(tmp_path / name), tmp_path / "out")
    data = discover(tmp_path / "out")
    assert data.layout == "mvtec"
    assert data.counts == {"normal": fake.normal, "anomalous": fake.anomalous, "unknown": 0, "masks": fake.masks}
    assert set(data.categories) <= set(fake.categories)
    assert sum(sample.split == "train" for sample in data) == fake.train
    assert (done.pictures, done.masks) == (fake.normal + fake.anomalous, fake.masks)
    assert bool(done.notes) == bool(fake.unknown)


def test_pictures_are_copied_byte_for_byte(tmp_path: Path) -> None:
    root = FAKES["visa"].write(tmp_path / "visa")
    convert(root, tmp_path / "out")

    def contents(folder: Path) -> list[bytes]:
        return sorted(sample.image.read_bytes() for sample in discover(folder))

    assert contents(tmp_path / "out") == contents(root)


@pytest.mark.parametrize("name", ["coco", "roboflow"])
def test_coco_outlines_of_every_form_become_masks(name: str, tmp_path: Path) -> None:
    fake = FAKES[name]
    done = convert(fake.write(tmp_path / name), tmp_path / "out")
    data = discover(tmp_path / "out")
    assert done.masks == fake.anomalous
    assert data.counts["masks"] == fake.anomalous
    for sample in data:
        assert sample.mask is None or np.array_equal(read_mask(sample.mask), square(WH))


def test_a_coco_list_given_by_itself_is_drawn_too(tmp_path: Path) -> None:
    root = FAKES["coco"].write(tmp_path / "coco")
    assert convert(root / "annotations/instances_test.json", tmp_path / "out").masks == 3


def test_coco_lists_further_down_are_drawn_too(tmp_path: Path) -> None:
    for name in ("one", "two"):
        FAKES["coco"].write(tmp_path / "all" / name)
    assert convert(tmp_path / "all", tmp_path / "out").masks == 8
    assert discover(tmp_path / "out").categories == ("one", "two")


@pytest.mark.parametrize(
    "outline",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, 10**400]],
        "outline",
        {"size": [9, 9], "counts": [81]},
        {"size": [24, 32], "counts": [1, 2]},
        {"size": [24, 32], "counts": "~~~"},
        {"size": [24, 32], "counts": "PPPP"},
        {"size": [24, 32], "counts": 5},
    ],
    ids=lambda value: str(value)[:40],
)
def test_damaged_outlines_are_noted_and_the_picture_stays(outline: object, tmp_path: Path) -> None:
    root = FAKES["roboflow"].write(tmp_path / "set")
    path = root / "test/_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = outline
    path.write_text(json.dumps(content))
    done = convert(root, tmp_path / "out")
    assert (done.pictures, done.masks) == (6, 2)
    assert len(done.notes) == 1
    assert done.notes[0].startswith("outline left out: 1 (test/1.jpg: ")


@pytest.mark.parametrize("bad", [[1, 2, 3, 4], 7, [1, 2, "x", 4, 5, 6]])
def test_one_bad_polygon_takes_no_other_with_it(bad: object, tmp_path: Path) -> None:
    root = FAKES["roboflow"].write(tmp_path / "set")
    path = root / "test/_annotations.coco.json"
    content = json.loads(path.read_text())
    masks = convert(root, tmp_path / "sound").masks
    content["annotations"][0]["segmentation"] = [[1, 2, 9, 2, 9, 9], bad]
    path.write_text(json.dumps(content))
    done = convert(root, tmp_path / "out")
    assert done.masks == masks
    assert done.notes[0].startswith("outline left out: 1 (test/1.jpg: ")


@pytest.mark.parametrize("sizes", [{}, {"width": 32.0, "height": 24.0}, {"width": None, "height": 24}])
def test_a_list_need_not_state_sizes_as_whole_numbers(sizes: dict[str, object], tmp_path: Path) -> None:
    root = FAKES["roboflow"].write(tmp_path / "set")
    path = root / "test/_annotations.coco.json"
    content = json.loads(path.read_text())
    expected = convert(root, tmp_path / "sound")
    for image in content["images"]:
        del image["width"], image["height"]
        image.update(sizes)
    path.write_text(json.dumps(content))
    assert convert(root, tmp_path / "out") == expected
    for sound in (tmp_path / "sound").rglob("*_mask.png"):
        assert (tmp_path / "out" / sound.relative_to(tmp_path / "sound")).read_bytes() == sound.read_bytes()


def test_categories_whose_names_are_alike_stay_apart(tmp_path: Path) -> None:
    for index, category in enumerate(("A B", "A_B", "a_b", "A/B")):
        for kind in ("good", "bad"):
            folder = tmp_path / "set" / category / kind
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 20), (10 * index, 0, 0)).save(folder / "0.png")
    done = convert(tmp_path / "set", tmp_path / "out")
    assert done.pictures == 8
    assert len(discover(tmp_path / "out").categories) == 4
    assert "A_B" in " ".join(done.notes)


def test_an_outline_for_a_gigantic_picture_is_not_drawn(tmp_path: Path) -> None:
    root = FAKES["roboflow"].write(tmp_path / "set")
    path = root / "test/_annotations.coco.json"
    content = json.loads(path.read_text())
    content["images"][1]["width"] = content["images"][1]["height"] = 10**9
    path.write_text(json.dumps(content))
    assert convert(root, tmp_path / "out").masks == 2


# --- tiles ----------------------------------------------------------------------------------------------------------


def test_aitex_strips_become_tiles(tmp_path: Path) -> None:
    root = FAKES["aitex"].write(tmp_path / "aitex")
    padded = root / "NODefect_images/2306894-210033u/0002_000_01.png"
    with Image.open(padded) as strip:
        pixels = np.array(strip)
    pixels[:, 480:] = 255
    Image.fromarray(pixels).save(padded)
    done = convert(root, tmp_path / "out", tile=32)
    data = discover(tmp_path / "out")
    # Two strips with a mask, one tile of 16 with the defect; two good strips, one of them with a blank tile.
    assert data.counts == {"normal": 15 * 2 + 16 + 15, "anomalous": 2, "unknown": 0, "masks": 2}
    assert {sample.defect for sample in data} == {None, "broken_end", "fuzzyball"}
    assert done.notes == (
        "tile of one colour, left out: 1 (NODefect_images/2306894-210033u/0002_000_01.png at 480,0)",
        "anomalous without a mask, no tiles of it: 1 (Defect_images/0100_025_08.png)",
    )
    for sample in data:
        with Image.open(sample.image) as tile:
            assert tile.size == (32, 32)
        if sample.mask:
            assert np.array_equal(read_mask(sample.mask), square((512, 32))[:, :32])


def test_aitex_masks_in_pieces_are_joined(tmp_path: Path) -> None:
    root = FAKES["aitex"].write(tmp_path / "aitex")
    second = np.zeros((32, 512), dtype=np.uint8)
    second[20:25, 200:210] = 255
    Image.fromarray(second).save(root / "Mask_images/0044_019_04_mask2.png")
    convert(root, tmp_path / "out")
    joined = next(s.mask for s in discover(tmp_path / "out") if s.defect == "fuzzyball" and s.mask)
    assert np.array_equal(read_mask(joined), square((512, 32)) | (second > 0))


def test_the_last_tile_ends_with_the_picture_and_small_pictures_stay_whole(tmp_path: Path) -> None:
    wide = picture(tmp_path / "set/good/wide.png", wh=(70, 32))
    picture(tmp_path / "set/good/small.png", wh=(20, 10))
    convert(tmp_path / "set", tmp_path / "out", tile=32)
    tiles = {s.image.stem.split("-", 1)[1]: s.image for s in discover(tmp_path / "out")}
    assert set(tiles) == {"wide-0-0", "wide-32-0", "wide-38-0", "small-0-0"}
    with Image.open(wide) as whole, Image.open(tiles["wide-38-0"]) as last:
        assert np.array_equal(np.array(whole)[:, 38:], np.array(last))


def test_tiles_need_masks_of_the_pictures_size(tmp_path: Path) -> None:
    root = FAKES["good_bad"].write(tmp_path / "set")
    mask(root / "masks/1.png", wh=(64, 48))
    (root / "good/1.png").write_bytes(b"no picture")
    done = convert(root, tmp_path / "out", tile=16)
    assert done.notes[0] == "mask of another size, no tiles of it: 1 (bad/1.png)"
    assert done.notes[1].startswith("picture cannot be read, left out: 1 (")


# --- where it writes ------------------------------------------------------------------------------------------------


def test_names_from_lists_stay_inside_the_new_folder(tmp_path: Path) -> None:
    root = FAKES["meta"].write(tmp_path / "set")
    text = (root / "meta.json").read_text()
    (root / "meta.json").write_text(text.replace('"carpet": [', '"../../up": [').replace('"cut"', '"../x/../.."'))
    convert(root, tmp_path / "deep/out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "set"]
    assert sorted(path.name for path in (tmp_path / "deep/out").iterdir()) == ["grid", "up"]
    assert discover(tmp_path / "deep/out").counts["masks"] == 4


def test_nothing_is_overwritten_and_no_tile_is_tiny(tmp_path: Path) -> None:
    root = FAKES["visa"].write(tmp_path / "visa")
    with pytest.raises(UsageError, match="is there already"):
        convert(root, root)
    with pytest.raises(UsageError, match="tiles of 8 pixels"):
        convert(root, tmp_path / "out", tile=8)
    shutil.rmtree(root)
    with pytest.raises(DataError, match="no data set"):
        convert(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_set_is_never_written_into_itself(tmp_path: Path) -> None:
    root = FAKES["mvtec"].write(tmp_path / "mvtec")
    before = len(discover(root))
    with pytest.raises(UsageError, match="lies inside"):
        convert(root, root / "converted")
    assert len(discover(root)) == before
    assert not (root / "converted").exists()


def test_a_set_without_labels_leaves_nothing_behind(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "list.jsonl").write_text('{"image": "a.png"}\n')
    with pytest.raises(DataError, match=r"none of the 1 pictures .* has a label"):
        convert(tmp_path / "list.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()
