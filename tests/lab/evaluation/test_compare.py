from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anomaly_ov.errors import DataError
from anomaly_ov_lab.evaluation.compare import Comparison, compare_runs
from anomaly_ov_lab.evaluation.metrics import auroc, paired_bootstrap
from run_fixtures import Pictures, write_run

DRAWS = 200


def _pictures(noise: float, categories: str = "xy", n: int = 40, seed: int = 0) -> Pictures:
    """Scores that carry the label under ``noise``; what is hard is the same for every noise."""
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(seed + 1)
    found: Pictures = {}
    for category in categories:
        for index in range(n):
            label = index % 2
            logit = 1.5 * label + rng.normal() - 0.7 + noise * own.normal()
            found[f"{category}/{index}.png"] = (category, label, float(1 / (1 + np.exp(-logit))))
    return found


def _compare(tmp_path: Path, a: Pictures, b: Pictures) -> Comparison:
    (found,) = compare_runs(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b, "other"), draws=DRAWS)
    return found


def test_each_class_is_compared_as_the_paired_bootstrap_says(tmp_path: Path) -> None:
    a, b = _pictures(0), _pictures(1.5)
    found = _compare(tmp_path, a, b)
    assert found.pictures == 80
    assert found.left_out.same_pictures
    assert [group.name for group in found.categories] == ["x", "y"]
    for index, group in enumerate(found.categories):
        labels, of_a, of_b = (
            [values[part] for id_, values in run.items() if id_.startswith(group.name)]
            for run, part in ((a, 1), (a, 2), (b, 2))
        )
        for metric in ("auroc", "average_precision", "f1_max"):
            expected = paired_bootstrap(labels, of_a, of_b, metric, DRAWS, seed=index)
            got = group.metrics[metric]
            assert expected is not None
            assert (got.difference, got.p_value) == pytest.approx((expected.difference, expected.p_value))
            assert got.interval == pytest.approx(tuple(expected.interval))
        assert group.metrics["auroc"].a == auroc(labels, of_a)


def test_mean_over_classes_is_surer_than_one_class(tmp_path: Path) -> None:
    found = _compare(tmp_path, _pictures(0), _pictures(1.5))
    assert found.mean is not None
    assert found.main is found.mean
    parts = [group.metrics["auroc"] for group in found.categories]
    mean = found.mean.metrics["auroc"]
    assert mean.difference == pytest.approx(np.mean([part.difference for part in parts]))
    widths = [part.interval[1] - part.interval[0] for part in (*parts, mean) if part.interval]
    assert widths[2] < min(widths[:2])
    assert mean.p_value is not None
    assert mean.p_value < 0.05
    assert mean.interval is not None
    assert mean.interval[0] > 0


def test_the_same_scores_are_no_difference(tmp_path: Path) -> None:
    found = _compare(tmp_path, _pictures(0), _pictures(0))
    same = found.main.metrics["auroc"]
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)


def test_rates_are_at_each_runs_own_threshold(tmp_path: Path) -> None:
    pictures = _pictures(0, "x")
    a, b = write_run(tmp_path / "a", pictures, threshold=0.5), write_run(tmp_path / "b", pictures, threshold=0.0)
    (found,) = compare_runs(a, b, draws=DRAWS)
    specificity, balanced = found.pooled.metrics["specificity"], found.pooled.metrics["balanced_accuracy"]
    assert (specificity.b, balanced.b) == (0, 0.5)
    assert specificity.interval is None
    assert balanced.a is not None
    assert balanced.difference == pytest.approx(balanced.a - 0.5)
    assert balanced.interval is not None
    assert balanced.interval[0] <= balanced.a - 0.5 <= balanced.interval[1]
    (raw,) = compare_runs(a, b, "score_raw", draws=DRAWS)
    assert raw.pooled.metrics["specificity"].a is None  # the threshold is one for the score alone
    assert found.notes == ("both runs name the same model and context",)
    assert found.mean is None


def test_pictures_that_differ_are_left_out_and_named(tmp_path: Path) -> None:
    a, b = _pictures(0, "x", 12), _pictures(1, "x", 12)
    del b["x/0.png"], a["x/1.png"]
    b["x/2.png"] = ("x", 1, 0.5)
    b["x/3.png"] = ("x", 1, None)
    a["x/4.png"] = b["x/4.png"] = ("x", None, 0.5)
    pixels = {"main": {"pixels": {"auroc": 0.9, "max_fpr": 0.3}}}
    run_a = write_run(tmp_path / "a", a, **pixels)
    run_b = write_run(tmp_path / "b", b, "other", bytes_of={"x/5.png": "edited"}, **pixels)
    (found,) = compare_runs(run_a, run_b, draws=DRAWS)
    assert found.pictures == 6
    assert found.left_out.lines() == [
        "only in A: 1 (x/0.png)",
        "only in B: 1 (x/1.png)",
        "other bytes under the same name: 1 (x/5.png)",
        "another label or category: 1 (x/2.png)",
        "not scored by both: 1 (x/3.png)",
        "without a label: 1 (x/4.png)",
    ]
    assert found.pixels is None
    assert "pixel metrics are not compared, as the runs hold different pictures" in found.notes


def test_pixel_figures_of_the_same_pictures_are_subtracted(tmp_path: Path) -> None:
    def run(name: str, auroc_: float, max_fpr: float = 0.3) -> Path:
        pixels = {"auroc": auroc_, "average_precision": None, "f1_max": 0.5, "pro": 0.25, "max_fpr": max_fpr}
        return write_run(tmp_path / name, _pictures(0, "x", 8), name, main={"pixels": pixels})

    (found,) = compare_runs(run("a", 0.75), run("b", 0.5), draws=DRAWS)
    assert found.pixels is not None
    assert (found.pixels["auroc"].difference, found.pixels["auroc"].interval) == (0.25, None)
    assert found.pixels["average_precision"].difference is None
    (other,) = compare_runs(tmp_path / "a", run("c", 0.5, max_fpr=0.1), draws=DRAWS)
    assert other.pixels is None


def test_a_class_with_one_label_is_undefined_and_not_in_the_mean(tmp_path: Path) -> None:
    a, b = _pictures(0), _pictures(1.5)
    for pictures in (a, b):
        pictures |= {f"z/{i}.png": ("z", 1, 0.5) for i in range(3)}
    found = _compare(tmp_path, a, b)
    assert found.mean is not None
    z = found.categories[2]
    assert (z.normal, z.anomalous, z.metrics["auroc"].a, z.metrics["auroc"].p_value) == (0, 3, None, None)
    own = [group.metrics["auroc"].difference for group in found.categories[:2]]
    assert found.mean.metrics["auroc"].difference == pytest.approx(np.mean(own))
    assert "one label only, undefined and not in the mean: 1 (z)" in found.notes


def test_sets_of_a_folder_are_compared_by_name(tmp_path: Path) -> None:
    pictures = _pictures(0, "x", 8)
    write_run(tmp_path / "a" / "one", pictures, dataset="one")
    write_run(tmp_path / "a" / "two", pictures, dataset="two")
    write_run(tmp_path / "b" / "two", pictures, "other", dataset="two")
    (found,) = compare_runs(tmp_path / "a", tmp_path / "b", draws=DRAWS)
    assert found.dataset == "two"
    assert found.notes == ("one: only A holds this set",)


def test_different_sets_are_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", _pictures(0, "x", 4), dataset="one")
    b = write_run(tmp_path / "b", _pictures(0, "x", 4), dataset="two")
    with pytest.raises(DataError, match=r"different data sets: .*a holds one, .*b holds two"):
        compare_runs(a, b)
    c = write_run(tmp_path / "c", _pictures(0, "y", 4), dataset="one")
    with pytest.raises(DataError, match=r"no picture in common: only in A: 4 \(x/0\.png, x/1\.png, x/2\.png, \.\.\.\)"):
        compare_runs(a, c)


def test_a_score_that_is_not_finite_is_named(tmp_path: Path) -> None:
    a, b = _pictures(0, "x", 4), _pictures(0, "x", 4)
    b["x/2.png"] = ("x", 0, float("nan"))
    with pytest.raises(DataError, match=r"b: score of x/2\.png is not finite"):
        _compare(tmp_path, a, b)


def test_json_names_models_thresholds_contexts_and_holds_no_nan(tmp_path: Path) -> None:
    context = {"transductive": True, "draw": None, "categories": {}}
    a = write_run(tmp_path / "a", _pictures(0, "x", 8), "first", context=context)
    b = write_run(tmp_path / "b", _pictures(1, "x", 8), "second", threshold=None)
    (found,) = compare_runs(a, b, draws=DRAWS, seed=3)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["a"]["model"] == "first 1 (float32)"
    assert values["a"]["context"] == "folder (transductive)"
    assert (values["a"]["threshold"], values["b"]["threshold"]) == (0.5, None)
    assert (values["draws"], values["seed"]) == (DRAWS, 3)
    assert values["notes"] == ["A's scores depend on the other pictures of the set (folder context)"]
    assert values["left_out"]["only_a"] == []
    assert values["pooled"]["metrics"]["balanced_accuracy"]["difference"] is None
