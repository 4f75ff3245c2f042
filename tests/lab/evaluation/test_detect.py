from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.errors import DataError, EndpointError, UsageError
from anomaly_ov.records import Detector, ErrorInfo, Finding, ImageInfo, ModelInfo, Threshold
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.evaluation.compare import compare_runs
from anomaly_ov_lab.evaluation.detect import DetectionResult, evaluate_detection
from anomaly_ov_lab.evaluation.metrics import auroc, average_precision
from anomaly_ov_lab.evaluation.pixel_metrics import pixel_metrics

INFO = ModelInfo("fake", "rev1", "cpu", "float32")


class Brightest:
    """A detector that calls bright pixels anomalous; counts what it was asked."""

    def __init__(self, info: ModelInfo = INFO, die_after: int | None = None) -> None:
        self._info = info
        self._die_after = die_after
        self.asked: list[str] = []

    @property
    def info(self) -> ModelInfo:
        return self._info

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        for source in sources:
            if self._die_after is not None and len(self.asked) == self._die_after:
                raise KeyboardInterrupt
            self.asked.append(Path(source.item).name)
            yield self._look(source.item)

    def _look(self, path: str) -> Finding:
        try:
            grey_HW = np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255
        except OSError:
            error = ErrorInfo("UnreadableImage", "no picture")
            return Finding(path, ImageInfo(path), self._info, error=error)
        score = float(grey_HW.max())
        image = ImageInfo(path, grey_HW.shape[1], grey_HW.shape[0], None)
        scores = {"score_raw": float(grey_HW.mean()), "score": score, "score_map": score}
        return Finding(path, image, self._info, **scores, threshold=Threshold(0.6, "by hand"), significance_map=grey_HW)


def _picture(path: Path, peak: int, seed: int, mask: Path | None = None) -> None:
    """Dark noise, with a 4 x 4 patch of brightness ``peak`` (and its mask) if that is more than the noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 100, (20, 24), dtype=np.uint8)
    truth = np.zeros(pixels.shape, dtype=np.uint8)
    y, x = rng.integers(0, 14, 2)
    pixels[y : y + 4, x : x + 4] = peak
    truth[y : y + 4, x : x + 4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    if mask:
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(truth).save(mask)


def _two_categories(root: Path) -> Path:
    for offset, category in enumerate(("a", "b")):
        for i in range(6):
            seed = 100 * offset + i
            _picture(root / category / f"normal/{i}.png", 90 + 20 * i, seed)
            _picture(root / category / f"abnormal/{i}.png", 120 + 20 * i, 50 + seed, root / category / f"masks/{i}.png")
    _picture(root / "c/normal/0.png", 50, 1)
    return root


def _run(root: Path, out: Path | None = None, detector: Brightest | None = None, **options: Any) -> DetectionResult:
    return evaluate_detection(detector or Brightest(), discover(root), out, draws=200, **options)


def test_fake_satisfies_the_protocol() -> None:
    assert isinstance(Brightest(), Detector)


def test_figures_per_category_mean_and_pooled(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    result = _run(root, tmp_path / "out")
    data = discover(root)
    by_hand = {}
    for category in ("a", "b"):
        samples = [s for s in data if s.category == category]
        scores = [float(np.asarray(Image.open(s.image)).max()) / 255 for s in samples]
        labels = [s.label for s in samples]
        by_hand[category] = (auroc(labels, scores), average_precision(labels, scores))
    assert [f.name for f in result.categories] == ["a", "b", "c"]
    for figures in result.categories[:2]:
        assert figures.scores["score"].auroc == pytest.approx(by_hand[figures.name][0])
        assert figures.scores["score"].average_precision == pytest.approx(by_hand[figures.name][1])
        assert figures.at_threshold is not None
        assert figures.at_threshold.threshold == 0.6
    assert result.categories[2].scores["score"].auroc is None
    assert "one label only, undefined: 1 (c)" in result.notes
    assert result.main.categories == 2
    assert result.main.scores["score"].auroc == pytest.approx(np.mean([by_hand["a"][0], by_hand["b"][0]]))
    interval = result.main.scores["score"].interval
    assert interval is not None
    assert interval.low < result.main.scores["score"].auroc < interval.high
    assert (result.pooled.normal, result.pooled.anomalous) == (13, 12)
    assert result.counts == {
        "n": 25, "normal": 13, "anomalous": 12, "unreadable": 0, "uncertain": 0, "distinct": 25,
    }  # fmt: skip
    assert result.threshold_source == "by hand"


def test_pixel_figures_match_the_maps_at_the_masks_own_size(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    result = _run(root)
    samples = [s for s in discover(root) if s.category == "a"]
    maps = [np.asarray(Image.open(s.image), dtype=np.float32) / 255 for s in samples]
    masks = [np.asarray(Image.open(s.mask)) > 0 if s.mask else np.zeros((20, 24), dtype=bool) for s in samples]
    expected = pixel_metrics(masks, maps)
    found = result.categories[0].pixels
    assert found is not None
    assert (found.images, found.regions, found.pixels) == (12, expected.regions, 12 * 480)
    assert found.auroc == pytest.approx(expected.auroc, abs=1e-4)
    assert found.average_precision == pytest.approx(expected.average_precision, abs=1e-4)
    assert found.pro == pytest.approx(expected.pro, abs=1e-3)
    assert result.categories[2].pixels is None
    assert result.pooled.pixels is not None
    assert result.pooled.pixels.images == 24


def test_masks_larger_than_the_map_are_not_downsized(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    for mask in root.rglob("masks/*.png"):
        Image.open(mask).resize((48, 40), Image.Resampling.NEAREST).save(mask)
    found = _run(root).categories[0].pixels
    assert found is not None
    assert found.pixels == 6 * 480 + 6 * 1920


def test_many_pixels_take_the_histogram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _two_categories(tmp_path / "set")
    exact = _run(root).pooled.pixels
    monkeypatch.setattr("anomaly_ov_lab.evaluation.detect.MAX_EXACT", 1000)
    near = _run(root).pooled.pixels
    assert exact is not None
    assert near is not None
    assert exact.error == 0 < near.error
    assert near.pro == pytest.approx(exact.pro, abs=near.error)


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        _run(root, out, Brightest(die_after=10))
    assert len((out / "per_image.jsonl").read_text().splitlines()) == 10
    assert not (out / "metrics.json").exists()
    with (out / "per_image.jsonl").open("a") as file:
        file.write('{"schema": "anomaly-ov.evaluation-row/1", "id": "a/norm')  # cut short by the kill
    again = Brightest()
    resumed = _run(root, out, again)
    assert len(again.asked) == 15
    undisturbed = _run(root, tmp_path / "other")
    assert _figures_only(resumed) == _figures_only(undisturbed)
    assert resumed.speed["scored"] == 15
    third = Brightest()
    assert _run(root, out, third).speed["images_per_second"] is None
    assert third.asked == []


def _figures_only(result: DetectionResult) -> dict[str, Any]:
    return {k: v for k, v in result.to_json().items() if k not in ("speed", "provenance")}


def test_rows_of_other_bytes_or_weights_or_without_their_map_are_made_anew(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    out = tmp_path / "out"
    _run(root, out)
    _picture(root / "a/normal/3.png", 250, 999)
    (out / "maps/b/abnormal/2.png.png").unlink()
    again = Brightest()
    _run(root, out, again)
    assert sorted(again.asked) == ["2.png", "3.png"]
    other = Brightest(replace(INFO, revision="rev2"))
    _run(root, out, other)
    assert len(other.asked) == 25
    nameless = replace(INFO, revision="")
    _run(root, out, Brightest(nameless))
    twice = Brightest(nameless)
    _run(root, out, twice)
    assert len(twice.asked) == 25
    assert len((out / "per_image.jsonl").read_text().splitlines()) == 25


def test_a_map_that_was_cut_short_says_how_to_go_on(tmp_path: Path) -> None:
    root, out = _two_categories(tmp_path / "set"), tmp_path / "out"
    whole = _run(root, out)
    cut = out / "maps/b/abnormal/2.png.png"
    cut.write_bytes(cut.read_bytes()[:60])
    with pytest.raises(DataError, match=r"2\.png\.png does not decode") as raised:
        _run(root, out)
    assert "remove that file" in raised.value.hint
    cut.unlink()
    assert _figures_only(_run(root, out)) == _figures_only(whole)


def test_rows_of_other_settings_are_made_anew(tmp_path: Path) -> None:
    """The same weights fused otherwise, or compared with another threshold, give other figures."""

    class Told(Brightest):
        scoring, threshold = "mean of the map", Threshold(0.6, "by hand")

    root, out = _two_categories(tmp_path / "set"), tmp_path / "out"
    _run(root, out)
    first, again, fused, moved = Told(), Told(), Told(), Told()
    fused.scoring, moved.threshold = "top of the map", Threshold(0.7, "by hand")
    for detector in (first, again, fused, moved):
        _run(root, out, detector)
    assert [len(detector.asked) for detector in (first, again, fused, moved)] == [25, 0, 25, 25]


def test_a_folder_of_another_model_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    root, out = _two_categories(tmp_path / "set"), tmp_path / "out"
    _run(root, out)
    before = (out / "per_image.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds scores of fake, this is other") as raised:
        _run(root, out, Brightest(replace(INFO, name="other")))
    assert "another --out" in raised.value.hint
    assert (out / "per_image.jsonl").read_bytes() == before


def test_a_run_can_be_compared_with_another(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    result = _run(root, tmp_path / "a")
    _run(root, tmp_path / "b", Brightest(replace(INFO, name="other")))
    (found,) = compare_runs(tmp_path / "a", tmp_path / "b", draws=100)
    assert found.pictures == 25
    assert found.left_out.same_pictures
    assert found.pooled.metrics["auroc"].a == result.pooled.scores["score"].auroc


def test_a_server_that_answers_nothing_is_no_unreadable_picture(tmp_path: Path) -> None:
    class Down(Brightest):
        silent_on = ".png"

        def _look(self, path: str) -> Finding:
            error = ErrorInfo("EndpointError", "cannot reach it") if path.endswith(self.silent_on) else None
            return replace(super()._look(path), error=error)

    half = Down()
    half.silent_on = "3.png"
    root = _two_categories(tmp_path / "set")
    with pytest.raises(EndpointError, match="none of the 25 pictures was answered: EndpointError: cannot reach it"):
        _run(root, detector=Down())
    result = _run(root, tmp_path / "out", half)
    assert any(note.startswith("not answered, left out: 4 (a/abnormal/3.png (EndpointError") for note in result.notes)
    assert result.speed["scored"] == 21
    assert _run(root, tmp_path / "out", half).speed["images_per_second"] is None


def test_metrics_file_is_plain_json_with_its_provenance(tmp_path: Path) -> None:
    result = _run(_two_categories(tmp_path / "set"), tmp_path / "out")
    text = (tmp_path / "out/metrics.json").read_text()
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert values == json.loads(json.dumps(result.to_json()))
    assert values["schema"] == "anomaly-ov.detection/1"
    assert values["main"]["scores"]["score"]["interval"] == list(result.main.scores["score"].interval or ())
    assert 0 <= values["pooled"]["at_threshold"]["balanced_accuracy"] <= 1
    assert values["provenance"]
    assert values["model"]["revision"] == "rev1"


def test_unreadable_pictures_are_counted_and_left_out(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    (root / "a/normal/3.png").write_bytes(b"broken")
    result = _run(root)
    assert result.counts["unreadable"] == 1
    assert result.counts["n"] == 24
    assert any(note.startswith("could not be read, left out: 1 (a/normal/3.png") for note in result.notes)
    for picture in [*root.rglob("normal/*.png"), *root.rglob("abnormal/*.png")]:
        picture.write_bytes(b"broken")
    with pytest.raises(DataError, match="none of the 25 pictures could be read"):
        _run(root)


def test_a_picture_that_failed_is_tried_again(tmp_path: Path) -> None:
    root = _two_categories(tmp_path / "set")
    (root / "a/normal/3.png").write_bytes(b"broken")
    _run(root, tmp_path / "out")
    again = Brightest()
    assert _run(root, tmp_path / "out", again).counts["unreadable"] == 1
    assert again.asked == ["3.png"]


def test_categories_are_drawn_independently(tmp_path: Path) -> None:
    """Two categories with the very same scores: their mean is surer than either, by about the root of two."""
    for category in ("a", "b"):
        for i in range(20):
            _picture(tmp_path / f"set/{category}/good/{i}.png", 100 + 5 * i, i)
            _picture(tmp_path / f"set/{category}/bad/{i}.png", 130 + 5 * i, i)
    result = _run(tmp_path / "set")
    one, mean = (figures.scores["score"].interval for figures in (result.categories[0], result.main))
    assert one is not None
    assert mean is not None
    assert 0.55 < (mean.high - mean.low) / (one.high - one.low) < 0.85


def test_distinct_files_count_once_and_contradictions_not_at_all(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(4):
        _picture(root / f"no/{i}.png", 100 + 10 * i, i)
        _picture(root / f"yes/{i}.png", 120 + 10 * i, 50 + i)
    (root / "yes/copy.png").write_bytes((root / "yes/0.png").read_bytes())
    (root / "yes/wrong.png").write_bytes((root / "no/1.png").read_bytes())
    result = _run(root)
    assert result.counts["n"] == 10
    assert result.counts["distinct"] == 8
    assert result.distinct is not None
    assert (result.distinct.normal, result.distinct.anomalous) == (3, 4)
    assert any("identical files with both labels" in note for note in result.notes)


def test_uncertain_labels_enter_only_their_own_figure(tmp_path: Path) -> None:
    root = tmp_path / "elpv"
    lines = []
    for i, probability in enumerate((0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0)):
        _picture(root / f"images/{i}.png", 100 + 20 * i, i)
        lines.append(f"images/{i}.png {probability} mono\n")
    (root / "labels.csv").write_text("".join(lines))
    result = _run(root)
    assert (result.main.normal, result.main.anomalous) == (2, 2)
    assert result.counts["uncertain"] == 2
    assert result.uncertain is not None
    assert (result.uncertain.normal, result.uncertain.anomalous) == (2, 4)


def test_train_split_counts_only_if_asked(tmp_path: Path) -> None:
    root = tmp_path / "tire"
    for i in range(3):
        _picture(root / f"test/good/{i}.png", 100, i)
        _picture(root / f"test/cut/{i}.png", 200, 10 + i, root / f"ground_truth/cut/{i}_mask.png")
        _picture(root / f"train/good/{i}.png", 100, 20 + i)
    without = _run(root)
    assert without.main.normal == 3
    assert "pictures of the train split, not measured: 3" in without.notes
    included = _run(root, include_train=True)
    assert included.main.normal == 6
    assert "pictures of the train split, counted in: 3" in included.notes


def test_missing_masks_and_scores_do_not_stop_the_rest(tmp_path: Path) -> None:
    class NoMap(Brightest):
        def _look(self, path: str) -> Finding:
            return replace(super()._look(path), significance_map=None, score_map=None, threshold=None)

    root = _two_categories(tmp_path / "set")
    result = _run(root, detector=NoMap())
    assert result.main.scores["score_map"].auroc is None
    assert result.main.scores["score"].auroc is not None
    assert result.pooled.at_threshold is None
    assert result.pooled.pixels is None
    assert "the detector gave no map, left out of pixel metrics: 24" in result.notes
    (root / "a/masks/0.png").unlink()
    found = _run(root).categories[0].pixels
    assert found is not None
    assert found.images == 11


def test_a_detector_that_answers_too_little_or_nonsense_is_named(tmp_path: Path) -> None:
    class Short(Brightest):
        def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
            yield from list(super().stream(sources, batch_size))[:-1]

    class Double(Brightest):
        def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
            for finding in super().stream(sources, batch_size):
                yield from (finding, finding)

    class Broken(Brightest):
        def _look(self, path: str) -> Finding:
            return replace(super()._look(path), score=float("nan"))

    root = _two_categories(tmp_path / "set")
    with pytest.raises(DataError, match="asked about 25 pictures and answered only 24"):
        _run(root, detector=Short())
    with pytest.raises(DataError, match="answered more than that"):
        _run(root, detector=Double())
    with pytest.raises(DataError, match="not finite"):
        _run(root, detector=Broken())


def test_nothing_labelled_is_an_error(tmp_path: Path) -> None:
    _picture(tmp_path / "1.png", 1, 1)
    (tmp_path / "list.jsonl").write_text('{"image": "1.png"}\n')
    with pytest.raises(DataError, match="no labelled picture"):
        evaluate_detection(Brightest(), discover(tmp_path / "list.jsonl"))


def test_each_picture_that_had_still_to_be_scored_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):
        _run(
            _two_categories(tmp_path / "set"), tmp_path / "out", progress=lambda done, total: told.append((done, total))
        )
    assert told == [(k, 25) for k in range(1, 26)]
