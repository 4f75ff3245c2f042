"""One pass over a set for many experts gives what each gives alone, and their differences are paired."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_ov.errors import DataError, WeightsError
from anomaly_ov.inspector import Inspector
from anomaly_ov.models.expert import Expert
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov_lab.data.layouts import discover
from anomaly_ov_lab.evaluation import many_experts
from anomaly_ov_lab.evaluation.many_experts import Scores, measure, score_all
from anomaly_ov_lab.evaluation.metrics import auroc
from model_fixtures import small_model
from training_fixtures import labelled_folder


def experts(count: int = 2) -> dict[str, AnomalyModel]:
    """Models that share an encoder and differ in their expert."""
    first = small_model()
    found = {"e0": first}
    for k in range(1, count):
        torch.manual_seed(k)
        other = small_model()
        other.encoder.load_state_dict(first.encoder.state_dict())
        other.expert = Expert(first.config.expert)
        found[f"e{k}"] = other
    return found


def test_scores_are_those_of_each_model_alone(tmp_path: Path) -> None:
    models, dataset = experts(), discover(labelled_folder(tmp_path / "set", 3))
    scores = score_all(models, dataset, tmp_path / "scores.json", map_top=models["e0"].config.scoring.top)
    for name, model in models.items():
        findings = list(Inspector(model).stream([sample.image for sample in dataset]))
        alone = [[finding.score_raw, finding.score_map] for finding in findings]
        np.testing.assert_allclose(scores.values[name], np.array(alone, dtype=float), atol=2e-5)
    assert not np.allclose(scores.values["e0"], scores.values["e1"])


def test_what_was_scored_is_used_again_for_the_same_experts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, dataset = experts(), discover(labelled_folder(tmp_path / "set", 2))
    before = score_all(models, dataset, tmp_path / "scores.json", map_top=1.0)
    monkeypatch.setattr(many_experts, "_score", lambda *_: pytest.fail("scored again"))
    after = score_all(models, dataset, tmp_path / "scores.json", map_top=1.0)
    np.testing.assert_array_equal(before.values["e1"], after.values["e1"])
    relabelled = dataset.keep(replace(sample, label=1) if k == 0 else sample for k, sample in enumerate(dataset))
    retrained = models | {"e1": models["e0"]}
    other_options = {name: copy.deepcopy(model) for name, model in models.items()}
    changed = other_options["e1"].config
    other_options["e1"].config = replace(changed, expert=replace(changed.expert, look_back=False))
    for others, pictures, top in (
        ({"other": models["e0"]}, dataset, 1.0),
        (retrained, dataset, 1.0),
        (other_options, dataset, 1.0),
        (models, relabelled, 1.0),
        (models, dataset, 0.5),
    ):
        with pytest.raises(pytest.fail.Exception):
            score_all(others, pictures, tmp_path / "scores.json", map_top=top)
    next(iter(dataset)).image.write_bytes(b"changed")
    with pytest.raises(pytest.fail.Exception):
        score_all(models, dataset, tmp_path / "scores.json", map_top=1.0)


def test_one_label_is_an_error_before_and_after_reading(tmp_path: Path) -> None:
    dataset = discover(labelled_folder(tmp_path / "set", 2))
    goods = dataset.keep(sample for sample in dataset if sample.label == 0)
    with pytest.raises(DataError, match="no category of set has normal and anomalous pictures"):
        score_all(experts(), goods, tmp_path / "scores.json", map_top=1.0)
    scores = random_scores()
    normal = scores.labels == 0
    names = tuple(np.array(scores.categories)[normal])
    left = Scores(scores.labels[normal], names, {"good/0": scores.values["good/0"][normal]}, 60)
    with pytest.raises(DataError, match="one label only"):
        measure(left, {"good": ["good/0"]}, "good")


def test_an_unreadable_picture_is_counted_and_left_out(tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "set", 2)
    (folder / "test/good/0.png").write_bytes(b"no picture")
    scores = score_all(experts(), discover(folder), tmp_path / "scores.json", map_top=1.0)
    assert (len(scores.labels), scores.unreadable) == (3, 1)


def test_models_with_other_encoders_are_refused(tmp_path: Path) -> None:
    models = experts()
    torch.nn.init.normal_(next(models["e1"].encoder.parameters()))
    with pytest.raises(WeightsError, match="e1"):
        score_all(models, discover(labelled_folder(tmp_path / "set", 2)), tmp_path / "scores.json", map_top=1.0)


def random_scores(seed: int = 0, count: int = 120) -> Scores:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    good, poor = (rng.normal(size=(count, 2)) + labels[:, None] * shift for shift in (2.0, 0.3))
    categories = tuple("ab"[k % 2] for k in range(count))
    return Scores(labels, categories, {"good/0": good, "good/1": good + 1.0, "poor/0": poor, "poor/1": poor}, 0)


def test_figures_are_means_over_categories_and_seeds_with_paired_steps() -> None:
    scores = random_scores()
    found = measure(scores, {"good": ["good/0", "good/1"], "poor": ["poor/0", "poor/1"]}, "good")
    names = np.array(scores.categories)
    expected = np.mean(
        [auroc(scores.labels[names == c], scores.values["poor/0"][names == c, 0]) for c in "ab"]  # type: ignore[misc]
    )
    poor, good = found["poor"]["head"], found["good"]["head"]
    assert poor["auroc"] == pytest.approx(expected)
    assert poor["spread"] == pytest.approx(0)
    assert poor["difference"] == pytest.approx(poor["auroc"] - good["auroc"])
    low, high = poor["difference_interval"]
    assert low < poor["difference"] < high < 0
    assert good["difference_interval"] == [0, 0]
    json.dumps(found, allow_nan=False)


def test_one_seed_has_no_spread() -> None:
    assert measure(random_scores(), {"good": ["good/0"]}, "good")["good"]["map"]["spread"] is None
