"""interface.py: batches in parts, one output per picture, and memory that runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from anomaly_ov.errors import DeviceError, UsageError
from anomaly_ov.models.arrays import ExpertPart, FeatureArrays
from anomaly_ov.models.engines import interface
from anomaly_ov.models.engines.interface import forward, in_parts, joined, require_count, require_views, threads


class Fake:
    """An engine whose feature of a view is its first pixel; it can hold ``room`` pictures."""

    def __init__(self, room: int = 99) -> None:
        self.room, self.seen = room, list[list[int]]()

    def encode(self, pixels_NHW3: Any) -> FeatureArrays:
        final_NPD = pixels_NHW3[:, :1, 0, :1].astype(np.float32)
        return FeatureArrays(final_NPD, (final_NPD,), (1, 1))

    def expert(self, features: FeatureArrays, views_per_image: Sequence[int]) -> list[ExpertPart]:
        self.seen.append(list(views_per_image))
        if len(views_per_image) > self.room:
            raise DeviceError("out of memory")
        ends = np.cumsum(views_per_image)
        parts = [features.views(end - count, end).final_NPD for end, count in zip(ends, views_per_image, strict=True)]
        return [ExpertPart(part, float(part.sum()), part, part[0, 0]) for part in parts]


def views(*values: Sequence[int]) -> list[np.ndarray]:
    return [np.array(of_one, np.uint8)[:, None, None, None].repeat(3, -1) for of_one in values]


def test_each_picture_gets_its_own() -> None:
    outputs = forward(Fake(), views([1], [2, 3, 4], [5, 6]), features=True)  # type: ignore[arg-type]
    assert [output.score_raw for output in outputs] == [1, 9, 11]
    assert [len(output.features) for output in outputs if output.features is not None] == [1, 3, 2]
    assert outputs[1].features is not None
    assert outputs[1].features.levels_NPD[0][:, 0, 0].tolist() == [2, 3, 4]
    assert all(output.ms > 0 for output in outputs)


def test_nothing_in_nothing_out_and_no_features_unasked() -> None:
    assert forward(Fake(), []) == []  # type: ignore[arg-type]
    assert forward(Fake(), views([1]))[0].features is None  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_is_halved() -> None:
    engine = Fake(room=1)
    outputs = forward(engine, views([1], [2, 3], [4]))  # type: ignore[arg-type]
    assert [output.score_raw for output in outputs] == [1, 5, 4]
    assert engine.seen == [[1, 2, 1], [1], [2, 1], [2], [1]]
    with pytest.raises(DeviceError):
        forward(Fake(room=0), views([1], [2]))  # type: ignore[arg-type]


@pytest.mark.parametrize(("most", "fits", "left"), [(4, 9, 4), (8, 2, 2), (100, 3, 2), (3, 1, 1)])
def test_parts_shrink_until_they_fit(most: int, fits: int, left: int) -> None:
    seen = []

    def once(part: np.ndarray) -> list[int]:
        if len(part) > fits:
            raise MemoryError
        seen.append(len(part))
        return part[:, 0, 0, 0].tolist()  # type: ignore[no-any-return]

    (pixels,) = views(range(5))
    parts, now = in_parts(once, pixels, most)
    assert [value for part in parts for value in part] == [0, 1, 2, 3, 4]
    assert now == left
    assert max(seen) <= fits


def test_one_view_too_many() -> None:
    def never(part: np.ndarray) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        in_parts(never, np.zeros((5, 1, 1, 3), np.uint8), 4)


def test_joined_features_are_those_of_the_batch() -> None:
    whole = FeatureArrays(np.arange(12, dtype=np.float32).reshape(4, 1, 3), (np.zeros((4, 1, 2), np.float32),), (1, 1))
    again = joined([whole.views(0, 1), whole.views(1, 4)])
    np.testing.assert_array_equal(again.final_NPD, whole.final_NPD)
    assert again.levels_NPD[0].shape == (4, 1, 2)
    assert joined([whole]) is whole


@pytest.mark.parametrize("counts", [[], [0, 3], [1, 1], [4]])
def test_numbers_of_views_that_do_not_fit(counts: list[int]) -> None:
    with pytest.raises(UsageError, match="does not describe 3 views"):
        require_views(counts, 3)


def test_count_is_checked() -> None:
    assert require_count(None, 8) == 8
    assert require_count(3, 8) == 3
    with pytest.raises(UsageError, match="views_per_forward = 0"):
        require_count(0, 8)


def test_threads_come_from_the_machine_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALY_OV_THREADS", raising=False)
    monkeypatch.setattr(interface, "cores", lambda: 7)
    assert threads() == 7
    monkeypatch.setenv("ANOMALY_OV_THREADS", " 3 ")
    assert threads() == 3
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("ANOMALY_OV_THREADS", wrong)
        with pytest.raises(UsageError, match="ANOMALY_OV_THREADS"):
            threads()
