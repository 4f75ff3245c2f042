from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomaly_ov.errors import DataError
from anomaly_ov.records import Finding, ImageInfo, ModelInfo, Threshold
from anomaly_ov_lab.evaluation.run_folder import Row, RunFolder

INFO = ModelInfo("m", "r", "cpu", "float32")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.21), (0.0, 1e-6), (0.5, 0.5)])
def test_maps_keep_sixteen_bits_of_their_own_range(tmp_path: Path, low: float, high: float) -> None:
    map_HW = (low + (high - low) * np.random.default_rng(0).random((9, 13))).astype(np.float32)
    run = RunFolder(tmp_path, INFO)
    stored = run.write_map("a/b.jpg", map_HW)
    found = run.read_map(stored)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, map_HW, rtol=1e-6, atol=(stored.high - stored.low) / 131070 * 1.01)
    assert run.read_map(stored, (26, 18)).shape == (18, 26)
    assert run.read_map(stored, (26, 18)).max() <= np.float32(stored.high)


def test_a_name_that_is_just_not_too_long_has_a_map(tmp_path: Path) -> None:
    run, map_HW = RunFolder(tmp_path, INFO), np.ones((2, 3), dtype=np.float32)
    for id_ in (f"a/{'x' * 251}.png", f"b/{'x' * 251}.png"):
        stored = run.write_map(id_, map_HW)
        np.testing.assert_array_equal(run.read_map(stored), map_HW)
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 2


def test_maps_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"map of x\.png is not finite"):
        RunFolder(tmp_path, INFO).write_map("x.png", np.array([[0.0, np.nan]], dtype=np.float32))


def test_rows_come_back_equal_and_foreign_lines_are_dropped(tmp_path: Path) -> None:
    with RunFolder(tmp_path, INFO) as run:
        stored = run.write_map("x.png", np.eye(3, dtype=np.float32))
        finding = Finding(
            "x", ImageInfo("x.png", 3, 3, "ab"), INFO, 0.1, 0.2, 0.3, threshold=Threshold(0.5, "somewhere")
        )
        row = Row.of("x.png", finding, None, stored)
        run.append(row)
    assert row.sha256 == "ab"
    with (tmp_path / "per_image.jsonl").open("a") as file:
        file.write('\n[]\n{"schema": "other/1"}\n{"schema": "anomaly-ov.evaluation-row/1", "id": "y"}\n{"sch')
    again = RunFolder(tmp_path, INFO)
    assert again.resume(lambda row: True) == {"x.png": row}
    assert len((tmp_path / "per_image.jsonl").read_text().splitlines()) == 1
    assert again.resume(lambda row: False) == {}
    assert (tmp_path / "per_image.jsonl").read_text() == ""
