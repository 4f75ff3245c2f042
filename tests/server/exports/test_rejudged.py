"""A threshold chosen on export judges the stored score and map, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import UsageError
from anomaly_ov.scoring.regions import regions
from anomaly_ov_server.exports.rejudged import rejudged, stored_map
from serving_export_fixtures import WH, as_json, failed, pending, record_of, scored


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.6, 0.7])
def test_regions_are_those_of_the_stored_map(tmp_path: Path, threshold: float) -> None:
    row = scored(tmp_path, 0, "a.png", 179 / 255)
    assert row.map_path is not None
    values = np.asarray(Image.open(row.map_path))
    expected = as_json(regions(values.astype(np.float32) / np.float32(255), threshold, WH))
    assert record_of(rejudged(row, threshold))["regions"] == expected != []


@pytest.mark.parametrize("score", [0.3, 0.4995, 0.5, 0.5005, 0.77])
@pytest.mark.parametrize("step", [-0.1, -1e-6, 0.0, 1e-6, 0.001, 0.1])
def test_label_and_regions_agree(tmp_path: Path, score: float, step: float) -> None:
    """Also where the map's 8 bits round the other way."""
    row = scored(tmp_path, 0, "a.png", score)
    record = record_of(rejudged(row, score + step))
    assert record["anomalous"] is (step <= 0)
    assert bool(record["regions"]) is record["anomalous"]
    assert (record["level"] == "slightly") is not record["anomalous"]
    assert record["threshold"] == {"value": score + step, "source": "chosen on export"}
    assert record["score"] == score
    assert record_of(row)["threshold"]["value"] == 0.5


def test_without_threshold_or_score_nothing_changes(tmp_path: Path) -> None:
    row = scored(tmp_path, 0, "a.png", 0.7)
    assert rejudged(row, None) == row
    assert rejudged(failed(1, "b"), 0.1) == failed(1, "b")
    assert rejudged(pending(2, "c"), 0.1) == pending(2, "c")


def test_a_lost_map_is_said_by_name_not_by_path(tmp_path: Path) -> None:
    row = replace(scored(tmp_path, 0, "a.png", 0.7), map_path=tmp_path / "gone.png")
    with pytest.raises(UsageError, match=r"the map of a\.png is gone") as caught:
        rejudged(row, 0.5)
    assert str(tmp_path) not in str(caught.value)
    assert rejudged(row, None) == row


def test_only_png_maps_are_read(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    Image.new("L", (4, 4)).save(path, "BMP")
    assert stored_map(path) is None
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert stored_map(path) is None
