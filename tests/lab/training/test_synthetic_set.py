"""The synthetic set on disk: reproducible, and whole whenever its making was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov.images.read import read
from anomaly_ov_lab.data.samples import read_mask
from anomaly_ov_lab.training import synthetic_set as module
from anomaly_ov_lab.training.synthetic_set import synthetic_set


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_stopped_while_writing_it_goes_on_to_the_same_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = synthetic_set(tmp_path / "whole", 2, 3, ())
    assert [(s.label, s.mask is not None) for s in whole] == [(0, False), (1, True)]
    assert whole.samples[1].mask is not None
    assert read_mask(whole.samples[1].mask).shape == read(whole.samples[1].image).pixels_HW3.shape[:2]
    writing = module.write_atomic

    def stop_at_the_second_picture(path: Path, data: bytes) -> None:
        if path.name == "000001.webp":
            raise KeyboardInterrupt
        writing(path, data)

    monkeypatch.setattr(module, "write_atomic", stop_at_the_second_picture)
    with pytest.raises(KeyboardInterrupt):
        synthetic_set(tmp_path / "parts", 2, 3, ())
    assert set(contents(tmp_path / "parts")) == {"000000.webp", "000001_mask.png"}
    monkeypatch.undo()
    synthetic_set(tmp_path / "parts", 2, 3, ())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
