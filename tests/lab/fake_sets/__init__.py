"""A small faithful copy of every layout of data sets, made of noise: names, folders, lists and mask values as released.

``FAKES[name].write(root)`` writes one and returns the path to give to ``discover``; the other fields say what must be
read from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fake_sets import folders, lists


@dataclass(frozen=True)
class FakeSet:
    """A writer, and what ``discover`` must make of what it writes. ``train``: pictures of the training split."""

    write: Callable[[Path], Path]
    layout: str
    categories: tuple[str, ...]
    normal: int
    anomalous: int
    masks: int = 0
    train: int = 0
    unknown: int = 0
    notes: tuple[str, ...] = ()


FAKES: dict[str, FakeSet] = {
    "mvtec": FakeSet(folders.mvtec, "mvtec", ("bottle", "cable"), 8, 8, masks=8, train=4),
    "mvtec3d": FakeSet(folders.mvtec3d, "mvtec3d", ("bagel",), 6, 2, masks=2, train=4),
    "mpdd": FakeSet(folders.mpdd, "mvtec", ("bracket_black", "tubes"), 8, 8, masks=8, train=4),
    "btad": FakeSet(folders.btad, "mvtec", ("01", "02", "03"), 12, 6, masks=6, train=6),
    "brainmri": FakeSet(folders.brainmri, "folders", ("brainmri",), 2, 3),
    "br35h": FakeSet(
        folders.br35h,
        "folders",
        ("br35h",),
        2,
        2,
        notes=("folder of pictures without labels, left out: 1 (pred)",),
    ),
    "good_bad": FakeSet(folders.good_bad, "folders", ("good_bad",), 2, 2, masks=2),
    "mtd": FakeSet(folders.mtd, "mtd", ("mtd",), 2, 4, masks=4),
    "kolektor": FakeSet(folders.kolektor, "kolektor", ("kolektor",), 4, 2, masks=2),
    "kolektor2": FakeSet(folders.kolektor2, "kolektor", ("kolektor2",), 2, 2, masks=2, train=2),
    "aitex": FakeSet(
        folders.aitex,
        "aitex",
        ("aitex",),
        2,
        3,
        masks=1,
        notes=(
            "mask in several files, joined only by 'anomaly-ov data convert': 1 (Defect_images/0044_019_04.png)",
            "anomalous picture without a mask: 1 (Defect_images/0100_025_08.png)",
        ),
    ),
    "visa": FakeSet(lists.visa, "visa", ("candle", "pcb1"), 6, 4, masks=4, train=4),
    "elpv": FakeSet(lists.elpv, "elpv", ("elpv",), 1, 1, unknown=2),
    "headct": FakeSet(lists.headct, "headct", ("headct",), 2, 2),
    "realiad": FakeSet(
        lists.realiad,
        "realiad",
        ("audiojack", "pcb"),
        6,
        4,
        masks=4,
        train=4,
        notes=(
            "other splits or resolutions, left alone: 3 "
            "(realiad_jsons/realiad_jsons_sv, realiad_256/audiojack, realiad_256/pcb)",
        ),
    ),
    "meta": FakeSet(lists.meta, "meta", ("carpet", "grid"), 6, 4, masks=4, train=2),
    "coco": FakeSet(
        lists.coco,
        "coco",
        ("coco",),
        3,
        4,
        train=2,
        notes=(
            "outlines, drawn as masks only by 'anomaly-ov data convert': 4 "
            "(images/b.png, images/c.png, images/d.png, ...)",
        ),
    ),
    "roboflow": FakeSet(
        lists.roboflow,
        "coco",
        ("roboflow",),
        3,
        3,
        train=4,
        notes=("outlines, drawn as masks only by 'anomaly-ov data convert': 3 (test/1.jpg, train/1.jpg, valid/1.jpg)",),
    ),
    "jsonl": FakeSet(lists.jsonl, "jsonl", ("nut", "list"), 1, 2, masks=1, train=1, unknown=1),
}
