"""Training samples: a function of (seed, index), with labels and targets that follow the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.data.samples import Sample
from anomaly_ov_lab.training.crops import flip, random_view
from anomaly_ov_lab.training.defect_samples import DefectSamples, MixConfig, cell_targets, collate, mask_of
from training_fixtures import labelled_folder


@pytest.mark.parametrize("shape", [(1, 2000, 3), (5, 5, 3), (300, 9, 3)])
def test_views_of_odd_pictures(shape: tuple[int, int, int]) -> None:
    view = random_view(np.zeros(shape, np.uint8), 16, np.random.default_rng(0), 0.35)
    assert view.shape == (16, 16, 3)


def test_the_eight_flips_differ() -> None:
    pixels = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert len({flip(pixels, which).tobytes() for which in range(8)}) == 8


def test_cell_targets_grow_with_coverage_up_to_a_quarter() -> None:
    mask = np.zeros((32, 32), np.bool_)
    mask[:8, :1] = True  # one eighth of the first cell
    mask[8:16, 8:16] = True
    targets = cell_targets(mask, (4, 4))
    assert targets[0, 0] == pytest.approx(0.5, abs=0.01)
    assert targets[1, 1] == 1
    assert targets.sum() == pytest.approx(1.5, abs=0.01)


def test_real_samples_are_balanced_and_labelled_by_their_mask(tmp_path: Path) -> None:
    data_set = discover(labelled_folder(tmp_path / "set"))
    samples = DefectSamples(MixConfig(synthetic=0.0), photos=(), sets=[data_set], size=32, grid_hw=(4, 4), seed=0)
    batch = collate([samples[k] for k in range(60)])
    assert batch.view_HW3.shape == (60, 32, 32, 3)
    assert batch.view_HW3.dtype == torch.uint8
    for view, label, target in zip(*batch, strict=True):
        has_white = bool((view >= 250).all(-1).any())
        assert has_white == bool(label)
        assert bool(target.max() > 0) == bool(label)
    assert 15 <= int(batch.label.sum()) <= 45


def test_synthetic_samples_have_masks_and_repeat(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    make = lambda: DefectSamples(  # noqa: E731
        MixConfig(on_photos=0.5), photos=[tmp_path / "photo.png"], sets=[], size=64, grid_hw=(4, 4), seed=3
    )
    first, again = make(), make()
    for k in range(8):
        sample = first[k]
        assert torch.equal(sample.view_HW3, again[k].view_HW3)
        assert bool(sample.target_hw.max() > 0) == bool(sample.label)


def test_no_picture_of_a_set_without_masks_is_cropped(tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "set")
    for mask in (folder / "ground_truth/spot").iterdir():
        mask.unlink()
    whole = {
        flip(np.asarray(Image.open(path).resize((32, 32), Image.Resampling.BICUBIC)), which).tobytes()
        for path in folder.glob("test/*/*.png")
        for which in range(8)
    }
    samples = DefectSamples(
        MixConfig(synthetic=0.0), photos=(), sets=[discover(folder)], size=32, grid_hw=(4, 4), seed=0
    )
    drawn = [samples[k] for k in range(20)]
    assert {float(s.label) for s in drawn} == {0.0, 1.0}
    assert all(s.view_HW3.numpy().tobytes() in whole for s in drawn)


def test_a_mask_is_used_at_the_pictures_size_or_not_at_all(tmp_path: Path) -> None:
    mask = np.zeros((20, 24), np.uint8)
    mask[5:10, 12:18] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask * 0).save(tmp_path / "empty.png")
    marked = Sample(tmp_path / "p.png", 1, tmp_path / "mask.png")
    resized = mask_of(marked, (40, 48))
    assert resized is not None
    assert np.array_equal(resized, np.kron(mask > 0, np.ones((2, 2), np.bool_)))
    assert mask_of(marked, (40, 40)) is None
    assert mask_of(Sample(tmp_path / "p.png", 1, tmp_path / "empty.png"), (20, 24)) is None
    assert mask_of(Sample(tmp_path / "p.png", 1), (20, 24)) is None
    nothing = mask_of(Sample(tmp_path / "p.png", 0), (20, 24))
    assert nothing is not None
    assert nothing.shape == (20, 24)
    assert not nothing.any()


def test_an_anomalous_picture_without_mask_has_an_unknown_target(tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "set")
    for mask in (folder / "ground_truth/spot").iterdir():
        mask.unlink()
    data_set = discover(folder)
    samples = DefectSamples(MixConfig(synthetic=0.0), photos=(), sets=[data_set], size=32, grid_hw=(4, 4), seed=0)
    drawn = [samples[k] for k in range(20)]
    assert all(bool(torch.isnan(s.target_hw).all()) == bool(s.label) for s in drawn)
    assert {float(s.label) for s in drawn} == {0.0, 1.0}
