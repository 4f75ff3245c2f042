"""Figures of answers against scikit-learn, closed forms and hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from anomaly_ov_lab.evaluation.text.figures import (
    METRICS,
    ChoiceAnswer,
    Grades,
    Verdict,
    always_yes,
    choice_figures,
    detection_figures,
    open_figures,
    over_phrasings,
)

verdicts = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.booleans(), st.floats(0, 1)), min_size=1, max_size=30
)


@settings(max_examples=40, deadline=None)
@given(verdicts)
def test_agrees_with_scikit_learn(drawn: list[tuple[str, int, bool, float]]) -> None:
    pooled = detection_figures([Verdict(*one) for one in drawn], draws=0).pooled.values
    labels, said = [one[1] for one in drawn], [int(one[2]) for one in drawn]
    assert pooled["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, said))
    if 1 in labels:
        assert pooled["precision"] == pytest.approx(sklearn.precision_score(labels, said, zero_division=0))
        assert pooled["recall"] == pytest.approx(sklearn.recall_score(labels, said))
        assert pooled["f1"] == pytest.approx(sklearn.f1_score(labels, said))
    else:
        assert pooled["precision"] is pooled["recall"] is pooled["f1"] is None
    if {0, 1} <= set(labels):
        assert pooled["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(labels, said))
        assert pooled["specificity"] == pytest.approx(sklearn.recall_score(labels, said, pos_label=0))
        assert pooled["auroc_p_yes"] == pytest.approx(sklearn.roc_auc_score(labels, [one[3] for one in drawn]))
    else:
        assert pooled["balanced_accuracy"] is pooled["auroc_p_yes"] is None


def test_means_over_classes() -> None:
    a = [Verdict("a", 1, True), Verdict("a", 0, True)]
    b = [Verdict("b", 1, True), Verdict("b", 1, False), Verdict("b", 0, False), Verdict("b", 0, False)]
    found = detection_figures([*a, *b], draws=200)
    assert found.mean.values["accuracy"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert found.mean.values["precision"] == pytest.approx((1 / 2 + 1) / 2)
    assert found.mean.values["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert found.pooled.values["accuracy"] == pytest.approx(4 / 6)
    assert found.mean.counts["classes"] == 2
    assert [group.name for group in found.categories] == ["a", "b"]


def test_an_unread_answer_is_wrong_whatever_the_truth() -> None:
    values = detection_figures([Verdict("a", 1, None), Verdict("a", 0, None), Verdict("a", 1, True)], draws=0)
    assert values.pooled.counts["unread"] == 2
    assert values.pooled.values["recall"] == 0.5
    assert values.pooled.values["specificity"] == 0
    assert values.pooled.values["precision"] == 0.5


def test_always_yes_scores_as_published() -> None:
    """VisA-D&R: 761 normal and 1000 anomalous pictures; F1 of class means .730 there, pooled here in closed form."""
    made = [Verdict("a", int(k < 1000), False) for k in range(1761)]
    values = always_yes(made)
    assert values["f1"] == pytest.approx(2 * 1000 / (2 * 1000 + 761))
    assert values["specificity"] == 0
    assert values["balanced_accuracy"] == 0.5
    assert values["auroc_p_yes"] is not None
    assert values["auroc_p_yes"] == 0.5


def test_auroc_takes_the_answers_that_have_a_probability() -> None:
    told = [Verdict("a", 1, True, 0.9), Verdict("a", 0, False, 0.1), Verdict("a", 1, True, None)]
    found = detection_figures(told, draws=50).pooled
    assert found.values["auroc_p_yes"] == 1
    assert found.counts["with_p_yes"] == 2
    assert (
        detection_figures([Verdict("a", 1, True), Verdict("a", 0, False)], draws=5).pooled.values["auroc_p_yes"] is None
    )


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 60 + [1] * 80)
    said = rng.random(140) < np.where(labels == 1, 0.8, 0.3)
    found = detection_figures([Verdict("a", int(y), bool(s)) for y, s in zip(labels, said, strict=True)], 4000).mean
    draws = []
    for _ in range(4000):
        normal = said[:60][rng.integers(0, 60, 60)]
        anomalous = said[60:][rng.integers(0, 80, 80)]
        hits, alarms = anomalous.sum(), normal.sum()
        draws.append(2 * hits / (hits + alarms + 80))
    interval = found.intervals["f1"]
    assert interval is not None
    assert interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.01)


def test_spread_over_phrasings() -> None:
    made = [detection_figures([Verdict("a", 1, yes), Verdict("a", 0, False)], draws=0) for yes in (True, False)]
    spread = over_phrasings(made)
    assert set(spread) == set(METRICS)
    assert spread["accuracy"] == {"mean": 0.75, "sd": pytest.approx(np.std([1, 0.5], ddof=1)), "low": 0.5, "high": 1.0}
    assert over_phrasings(made[:1])["accuracy"]["sd"] is None
    assert spread["auroc_p_yes"]["mean"] is None


def test_no_answer_at_all_is_no_crash() -> None:
    found = detection_figures([], draws=10)
    assert found.mean.counts["normal"] == 0
    assert set(found.mean.values.values()) == {None}


def test_free_text_leaves_out_what_has_no_grade() -> None:
    grades = [
        Grades("a", {"rouge_l": 0.2, "judge": 4}),
        Grades("a", {"rouge_l": 0.4, "judge": None}),
        Grades("b", {"rouge_l": 1.0, "judge": None}),
    ]
    found = open_figures(grades, draws=100)
    assert found["rouge_l"]["mean"] == pytest.approx((0.3 + 1) / 2)
    assert found["rouge_l"]["pooled"] == pytest.approx(1.6 / 3)
    assert (found["judge"]["mean"], found["judge"]["graded"]) == (4, 1)
    assert found["judge"]["categories"] == {"a": 4}
    none = open_figures([Grades("a", {"judge": None})], draws=100)
    assert none["judge"] == {"mean": None, "interval": None, "pooled": None, "graded": 0, "categories": {}}


def test_choices_by_type() -> None:
    detect = [ChoiceAnswer("Anomaly Detection", "Yes.", 2, True, False)] * 3
    detect += [ChoiceAnswer("Anomaly Detection", "No", 2, False, False)]
    other = [ChoiceAnswer("Defect Analysis", "x", 4, True, False), ChoiceAnswer("Defect Analysis", "y", 4, False, True)]
    found = choice_figures([*detect, *other])
    assert found["types"]["Anomaly Detection"]["accuracy"] == 0.75
    assert found["types"]["Anomaly Detection"]["balanced_accuracy"] == 0.5
    assert found["mean"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["mean_balanced"] == pytest.approx(0.5)
    assert found["chance"] == pytest.approx((0.5 + 0.25) / 2)
    assert found["unread"] == 1
    low, high = found["types"]["Defect Analysis"]["interval"]
    assert 0 < low < 0.5 < high < 1


def test_balanced_accuracy_needs_both_truths() -> None:
    found = choice_figures([ChoiceAnswer("Anomaly Detection", "Yes", 2, True, False)] * 3)
    assert found["types"]["Anomaly Detection"]["balanced_accuracy"] is None
    assert (found["mean"], found["mean_balanced"]) == (1, None)
