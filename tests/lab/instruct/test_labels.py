"""What labels, folder names and masks tell; sets without masks or kinds are not asked for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.samples import Sample
from anomaly_ov_lab.instruct import Known, known_of
from anomaly_ov_lab.instruct.labels import seen_by


def mask_at(path: Path, *boxes: tuple[int, int, int, int]) -> Path:
    pixels = np.zeros((90, 120), np.uint8)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_place_and_size_are_those_of_the_largest_part(tmp_path: Path) -> None:
    mask = mask_at(tmp_path / "m.png", (2, 2, 6, 6), (100, 70, 112, 80))
    known = known_of(Sample(Path("a.png"), 1, mask, "ball_screw", "pitting"))
    assert known == Known("ball screw", True, "pitting", "lower right", "medium-sized",
                          touched=("upper left", "lower right"))  # fmt: skip


def test_touched_are_all_places_the_mask_reaches(tmp_path: Path) -> None:
    mask = mask_at(tmp_path / "m.png", (30, 40, 90, 50))
    known = known_of(Sample(Path("a.png"), 1, mask, "PA_FLR01_TL"))
    assert (known.thing, known.kind, known.place) == ("paper", "contamination", "centre")
    assert known.touched == ("left", "centre", "right")


@pytest.mark.parametrize(("category", "thing"), [("apple", "apple"), ("banana", "banana"), ("orange", "orange")])
def test_fruit_is_rotten_nobody_knows_where(category: str, thing: str) -> None:
    bad, good = (known_of(Sample(Path("a.jpg"), label, None, category)) for label in (1, 0))
    assert bad == Known(thing, True, "rot", places_known=False)
    assert good == Known(thing, False, places_known=False)


def test_a_set_of_unknown_kinds_is_not_asked_for_kinds(tmp_path: Path) -> None:
    mask = mask_at(tmp_path / "m.png", (0, 0, 30, 20))
    bad = known_of(Sample(Path("a.png"), 1, mask, "pcb_binary", "defect"))
    good = known_of(Sample(Path("b.png"), 0, None, "pcb_binary"))
    assert (bad.kind, bad.kinds_known, bad.places_known, bad.place) == (None, False, True, "upper left")
    assert (good.kinds_known, good.places_known, good.anomalous) == (False, True, False)


def test_any_other_set_is_understood_as_far_as_its_names_go() -> None:
    known = known_of(Sample(Path("a.png"), 1, None, "Capsule", "scratch_neck"))
    assert (known.thing, known.kind, known.kinds_known, known.places_known) == ("capsule", "scratch", True, False)
    known = known_of(Sample(Path("a.png"), 1, None, "zipper", "split_teeth"))
    assert (known.thing, known.kind, known.kinds_known) == ("object", None, False)
    assert seen_by(known).thing is None
    assert known_of(Sample(Path("a.png"), 1, None, "bottle", "broken_large")).kind is None
    assert known_of(Sample(Path("a.png"), 1, None, "pineapple")).thing == "object"


def test_kinds_are_named_by_whole_words() -> None:
    assert known_of(Sample(Path("a.png"), 1, None, "x", "print_error_2")).kind == "print_error"
    assert known_of(Sample(Path("a.png"), 1, None, "x", "edge_scratched")).kind is None


def test_an_empty_mask_tells_no_place(tmp_path: Path) -> None:
    known = known_of(Sample(Path("a.png"), 1, mask_at(tmp_path / "m.png"), "ball_screw", "pitting"))
    assert (known.place, known.size, known.places_known) == (None, None, False)


def test_an_unknown_label_and_a_broken_mask_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label"):
        known_of(Sample(Path("a.png"), None, None, "apple"))
    (tmp_path / "m.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="does not decode"):
        known_of(Sample(Path("a.png"), 1, tmp_path / "m.png", "ball_screw"))
