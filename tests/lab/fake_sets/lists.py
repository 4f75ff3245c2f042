"""Sets told by a list."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from fake_sets.pictures import WH, mask, picture, square


def visa(root: Path) -> Path:
    """Masks number their defects; the training split comes first."""
    rows = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        base = f"{category}/Data"
        for number in range(3):
            name = f"{base}/Images/Normal/{number:04}.JPG"
            picture(root / name)
            rows.append(f"{category},{'train' if number < 2 else 'test'},normal,{name},")
        for number in range(2):
            name, truth = f"{base}/Images/Anomaly/{number:03}.JPG", f"{base}/Masks/Anomaly/{number:03}.png"
            picture(root / name, defect=True)
            mask(root / truth, value=number + 1)
            rows.append(f"{category},test,anomaly,{name},{truth}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def elpv(root: Path) -> Path:
    lines = []
    for number, (probability, kind) in enumerate(
        ((0.0, "mono"), (1.0, "poly"), (0.3333333333333333, "mono"), (0.6666666666666666, "poly")), start=1
    ):
        picture(root / f"images/cell{number:04}.png")
        lines.append(f"images/cell{number:04}.png  {probability}   {kind}\n")
    (root / "labels.csv").write_text("".join(lines))
    return root


def headct(root: Path) -> Path:
    """The header has a blank before its second name, the pictures lie two folders down."""
    for number in range(4):
        picture(root / f"head_ct/head_ct/{number:03}.png")
    (root / "labels.csv").write_text("id, hemorrhage\n" + "".join(f"{n},{int(n < 2)}\n" for n in range(4)))
    return root


def realiad(root: Path) -> Path:
    """Two resolutions, and a second protocol beside the plain one."""
    for category in ("audiojack", "pcb"):
        entries: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
        for split, kind, number in (
            ("train", "OK", 1),
            ("train", "OK", 2),
            ("test", "OK", 3),
            ("test", "BX", 4),
            ("test", "ZW", 5),
        ):
            sample = f"S{number:04}"
            place = f"OK/{sample}" if kind == "OK" else f"NG/{kind}/{sample}"
            stem = f"{place}/{category}_{number:04}_{kind}_C1_2023"
            entry = {"category": category, "anomaly_class": kind, "image_path": f"{stem}.jpg", "mask_path": None}
            for side in (256, 1024):
                picture(root / f"realiad_{side}" / category / f"{stem}.jpg", defect=kind != "OK")
                if kind != "OK":
                    mask(root / f"realiad_{side}" / category / f"{stem}.png")
            if kind != "OK":
                entry["mask_path"] = f"{stem}.png"
            entries[split].append(entry)
        content = {"meta": {"pre_transform": {}, "normal_class": "OK", "prefix": f"{category}/"}, **entries}
        for protocol in ("realiad_jsons", "realiad_jsons_sv"):
            path = root / "realiad_jsons" / protocol / f"{category}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=4))
    return root


def meta(root: Path) -> Path:
    """As AnomalyCLIP's scripts write it into a folder of the MVTec style."""
    content: dict[str, dict[str, list[dict[str, Any]]]] = {"train": {}, "test": {}}
    for category in ("carpet", "grid"):
        content["train"][category], content["test"][category] = [], []
        for split, kind, number in (
            ("train", "good", 0),
            ("test", "good", 0),
            ("test", "good", 1),
            ("test", "cut", 0),
            ("test", "cut", 1),
        ):
            image = f"{category}/{split}/{kind}/{number:03}.png"
            truth = "" if kind == "good" else f"{category}/ground_truth/{kind}/{number:03}_mask.png"
            picture(root / image, defect=kind != "good")
            if truth:
                mask(root / truth)
            anomaly = int(kind != "good")
            entry = {"img_path": image, "mask_path": truth, "cls_name": category, "specie_name": kind}
            content[split][category].append({**entry, "anomaly": anomaly})
    (root / "meta.json").write_text(json.dumps(content, indent=4))
    return root


SQUARE = [[3, 2, 8, 2, 8, 6, 3, 6]]
"""The defect's outline as a polygon whose border belongs to it."""


def coco(root: Path) -> Path:
    """Outlines as a polygon, as plain and as compressed run lengths; an annotation called normal marks nothing."""
    runs = [len(list(run)) for _, run in groupby(square(WH).ravel(order="F").tolist())]  # column-major, zeros first
    plain: dict[str, Any] = {"size": [WH[1], WH[0]], "counts": runs}
    compressed = {"size": plain["size"], "counts": compress(plain["counts"])}
    wanted: dict[str, list[tuple[str, Any]]] = {
        "train": [("a", SQUARE), ("n0", None)],
        "test": [("b", plain), ("c", compressed), ("d", SQUARE), ("n1", "normal"), ("n2", None)],
    }
    (root / "annotations").mkdir(parents=True)
    for split, items in wanted.items():
        images, annotations = [], []
        for number, (stem, outline) in enumerate(items, start=1):
            marked = outline is not None and outline != "normal"
            picture(root / "images" / f"{stem}.png", defect=marked)
            images.append({"id": number, "file_name": f"{stem}.png", "width": WH[0], "height": WH[1]})
            if outline is not None:
                kind = 1 if outline == "normal" else 2
                values = SQUARE if outline == "normal" else outline
                annotation = {"id": number, "image_id": number, "category_id": kind, "segmentation": values}
                annotations.append({**annotation, "bbox": [3, 2, 6, 5], "iscrowd": 0})
        content = {
            "info": {},
            "categories": [{"id": 1, "name": "normal"}, {"id": 2, "name": "crack"}],
            "images": images,
            "annotations": annotations,
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def roboflow(root: Path) -> Path:
    """The export with a list in each of train, valid and test, next to its pictures."""
    for split in ("train", "valid", "test"):
        images = [{"id": n, "file_name": f"{n}.jpg", "width": WH[0], "height": WH[1]} for n in range(2)]
        for image in images:
            picture(root / split / image["file_name"], defect=image["id"] == 1)
        annotations = [{"id": 0, "image_id": 1, "category_id": 0, "segmentation": SQUARE, "bbox": [3, 2, 6, 5]}]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "dent"}]}
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def jsonl(root: Path) -> Path:
    for stem in "abcd":
        picture(root / f"{stem}.png", defect=stem == "b")
    mask(root / "b_mask.png")
    entries = (
        {"image": "a.png", "label": "normal", "category": "nut", "split": "train"},
        {"image": "b.png", "label": 1, "mask": "b_mask.png", "category": "nut", "defect": "crack"},
        {"image": "c.png", "label": True},
        {"image": "d.png", "label": None, "probability": 0.5},
    )
    (root / "list.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return root / "list.jsonl"


def compress(counts: list[int]) -> str:
    """COCO's compressed text of plain run lengths, written from the format's description."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            text += chr((group | 32 if more else group) + 48)
    return text
