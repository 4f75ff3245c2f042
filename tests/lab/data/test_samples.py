from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import DataError
from anomaly_ov_lab.data.samples import DataSet, Sample, read_mask


def _set(*samples: Sample) -> DataSet:
    return DataSet("set", "folders", Path("/root"), samples)


def test_counts_and_categories() -> None:
    data = _set(
        Sample(Path("/root/b/1.png"), 1, mask=Path("/root/m/1.png"), category="b"),
        Sample(Path("/root/a/2.png"), 0, category="a"),
        Sample(Path("/root/a/3.png"), None, category="a", probability=0.5),
    )
    assert data.counts == {"normal": 1, "anomalous": 1, "unknown": 1, "masks": 1}
    assert data.categories == ("b", "a")
    assert len(data) == 3
    assert data.id_of(data.samples[0]) == "b/1.png"
    assert [s.label for s in data.labelled()] == [1, 0]


def test_samples_without_a_split_belong_to_both() -> None:
    data = _set(
        Sample(Path("/root/1"), 0, split="train"),
        Sample(Path("/root/2"), 1, split="test"),
        Sample(Path("/root/3"), 1),
    )
    assert [s.image.name for s in data.of_split("train")] == ["1", "3"]
    assert [s.image.name for s in data.of_split("test")] == ["2", "3"]


def test_uncertain_as_anomalous_follows_the_probability_where_there_is_one() -> None:
    data = _set(
        Sample(Path("/root/1"), None, probability=1 / 3),
        Sample(Path("/root/2"), 0, probability=0.0),
        Sample(Path("/root/3"), None),
    )
    assert [s.label for s in data.uncertain_as_anomalous()] == [1, 0, None]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_read_mask_takes_any_nonzero_value_of_any_mode(tmp_path: Path, mode: str) -> None:
    truth = np.zeros((5, 7), dtype=bool)
    truth[1:3, 2:4] = True
    if mode == "I;16":
        picture = Image.fromarray(truth.astype(np.uint16))
    elif mode == "P":
        picture = Image.fromarray(truth.astype(np.uint8), mode="L").convert("P")
        picture.putdata(truth.astype(np.uint8).ravel().tolist())
    elif mode == "1":
        picture = Image.fromarray(truth)
    else:
        picture = Image.fromarray(truth.astype(np.uint8)).convert(mode)  # value 1 of 255: a numbered defect kind
    assert picture.mode == mode
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), truth)


def test_read_mask_ignores_the_smear_around_defects_in_jpeg(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), dtype=bool)
    truth[16:48, 16:48] = True
    Image.fromarray((truth * 255).astype(np.uint8)).save(tmp_path / "mask.jpg", quality=40)
    assert (np.asarray(Image.open(tmp_path / "mask.jpg")) != 0).sum() > truth.sum()
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.jpg"), truth)


def test_read_mask_refuses_damaged_and_oversized_files(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png does not decode"):
        read_mask(tmp_path / "bad.png")
    with pytest.raises(DataError, match="does not decode"):
        read_mask(tmp_path / "absent.png")
    Image.new("L", (20, 20)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="20 x 20 pixels, more than 399"):
        read_mask(tmp_path / "large.png", max_pixels=399)
