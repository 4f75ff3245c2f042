"""The calibration benchmark: tiles stay whole, and what is measured is what the splits say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training_fixtures import labelled_folder


def test_frames_near_each_other_show_one_tile(benchmark: Any) -> None:
    names = [f"test/good/exp{e}_num_{n}.jpg" for e, n in ((1, 5000), (2, 5020), (1, 9000), (6, 5600), (2, 9601))]
    assert benchmark.part_of(names) == [0, 0, 1, 0, 2]
    assert benchmark.part_of(["a.png", "b.png"]) == [0, 1]


def test_a_part_is_never_on_both_sides(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores name their part, so a part on both sides would be seen."""
    parts = np.repeat(np.arange(40), 5)
    scores = parts / 100
    seen: list[set[float]] = []
    real = benchmark.conformal

    def watched(known: Any, share: float) -> Any:
        seen.append({float(score) for score in known})
        return real(known, share)

    monkeypatch.setattr(benchmark, "conformal", watched)
    found = benchmark.split(scores, parts, 0.05, 5, 0)
    assert all(len(one) == 20 for one in seen)
    assert (found.calibrating, found.unseen) == (100, 100)
    assert len({tuple(sorted(one)) for one in seen}) == 5


def test_one_picture_of_each_part(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = np.tile(np.arange(60), 3)
    scores = np.arange(180) / 200
    seen: list[list[float]] = []
    real = benchmark.conformal
    monkeypatch.setattr(benchmark, "conformal", lambda s, share: seen.append(s.tolist()) or real(s, share))
    found = benchmark.split(scores, parts, 0.05, 3, 0, one_each=True)
    assert (found.calibrating, found.unseen) == (30, 90)
    for one in seen:
        assert len({round(200 * score) % 60 for score in one}) == len(one) == 30
    few = benchmark.split(scores, parts, 0.05, 3, 0, calibrating=20)
    assert (few.calibrating, few.unseen) == (60, 120)


def test_exchangeable_scores_meet_the_target(benchmark: Any) -> None:
    scores = np.random.default_rng(0).random(400)
    found = benchmark.split(scores, np.arange(400), 0.05, 200, 1)
    assert found.mean <= 0.05 + 3 * found.error
    assert found.mean > 0.03
    _, (value, remark) = benchmark.line("x", found, 0.05)
    assert value == found.mean
    assert ": met;" in remark
    worse = benchmark.Splits(found.rate_S + 0.5, found.upper_S, 200, 200)
    assert ": missed;" in benchmark.line("x", worse, 0.05)[1][1]


def test_good_pictures_are_scored_once_and_copies_count_once(
    benchmark: Any, tmp_path: Path, small_folder: Path
) -> None:
    folder = labelled_folder(tmp_path / "one")
    (folder / "test/good/copy.png").write_bytes((folder / "test/good/0.png").read_bytes())
    first = benchmark.good_scores(folder, tmp_path / "rows", str(small_folder), 4)
    assert (first[0], len(first[1])) == ("one", 6)
    again = benchmark.good_scores(folder, tmp_path / "rows", str(small_folder), 4)
    assert again[1] == first[1]
    np.testing.assert_array_equal(again[2], first[2])
