from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.evaluation.selection import draw_references, measured, without


def _set(root: Path, names: dict[str, tuple[str, int | None, str | None]]) -> DataSet:
    """Files with their name as content; ``names``: file -> (category, label, split)."""
    samples = []
    for name, (category, label, split) in names.items():
        path = root / name
        path.write_text(name)
        samples.append(Sample(path, label, category=category, split=split))  # type: ignore[arg-type]
    return DataSet("set", "folders", root, tuple(samples))


def _goods_and_bads(root: Path, category: str = "a", goods: int = 8, bads: int = 3) -> DataSet:
    good = {f"{category}g{i}": (category, 0, None) for i in range(goods)}
    return _set(root, good | {f"{category}b{i}": (category, 1, None) for i in range(bads)})


def _names(samples: object) -> list[str]:
    return [sample.image.name for sample in samples]  # type: ignore[attr-defined]


def test_draws_are_seeded_nested_and_normal(tmp_path: Path) -> None:
    data = _goods_and_bads(tmp_path)
    four = _names(draw_references(data, 4, seed=7)["a"])
    assert four == _names(draw_references(data, 4, seed=7)["a"])
    assert four[:1] == _names(draw_references(data, 1, seed=7)["a"])
    assert all(name.startswith("ag") for name in four)
    draws = {tuple(_names(draw_references(data, 4, seed)["a"])) for seed in range(20)}
    assert len(draws) > 15
    assert {name for draw in draws for name in draw} == {f"ag{i}" for i in range(8)}


def test_every_category_gets_its_own(tmp_path: Path) -> None:
    a, b = _goods_and_bads(tmp_path, "a"), _goods_and_bads(tmp_path, "b")
    data = DataSet("set", "folders", tmp_path, (*a.samples, *b.samples))
    drawn = draw_references(data, 2, 0)
    assert {category: {s.category for s in own} for category, own in drawn.items()} == {"a": {"a"}, "b": {"b"}}
    rest = without(data, drawn)
    assert [sum(s.category == c and s.label == 0 for s in rest) for c in "ab"] == [6, 6]


def test_the_train_split_is_drawn_from_where_it_has_goods(tmp_path: Path) -> None:
    names: dict[str, tuple[str, int | None, str | None]] = {f"t{i}": ("a", 0, "train") for i in range(3)}
    names |= {f"g{i}": ("a", 0, "test") for i in range(5)} | {"b": ("a", 1, "test")}
    data = _set(tmp_path, names)
    assert set(_names(draw_references(data, 3, 0)["a"])) == {"t0", "t1", "t2"}
    with pytest.raises(DataError, match="3 distinct normal pictures to draw 4 references"):
        draw_references(data, 4, 0)
    whole = measured(without(data, draw_references(data, 2, 0)), include_train=True)
    assert sum(s.label == 0 for s in whole) == 6


def test_copies_are_drawn_once_and_not_measured(tmp_path: Path) -> None:
    data = _goods_and_bads(tmp_path, goods=4)
    for copy in ("ag1", "ab0"):  # the same picture once more among the normal, and once among the anomalous ones
        (tmp_path / copy).write_text("ag0")
    assert len(draw_references(data, 3, 0)["a"]) == 3
    with pytest.raises(DataError, match="3 distinct"):
        draw_references(data, 4, 0)
    rest = without(data, {"a": data.samples[:1]})
    assert _names(rest) == ["ag2", "ag3", "ab1", "ab2"]
    assert rest.notes[-1] == "references and copies of them, not measured: 3"


def test_something_normal_must_be_left(tmp_path: Path) -> None:
    data = _goods_and_bads(tmp_path, goods=3)
    with pytest.raises(DataError, match="no normal picture of a is left"):
        without(data, draw_references(data, 3, 0))
    with pytest.raises(DataError, match="0 references"):
        draw_references(data, 0, 0)


def test_uncertain_pictures_are_measured_but_never_references(tmp_path: Path) -> None:
    data = _goods_and_bads(tmp_path, goods=2)
    uncertain = Sample(tmp_path / "u", None, category="a", probability=0.0)
    uncertain.image.write_text("u")
    data = data.keep([*data.samples, uncertain])
    assert uncertain in measured(data).samples
    assert set(_names(draw_references(data, 2, 0)["a"])) == {"ag0", "ag1"}
    with pytest.raises(DataError, match="no labelled picture"):
        measured(data.keep([uncertain]))
