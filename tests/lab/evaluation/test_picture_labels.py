from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.samples import DataSet, Sample
from anomaly_ov_lab.evaluation.run_folder import LABELS_NAME, PictureLabel, read_labels, write_labels


def test_labels_come_back_in_order(tmp_path: Path) -> None:
    root = tmp_path / "set"
    samples = (
        Sample(root / "b" / "ü\u2028 1.png", 1, category="b"),
        Sample(root / "a.png", 0),
        Sample(root / "c.png", None, probability=0.3),
    )
    write_labels(tmp_path, DataSet("set", "folders", root, samples))
    assert list(read_labels(tmp_path).values()) == [
        PictureLabel("b/ü\u2028 1.png", 1, "b"),
        PictureLabel("a.png", 0, ""),
        PictureLabel("c.png", None, ""),
    ]


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"has no {LABELS_NAME} \(measure again into the same folder"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    "line",
    ['{"id": "a"', '{"id": "a", "label": 2, "category": ""}', '{"id": 1, "label": 0, "category": ""}', "[]", "{}"],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / LABELS_NAME).write_text(f'{{"id": "ok", "label": 0, "category": ""}}\n{line}\n')
    with pytest.raises(DataError, match="line 2"):
        read_labels(tmp_path)
