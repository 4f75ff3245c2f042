"""Facts: measured words and their JSON form."""

from __future__ import annotations

import json

import numpy as np
import pytest

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.synthetic import Facts, generate
from anomaly_ov_lab.data.synthetic.facts import describe, severity
from anomaly_ov_lab.data.synthetic.palette import colour_name, main_colours


def test_describe_measures_the_mask() -> None:
    mask = np.zeros((100, 200), np.bool_)
    mask[70:90, 10:30] = True
    fact = describe("stain", mask, np.where(mask, 0.5, 0).astype(np.float32))
    assert fact.box == (10, 70, 30, 90)
    assert fact.area_fraction == pytest.approx(400 / 20000)
    assert fact.contrast == pytest.approx(0.5)
    assert (fact.place, fact.size, fact.severity) == ("lower left", "medium-sized", "severe")


def test_severity_grows_with_contrast_and_area() -> None:
    order = ["slight", "moderate", "severe"]
    assert severity(0.05, 0.001) == "slight"
    assert severity(0.8, 0.1) == "severe"
    for low, high in ((0.05, 0.2), (0.2, 0.5)):
        assert order.index(severity(low, 0.02)) <= order.index(severity(high, 0.02))
        assert order.index(severity(0.2, low / 5)) <= order.index(severity(0.2, high / 2))


def test_facts_agree_with_image_and_mask() -> None:
    words = set()
    for seed in range(25):
        sample = generate(seed, 96)
        total = sum(defect.area_fraction for defect in sample.facts.defects)
        assert total == pytest.approx(sample.mask_HW.mean(), abs=1e-4)
        for defect in sample.facts.defects:
            x0, y0, x1, y1 = defect.box
            assert sample.mask_HW[y0:y1, x0:x1].any(axis=1).any()
            assert 0 <= x0 < x1 <= 96
            assert 0 <= y0 < y1 <= 96
            words.add(defect.severity)
        union = np.zeros_like(sample.mask_HW)
        for x0, y0, x1, y1 in (defect.box for defect in sample.facts.defects):
            union[y0:y1, x0:x1] = True
        assert not (sample.mask_HW & ~union).any()
        assert sample.facts.colours == main_colours(sample.image_HW3)
    assert {"slight", "moderate"} <= words


def test_json_round_trip() -> None:
    for seed in range(5):
        facts = generate(seed, 64).facts
        assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize("broken", [{}, {"seed": 1}, {"defects": [{"kind": "x"}], "colours": []}])
def test_broken_json_is_named(broken: dict[str, object]) -> None:
    with pytest.raises(DataError, match="does not fit"):
        Facts.from_json(broken)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((0, 0, 0), "black"), ((1, 1, 1), "white"), ((0.5, 0.5, 0.5), "grey"), ((0.9, 0.1, 0.1), "red"),
     ((0.1, 0.8, 0.2), "green"), ((0.1, 0.2, 0.9), "blue"), ((0.4, 0.25, 0.1), "brown"), ((1.0, 0.0, 0.05), "red")],
)  # fmt: skip
def test_colour_words(rgb: tuple[float, float, float], name: str) -> None:
    assert colour_name(rgb) == name


def test_main_colours_need_a_fifth() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[:, 30:] = (220, 20, 20)
    picture[:3, :3] = 255
    assert set(main_colours(picture)) == {"black", "red"}
