"""CLIP methods as detectors: order, batches, maps, records; measured by the house's own evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ov.errors import DeviceError, UsageError, WeightsError
from anomaly_ov.images.sources import Source, expand
from anomaly_ov.records import Detector
from anomaly_ov_lab.baselines import detector as module
from anomaly_ov_lab.baselines.clip import ClipConfig, ClipJudge
from anomaly_ov_lab.baselines.clip_towers import ClipTowers
from anomaly_ov_lab.baselines.detector import ClipDetector, ClipScores
from anomaly_ov_lab.baselines.load import is_baseline, load_baseline, told
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.evaluation.detect import evaluate_detection

METHODS = ("clip", "clip-ensemble", "winclip")


@pytest.mark.parametrize("method", METHODS)
def test_findings(method: str, clip_folder: Path, pictures: Path) -> None:
    (pictures / "p2.png").write_bytes(b"broken")
    detector = load_baseline(f"{method}:{clip_folder}", "cpu")
    assert isinstance(detector, Detector)
    found = list(detector.stream(expand([pictures]), batch_size=4))
    assert [Path(one.id).name for one in found] == [f"p{index}.png" for index in range(6)]
    assert found[2].error is not None
    assert found[2].score is None
    for one in [*found[:2], *found[3:]]:
        assert one.score is not None
        assert 0 <= one.score <= 1
        assert one.anomalous == (one.score >= 0.5)
        assert one.significance_map is not None
        assert one.significance_map.shape == (one.image.height, one.image.width)
        assert one.significance_map.dtype == np.float32
        assert 0 <= one.significance_map.min() <= one.significance_map.max() == one.score_map <= 1
        assert one.map is not None
        assert one.map.grid == (4, 4)
        assert one.model == detector.info
    assert detector.info.name == f"{method} on small-clip"
    assert (detector.info.device, detector.info.dtype) == ("cpu", "float32")


@pytest.mark.parametrize("method", METHODS)
def test_scores_do_not_depend_on_neighbours(method: str, clip_folder: Path, pictures: Path) -> None:
    detector = load_baseline(f"{method}:{clip_folder}", "cpu")
    alone, together = (list(detector.stream(expand([pictures]), size)) for size in (1, 6))
    for one, other in zip(alone, together, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        np.testing.assert_allclose(one.significance_map, other.significance_map, atol=1e-4)


def test_half_precision(clip_folder: Path, pictures: Path) -> None:
    full, half = (
        [one.score for one in load_baseline(f"winclip:{clip_folder}", "cpu", dtype).stream(expand([pictures]))]
        for dtype in ("float32", "bfloat16")
    )
    assert half == pytest.approx(full, abs=0.1)


def test_names_of_objects(clip_folder: Path, pictures: Path) -> None:
    sources = expand([pictures])
    plain = load_baseline(f"winclip:{clip_folder}", "cpu")
    named = told(plain, {sources[0].id: "metal_nut"})
    assert named.info.revision.startswith(plain.info.revision)
    assert named.info != plain.info
    before, after = ([one.score for one in detector.stream(sources)] for detector in (plain, named))
    assert before[1:] == pytest.approx(after[1:], abs=1e-6)
    assert before[0] != pytest.approx(after[0], abs=1e-6)


class Marked:
    """A judge that finds the brightest patch of the square."""

    name, revision, fit = "marked", "1", "squash"

    def __init__(self, towers: ClipTowers, side: int, smoothing: float) -> None:
        self.towers, self.side, self.smoothing = towers, side, smoothing

    def judge(self, pixels_B3SS: torch.Tensor, objects: object) -> ClipScores:
        maps = torch.nn.functional.adaptive_avg_pool2d(pixels_B3SS.mean(dim=1, keepdim=True), 8)[:, 0]
        return ClipScores(maps.amax(dim=(1, 2)).sigmoid(), (maps == maps.amax(dim=(1, 2), keepdim=True)).float())


@pytest.mark.parametrize("smoothing", [0.0, 4.0])
def test_a_map_lies_where_its_patch_lies(towers: ClipTowers, tmp_path: Path, smoothing: float) -> None:
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[40:46, 125:150] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    (found,) = ClipDetector(Marked(towers, 64, smoothing)).stream([Source(str(tmp_path / "one.png"), "one")])
    assert found.significance_map is not None
    row, column = np.unravel_index(found.significance_map.argmax(), (60, 200))
    assert 37 <= row <= 46
    assert 124 <= column <= 151
    total = found.significance_map.sum()
    assert total == pytest.approx(60 * 200 / 64, rel=0.05)  # smoothing spreads, it does not add
    assert (found.significance_map.max() < 0.7) == bool(smoothing)


def test_out_of_memory_names_the_remedy(towers: ClipTowers, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = ClipJudge(towers, ClipConfig())

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(judge, "judge", refuse)
    with pytest.raises(DeviceError, match="out of memory on cpu with 6 pictures at once") as caught:
        list(ClipDetector(judge).stream(expand([pictures])))
    assert "--batch-size" in caught.value.hint
    with pytest.raises(UsageError, match="batch_size"):
        list(ClipDetector(judge).stream(expand([pictures]), 0))


def test_overlapped_stages_keep_the_order(clip_folder: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = load_baseline(f"clip:{clip_folder}", "cpu")
    expected = [one.score for one in detector.stream(expand([pictures]), 2)]
    monkeypatch.setattr(module, "in_turns", module.overlapped)
    assert [one.score for one in detector.stream(expand([pictures]), 2)] == pytest.approx(expected, abs=1e-6)


def test_measured_and_resumed(clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of two kinds with masks, through ``evaluate_detection``; the second call scores nothing."""
    rng, root = np.random.default_rng(0), tmp_path / "set"
    for kind in ("bolt", "cable"):
        for name, count in (("good", 4), ("scratch", 3)):
            for index in range(count):
                pixels = rng.integers(0, 120, (24, 40, 3), np.uint8)
                path = root / kind / "test" / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if name != "good":
                    pixels[4:12, 8:20] = 255
                    mask = np.zeros((24, 40), np.uint8)
                    mask[4:12, 8:20] = 255
                    other = root / kind / "ground_truth" / name / f"{index}_mask.png"
                    other.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(other)
                Image.fromarray(pixels).save(path)
    (root / "bolt" / "train" / "good").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 9, (24, 40, 3), np.uint8)).save(root / "bolt" / "train" / "good" / "0.png")
    dataset = discover(root)
    objects = {dataset.id_of(sample): sample.category for sample in dataset}
    detector = told(load_baseline(f"winclip:{clip_folder}", "cpu"), objects)
    result = evaluate_detection(detector, dataset, tmp_path / "run", draws=20)
    assert result.counts["n"] == 14
    assert result.pooled.pixels is not None
    assert result.model.name == "winclip on small-clip"
    again = evaluate_detection(detector, dataset, tmp_path / "run", draws=20)
    assert again.speed["scored"] == 0
    assert again.main == result.main


def test_specifications(clip_folder: Path, tmp_path: Path) -> None:
    assert is_baseline("winclip:x")
    assert is_baseline("endpoint:m@http://localhost/v1")
    assert not any(map(is_baseline, ("tiny", "models/clip", "C:\\models\\x", "winclip")))
    for wrong in ("winclip", "winclip:", "dino:x", "clip: "):
        with pytest.raises(UsageError, match="is no baseline"):
            load_baseline(wrong)
    with pytest.raises(WeightsError, match="no CLIP folder"):
        load_baseline(f"clip:{tmp_path}")
    with pytest.raises(WeightsError, match="no folder of learned prompts"):
        load_baseline(f"anomalyclip:{clip_folder}")
    with pytest.raises(UsageError, match="unknown dtype"):
        load_baseline(f"clip:{clip_folder}", "cpu", "int8")
