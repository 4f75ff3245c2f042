"""No giveaway edges: what lies just outside a defect must look like any untouched surface.

What is a fair test? The border of an honest, visible defect shows the defect's own contrast, so a classifier that saw
the border itself would only learn that the defect is visible. It is therefore fed a ring where the defect's strength is
zero by construction: 2 to 6 pixels outside everything the edit touched. Whatever it finds there was left by the tool:
resampling, a smoothed margin, other noise, other compression. Its features are high-frequency residuals, gradients and
blockiness of the ring, alone and against the ring of 9 to 15 pixels. Negatives are the same rings on the clean twins,
so that places and shapes are distributed alike; seeds for learning and for scoring are disjoint.

What remains above 0.5 is JPEG: a block that holds part of a defect rings up to its own border, as it does round any
true defect in any JPEG. Without compression nothing at all is left, which the second test holds to the byte.

The control pastes a crop from another picture, margin included, after the camera, as a careless generator would: the
same classifier on the same ring finds that with ease, so the test is able to fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from anomaly_ov_lab.data.synthetic.generator import Trace, normal, trace

SIZE = 128
COUNT = 260
MARGIN = 16

Rings = tuple[tuple[slice, slice], np.ndarray, np.ndarray]


def rings(touched_HW: np.ndarray) -> Rings:
    """A window round the defect, and in it the rings of 2 to 6 and of 9 to 15 pixels outside of what was touched."""
    rows, columns = np.flatnonzero(touched_HW.any(axis=1)), np.flatnonzero(touched_HW.any(axis=0))
    window = tuple(slice(max(0, i[0] - MARGIN) // 8 * 8, i[-1] + MARGIN) for i in (rows, columns))
    far = ndimage.distance_transform_edt(~touched_HW[window])
    return window, (far > 2) & (far <= 6), (far > 9) & (far <= 15)


def statistics(luma_hw: np.ndarray, ring_hw: np.ndarray) -> np.ndarray:
    residual = (luma_hw - ndimage.uniform_filter(luma_hw, 3))[ring_hw]
    fine = ndimage.convolve(luma_hw, np.asarray([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 4.0)[ring_hw]
    across = np.abs(np.diff(luma_hw, axis=1, append=luma_hw[:, -1:]))
    down = np.abs(np.diff(luma_hw, axis=0, append=luma_hw[-1:]))
    rows, columns = np.indices(luma_hw.shape)
    on_grid = np.concatenate([across[ring_hw & (columns % 8 == 7)], down[ring_hw & (rows % 8 == 7)], [0.0]])
    off_grid = np.concatenate([across[ring_hw & (columns % 8 == 3)], down[ring_hw & (rows % 8 == 3)], [0.0]])
    levels = [np.abs(residual).mean(), residual.std(), np.abs(fine).mean(), fine.std(), across[ring_hw].mean(),
              down[ring_hw].mean(), on_grid.mean(), off_grid.mean(), (np.abs(fine) < 0.5).mean()]  # fmt: skip
    return np.log(np.asarray(levels) + 0.05)


def features(image_HW3: np.ndarray, where: Rings) -> np.ndarray:
    window, near, far = where
    luma = image_HW3[window].astype(np.float64) @ [0.299, 0.587, 0.114]
    inner, outer = statistics(luma, near), statistics(luma, far)
    return np.concatenate([inner, inner - outer])


@dataclass(frozen=True)
class Case:
    trace: Trace
    rings: Rings


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Half of them on a photo (a normal picture of the generator, with a camera and compression of its own)."""
    made = []
    for seed in range(COUNT):
        one = trace(seed, SIZE, normal(90_000 + seed, 160).image_HW3 if seed % 2 else None)
        where = rings(one.touched_HW)
        if min(np.count_nonzero(where[1]), np.count_nonzero(where[2])) > 100:
            made.append(Case(one, where))
    return made


def held_out_auroc(positives: list[np.ndarray], negatives: list[np.ndarray]) -> float:
    """The better of a linear and a forest classifier, learnt on the first half of the seeds, scored on the rest."""
    half = len(positives) // 2
    train, test = (np.concatenate([positives[part], negatives[part]]) for part in (slice(half), slice(half, None)))
    rest = len(positives) - half
    models = (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
        RandomForestClassifier(100, min_samples_leaf=5, random_state=0),
    )
    labels, truth = np.repeat([1, 0], half), np.repeat([1, 0], rest)
    return max(float(roc_auc_score(truth, m.fit(train, labels).predict_proba(test)[:, 1])) for m in models)


@pytest.fixture(scope="module")
def negatives(cases: list[Case]) -> list[np.ndarray]:
    return [features(case.trace.twin_HW3, case.rings) for case in cases]


@pytest.mark.slow
def test_ring_outside_defects_gives_nothing_away(cases: list[Case], negatives: list[np.ndarray]) -> None:
    positives = [features(case.trace.sample.image_HW3, case.rings) for case in cases]
    assert len(positives) > 0.8 * COUNT
    auroc = held_out_auroc(positives, negatives)
    assert auroc <= 0.6


def test_untouched_pixels_are_the_twins_to_the_byte(cases: list[Case]) -> None:
    """Beyond the reach of the camera's blur and of the compression's blocks, nothing differs at all."""
    compared = 0
    for case in cases:
        one = case.trace
        beyond = ~one.reach_HW
        compared += int(np.count_nonzero(beyond))
        assert np.array_equal(one.sample.image_HW3[beyond], one.twin_HW3[beyond])
    assert compared > 0.3 * COUNT * SIZE * SIZE


def test_control_hard_paste_is_found(cases: list[Case], negatives: list[np.ndarray]) -> None:
    positives = []
    for i, case in enumerate(cases):
        noise = np.random.default_rng(i).normal(0, 6, (SIZE, SIZE, 3))
        patch = np.clip(cases[i - 7].trace.twin_HW3 + noise, 0, 255).astype(np.uint8)
        margin = ndimage.distance_transform_edt(~case.trace.touched_HW) <= 7
        positives.append(features(np.where(margin[..., None], patch, case.trace.twin_HW3), case.rings))
    assert held_out_auroc(positives, negatives) > 0.8
