"""Conformal thresholds: the guarantee, ties, too few pictures; the file, and what it refuses to go with."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ov.errors import AnomalyOVError, ConfigError, DataError, UsageError
from anomaly_ov.inspector import Inspector
from anomaly_ov.records import ModelInfo, Threshold
from anomaly_ov.scoring.conformal import (
    ScoredBy,
    StoredThreshold,
    ThresholdMismatch,
    TooFewPictures,
    binomial_interval,
    conformal,
    fewest,
    load_threshold,
    require_context,
    require_model,
    save_threshold,
    scored_with,
    threshold_of,
    wanted_threshold,
)
from model_fixtures import small_model

INFO = ModelInfo("small", "rev1", "cpu", "float32")


@dataclass(frozen=True)
class Bank:
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    bank: Bank
    kind: Any = "references"
    source: str = "good/"
    config: Any = 1


def stored(**changes: Any) -> StoredThreshold:
    values: dict[str, Any] = {
        "value": 0.75,
        "max_false_alarms": 0.05,
        "n": 99,
        "k": 95,
        "expected_false_alarms": 0.05,
        "upper_false_alarms": 0.09,
        "model": ScoredBy("small", "rev1", "float32", "abc"),
        "context": None,
        "recall": None,
        "left_out": {"copies": 2},
        "scores_sha256": "0" * 64,
        "provenance": {"commit": "unknown"},
    }
    return StoredThreshold(**values | changes)


class TestConformal:
    @pytest.mark.parametrize(
        ("n", "alpha", "k"), [(19, 0.05, 19), (20, 0.05, 20), (39, 0.05, 38), (99, 0.01, 99), (99, 0.29, 71)]
    )
    def test_rank_is_exact_where_doubles_are_not(self, n: int, alpha: float, k: int) -> None:
        """0.29 * 100 is 28.999999999999996 in doubles, and 0.05 * 20 could have been 1.0000000000000002."""
        scores = np.arange(1, n + 1) / 1000
        found = conformal(np.random.default_rng(0).permutation(scores), alpha)
        assert (found.n, found.k) == (n, k)
        assert found.value == np.nextafter(scores[k - 1], 1)
        assert found.expected == pytest.approx((n + 1 - k) / (n + 1))
        assert found.expected <= alpha + 1e-12

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 60), st.integers(2, 40), st.integers(0, 10**6), st.integers(2, 9))
    def test_promise_holds_by_leaving_each_picture_out(self, n: int, one_in: int, seed: int, values: int) -> None:
        """Exchangeable scores: of n + 1, each in turn the new one, at most alpha (n + 1) may be flagged; with ties."""
        alpha = 1 / one_in
        if n < fewest(alpha):
            return
        scores = np.random.default_rng(seed).integers(0, values, n + 1) / 10
        flagged = sum(scores[i] >= conformal(np.delete(scores, i), alpha).value for i in range(n + 1))
        assert flagged <= math.floor((n + 1) / one_in + 1e-9)

    def test_ties_at_the_threshold_are_not_flagged(self) -> None:
        scores = [0.1] * 5 + [0.9] * 95
        value = conformal(scores, 0.05).value
        assert value > 0.9
        assert not (np.array(scores) >= value).any()

    def test_it_is_no_higher_than_it_must_be(self) -> None:
        scores = np.linspace(0.1, 0.9, 99)
        assert (scores >= conformal(scores, 0.05).value).sum() == 4

    def test_upper_bound_holds_as_often_as_it_says(self) -> None:
        """Uniform scores: the true rate of false alarms is 1 - threshold."""
        rng = np.random.default_rng(1)
        found = [conformal(rng.random(60), 0.1) for _ in range(2000)]
        rates = np.array([1 - one.value for one in found])
        assert rates.mean() == pytest.approx(found[0].expected, abs=0.003)
        assert (rates <= found[0].upper()).mean() == pytest.approx(0.95, abs=0.015)

    @pytest.mark.parametrize(("n", "alpha", "needed"), [(98, 0.01, 99), (0, 0.05, 19), (18, 0.05, 19), (1, 0.3, 3)])
    def test_too_few_pictures_say_how_many_are_needed(self, n: int, alpha: float, needed: int) -> None:
        assert fewest(alpha) == needed
        with pytest.raises(TooFewPictures, match=f"need {needed} distinct good pictures") as error:
            conformal(np.linspace(0, 0.5, n), alpha)
        assert f"give {needed - n} more" in error.value.hint
        if n:
            offered = float(error.value.hint.rsplit(" ", 1)[1])
            assert conformal(np.linspace(0, 0.5, n), offered).k == n

    def test_just_enough(self) -> None:
        assert conformal(np.linspace(0, 0.5, 99), 0.01).value == np.nextafter(0.5, 1)

    @pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, float("nan")])
    def test_a_share_outside_0_and_1_is_named(self, alpha: float) -> None:
        with pytest.raises(UsageError, match="between 0 and 1"):
            conformal([0.5] * 100, alpha)

    def test_scores_that_promise_nothing(self) -> None:
        with pytest.raises(DataError, match="not finite"):
            conformal([float("nan")] + [0.5] * 50, 0.05)
        with pytest.raises(DataError, match="highest score there is"):
            conformal([1.0] * 50, 0.05)


def test_binomial_interval_is_exact() -> None:
    from scipy.stats import binomtest

    for hits, of in ((0, 7), (3, 7), (7, 7), (46, 48)):
        expected = binomtest(hits, of).proportion_ci(0.95, "exact")
        assert binomial_interval(hits, of) == pytest.approx((expected.low, expected.high))
    assert binomial_interval(0, 0) == (0, 1)


class TestFile:
    def test_it_comes_back_as_it_went(self, tmp_path: Path) -> None:
        path = tmp_path / "threshold.json"
        one = stored(value=0.1 + 0.2, context=scored_with(Context(Bank(("b", "a")))))
        save_threshold(path, one)
        again = load_threshold(path)
        assert again == one
        assert again.path == str(path)
        assert "path" not in json.loads(path.read_text())
        assert str(path) in again.source

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"schema": "anomaly-ov.threshold/2"}, "has the schema 'anomaly-ov.threshold/2'"),
            ({"value": 1.5}, "value"),
            ({"k": 0}, "k in 1..n"),
            ({"n": "many"}, "'n'"),
            ({"extra": 1}, "extra"),
        ],
    )
    def test_what_is_wrong_in_a_file_is_named(self, tmp_path: Path, change: dict[str, Any], said: str) -> None:
        path = tmp_path / "t.json"
        save_threshold(path, stored())
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(UsageError) as error:
            load_threshold(path)
        assert said in str(error.value)

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": []}', "[" * 100_000])
    def test_other_files_are_no_thresholds(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "t.json"
        path.write_text(text)
        with pytest.raises(UsageError, match=r"t\.json"):
            load_threshold(path)

    def test_no_file_and_a_huge_one(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="neither a number nor a file"):
            load_threshold(tmp_path / "none.json")
        (tmp_path / "big.json").write_bytes(b" " * (2**20 + 1))
        with pytest.raises(UsageError, match="larger than"):
            load_threshold(tmp_path / "big.json")

    def test_a_missing_field_is_a_config_error(self, tmp_path: Path) -> None:
        path = tmp_path / "t.json"
        save_threshold(path, stored())
        values = json.loads(path.read_text())
        del values["model"]
        path.write_text(json.dumps(values))
        with pytest.raises(ConfigError, match="model"):
            load_threshold(path)


class TestUse:
    def test_numbers_files_and_nothing(self, tmp_path: Path) -> None:
        save_threshold(tmp_path / "t.json", stored())
        assert wanted_threshold(None) is None
        assert wanted_threshold("0.25") == wanted_threshold(0.25) == 0.25
        for path in (tmp_path / "t.json", str(tmp_path / "t.json")):
            assert wanted_threshold(path) == stored()
        for bad in ("1.5", -0.1, "nan"):
            with pytest.raises(UsageError, match=r"0\.\.1"):
                wanted_threshold(bad)

    @pytest.mark.parametrize("change", [{"revision": "rev2"}, {"dtype": "bfloat16"}])
    def test_another_model_or_precision_is_named(self, change: dict[str, str]) -> None:
        with pytest.raises(ThresholdMismatch, match=next(iter(change.values()))):
            require_model(stored(), replace(INFO, **change), "abc")

    def test_another_way_of_scoring_is_named_and_another_device_is_not(self) -> None:
        with pytest.raises(ThresholdMismatch, match="fused otherwise"):
            require_model(stored(), INFO, "abd")
        require_model(stored(), replace(INFO, device="cuda:0", name="renamed"), "abc")
        require_model(0.5, replace(INFO, revision="x"), "abd")

    def test_contexts_must_be_the_same_whatever_their_order(self) -> None:
        a, b = Context(Bank(("1", "2"))), Context(Bank(("1", "3")))
        with_a = stored(context=scored_with(a))
        require_context(with_a, Context(Bank(("2", "1")), source="elsewhere"))
        require_context(stored(), None)
        require_context(0.5, b)
        for one, context in ((with_a, b), (with_a, None), (stored(), a), (with_a, replace(a, config=2))):
            with pytest.raises(ThresholdMismatch, match=r"no context|the context of good/"):
                require_context(one, context)

    def test_digests_of_contexts_stay_those_of_earlier_files(self) -> None:
        found = scored_with(Context(Bank(("y", "x")), config="weights 1"))
        assert found is not None
        assert (found.digest, found.references) == ("a891f80b6c9d6689", 2)

    def test_where_it_does_not_hold_the_model_s_own_does(self) -> None:
        context = Context(Bank(("1",)))
        own = Threshold(0.5, "the model's")
        assert threshold_of("the model's", None) == own
        assert threshold_of("the model's", 0.3) == Threshold(0.3, "set by the caller")
        assert threshold_of("the model's", stored()).value == 0.75
        assert "conformal on 99 good pictures: at most 0.05" in threshold_of("the model's", stored()).source
        assert threshold_of("the model's", stored(context=scored_with(context))) == own
        assert threshold_of("the model's", stored(), context) == own

    def test_an_inspector_uses_it_and_says_so(self, tmp_path: Path, pictures: Path) -> None:
        model = small_model()
        plain = Inspector(model, device="cpu")
        made = ScoredBy("small", plain.info.revision, "float32", plain.scoring)
        save_threshold(tmp_path / "t.json", stored(model=made))
        inspector = Inspector(model, device="cpu", threshold=tmp_path / "t.json")
        finding = inspector.inspect(pictures / "p0.png")
        assert finding.threshold is not None
        assert finding.threshold.value == 0.75
        assert finding.threshold.source.endswith(f"({tmp_path / 't.json'})")
        assert finding.anomalous == ((finding.score or 0) >= 0.75)

    def test_an_inspector_refuses_one_of_other_scores(self, tmp_path: Path, pictures: Path) -> None:
        model = small_model()
        plain = Inspector(model, device="cpu")
        made = ScoredBy("small", plain.info.revision, "float32", plain.scoring)
        with pytest.raises(ThresholdMismatch):
            Inspector(small_model(top=0.2), device="cpu", threshold=stored(model=made))
        with pytest.raises(ThresholdMismatch):
            Inspector(model, device="cpu", dtype="bfloat16", threshold=stored(model=made))
        with_context = stored(model=made, context=scored_with(Context(Bank(("1",)))))
        inspector = Inspector(model, device="cpu", threshold=with_context)
        with pytest.raises(ThresholdMismatch, match="this run uses no context"):
            inspector.inspect(pictures / "p0.png")
        with pytest.raises(ThresholdMismatch):
            inspector.stream([pictures / "p0.png"])
        with pytest.raises(ThresholdMismatch):
            Inspector(model, device="cpu", threshold=stored(model=made)).stream(
                [pictures / "p0.png"], context=plain.context(pictures)
            )

    def test_errors_are_of_the_tree(self) -> None:
        assert issubclass(ThresholdMismatch, AnomalyOVError)
        assert (ThresholdMismatch.exit_code, TooFewPictures.exit_code) == (4, 2)
