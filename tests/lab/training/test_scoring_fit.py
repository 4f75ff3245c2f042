"""Fitting how evidence becomes a score: on trials whose answer is known, and end to end on a small model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_ov.cli.main import run
from anomaly_ov.context.build import Encoded, suspicion_of
from anomaly_ov.errors import DataError
from anomaly_ov.images.prepared import prepare_one
from anomaly_ov.images.read import DEFAULT_LIMITS
from anomaly_ov.inspector import Inspector, load
from anomaly_ov.look import look
from anomaly_ov.models.config import RELEASED_SCORING, ModeConfig, ScoringConfig
from anomaly_ov.models.engines.torch import TorchEngine
from anomaly_ov.models.folder import read_config
from anomaly_ov.models.hub import CONFIG_FILE
from anomaly_ov.records import Mode
from anomaly_ov_lab.training import scoring_fit
from anomaly_ov_lab.training.runs import labelled_sets
from anomaly_ov_lab.training.scoring_fit import (
    FALSE_ALARMS,
    MODES,
    PARTS,
    Candidates,
    ScoringPlan,
    Trial,
    fit_scoring,
    measure,
    trials_of,
    with_scoring,
)
from model_fixtures import save_small_model, small_model
from training_fixtures import labelled_folder

CELLS, TOP = 40, 0.05
CONFIG = ScoringConfig(top=TOP)


def trial(
    name: str = "one",
    mode: Mode = "alone",
    *,
    told_by: str = "own",
    by: float = 1.0,
    level: float = 0.0,
    count: int = 0,
    images: int = 40,
    seed: int = 0,
) -> Trial:
    """Normal images are noise around ``level``; of anomalous ones two cells stand out by ``by`` in one kind of
    evidence. The expert's noise is that of logits.
    """
    rng = np.random.default_rng(seed)

    def image(label: int) -> np.ndarray:
        parts_KC = rng.normal(0, 0.05, (len(PARTS), CELLS)).astype(np.float32)
        parts_KC[0] = 0 if mode == "alone" else parts_KC[0] + level
        parts_KC[1] += level
        parts_KC[2] = 0
        parts_KC[3] *= 20
        parts_KC[4:] = 0  # no image is symmetric
        parts_KC[PARTS.index(told_by), :2] += by * label
        return parts_KC

    labels = np.arange(images) % 2
    parts = tuple(image(label) for label in labels.tolist())
    return Trial(name, name, mode, count, labels, parts, tuple(image(0) for _ in range(count)))


def suspicious(config: ScoringConfig, mode: Mode) -> ModeConfig:
    found: ModeConfig = getattr(config, mode)
    return found


def test_an_expert_that_tells_gets_weight_and_one_that_does_not_gets_none() -> None:
    useful = [trial(name, told_by="expert", by=30, seed=k) for k, name in enumerate("ab")]
    useless = [trial(name, told_by="own", seed=k) for k, name in enumerate("ab")]
    assert Candidates(useful, CONFIG).fitted().alone.expert > 0
    assert Candidates(useless, CONFIG).fitted().alone.expert == 0
    figures = measure(useful, Candidates(useful, CONFIG).fitted())["alone"]
    assert figures["auroc"] > 0.9


def test_the_image_itself_gets_weight_beside_references_only_where_it_tells() -> None:
    own = [trial(name, "references", told_by="own", count=4, seed=k) for k, name in enumerate("ab")]
    compared = [trial(name, "references", told_by="references", count=4, seed=k) for k, name in enumerate("ab")]
    assert Candidates(own, CONFIG).fitted().references.own > 0
    assert Candidates(compared, CONFIG).fitted().references.own == 0


def test_what_is_unique_in_the_references_too_is_taken_off() -> None:
    """Normal images have a unique part, and so has its counterpart; only the difference tells."""
    rng = np.random.default_rng(0)

    def image(label: int) -> np.ndarray:
        parts_KC = rng.normal(0, 0.02, (len(PARTS), CELLS)).astype(np.float32)
        unique = rng.normal(0, 2.0)
        parts_KC[1, :2] += unique + 0.5 * label
        parts_KC[2, :2] += unique
        parts_KC[4:] = 0
        return parts_KC

    labels = np.arange(60) % 2
    own = [
        replace(trial(name, "references", count=4), labels=labels, parts_IKC=tuple(image(k) for k in labels.tolist()))
        for name in "ab"
    ]
    fitted = Candidates(own, CONFIG).fitted().references
    assert fitted.own > 0
    assert fitted.matched == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_threshold_reaches_the_wanted_rate_of_false_alarms(mode: Mode) -> None:
    count = {"alone": 0, "few": 1, "references": 8, "folder": 12}[mode]
    several = [
        trial(name, mode, by=0.3, level=0.2 * k, count=count, images=400, seed=k) for k, name in enumerate("abc")
    ]
    config = Candidates(several, CONFIG).fitted()
    alarms = []
    for one in several:
        beyond = scoring_fit._beyond(one, suspicious(config, mode), config)
        alarms.append((beyond[one.labels == 0] >= suspicious(config, mode).step).mean())
    wanted = FALSE_ALARMS[mode]
    assert np.mean(alarms) == pytest.approx(wanted, abs=1 / 600 + 1e-9)
    assert np.mean(alarms) <= wanted + 1e-9
    assert f"{wanted:.0%} false alarms on 3 training sets" in suspicious(config, mode).source


def test_every_set_counts_the_same_however_many_images_it_has() -> None:
    """A large set of quiet images and a small one of loud ones: the rate holds for their mean, not for their sum."""
    quiet = trial("quiet", images=1000, level=0.0, seed=0)
    loud = trial("loud", images=100, level=0.5, seed=1)
    config = Candidates([quiet, loud], CONFIG).fitted()
    rates = [
        (scoring_fit._beyond(one, config.alone, config)[one.labels == 0] >= config.alone.step).mean()
        for one in (quiet, loud)
    ]
    assert rates[0] == 0
    assert np.mean(rates) == pytest.approx(FALSE_ALARMS["alone"], abs=0.011)


def test_what_is_usual_is_that_of_normal_images() -> None:
    several = [trial(name, level=level, seed=k) for k, (name, level) in enumerate({"a": -0.2, "b": 0.4}.items())]
    fitted = Candidates(several, CONFIG).fitted().alone
    normal = [scoring_fit._suspicions(one.parts_IKC, fitted, CONFIG)[one.labels == 0] for one in several]
    assert fitted.usual == pytest.approx(np.mean([values.mean() for values in normal]))
    assert fitted.usual_spread == pytest.approx(np.std([values.mean() for values in normal]))
    spread = float(np.median([values.std() for values in normal]))
    assert fitted.spread == pytest.approx(max(spread, scoring_fit.LEAST))


def test_a_held_out_set_changes_nothing_of_what_is_fitted_without_it() -> None:
    """Only in the set ``odd`` does the expert tell; without that set its weight is none."""
    usual = [trial(name, seed=k) for k, name in enumerate("ab")]
    odd = trial("odd", told_by="expert", by=-60, level=3, seed=9)
    other = trial("odd", told_by="expert", by=60, level=-3, seed=8)
    without = [Candidates([*usual, one], CONFIG).fitted(lambda name: name != "odd") for one in (odd, other)]
    assert without[0] == without[1] == Candidates(usual, CONFIG).fitted()
    assert Candidates([*usual, other], CONFIG).fitted() != without[0]


def test_a_mode_without_trials_stays_as_it_was_and_nothing_at_all_is_an_error() -> None:
    config = Candidates([trial()], CONFIG).fitted()
    assert config.folder == CONFIG.folder
    assert config.alone != CONFIG.alone
    with pytest.raises(DataError, match="no trial"):
        Candidates([trial()], CONFIG).fitted(lambda name: False)


def test_a_fit_that_starts_from_released_scoring_judges_by_the_cells() -> None:
    """The trials hold no image score of the expert, so its weight in what is fitted is none."""
    fitted = Candidates([trial("a"), trial("b", seed=1)], replace(RELEASED_SCORING, top=TOP)).fitted().alone
    assert (fitted.local, fitted.head) == (1.0, 0.0)
    assert fitted.own == 1.0


# --- end to end -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets with enough good images for contexts of 4 references, and one with too few for any."""
    root = tmp_path_factory.mktemp("sets")
    for seed, (name, count) in enumerate({"one": 13, "two": 12, "small": 5}.items()):
        labelled_folder(root / name, count, seed)
    return root


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(small_model(), "cpu", "float32")


WEIGHTS = ModeConfig(own=0.6, matched=0.5, expert=0.1)
WEIGHED = ScoringConfig(alone=WEIGHTS, few=WEIGHTS, references=WEIGHTS, folder=WEIGHTS)


def test_trials_hold_what_the_very_functions_that_inspect_find(data: Path) -> None:
    """Of every image, in every mode, the suspicion from blended parts is that of ``scoring.score``."""
    (one,) = labelled_sets([data / "one"])
    config = WEIGHED
    inspector = Inspector(small_model(**config.__dict__), device="cpu")
    goods = [sample for sample in one if sample.label == 0]
    prepared = [prepare_one(str(sample.image), inspector.views_config, DEFAULT_LIMITS) for sample in one]
    looked = [look(inspector.engine, [image], config)[0] for image in prepared]
    encoded = [Encoded(o.tokens, o.output.map_Nhw, o.output.score_raw) for o in looked]
    trials = list(trials_of(one, inspector.engine, None, ScoringPlan()))
    assert [(t.mode, t.count) for t in trials] == [
        ("alone", 0),
        ("folder", 26),
        ("few", 1),
        ("few", 1),
        ("few", 2),
        ("references", 4),
        ("references", 4),
    ]
    by_label = sorted(range(len(one)), key=lambda k: one.samples[k].label or 0)
    for k, own in enumerate(trials):
        context = None
        rest = by_label
        if own.mode == "folder":
            context = inspector.folder_context([str(sample.image) for sample in one])
        elif own.count:
            seed = {2: 0, 3: 1, 4: 0, 5: 0, 6: 1}[k]
            drawn = np.random.RandomState(1000 * seed + own.count).permutation(len(goods))[: own.count]
            references = [goods[i] for i in drawn]
            context = inspector.context([str(sample.image) for sample in references])
            rest = [i for i in by_label if one.samples[i] not in references]
            if own.count > 1:
                theirs = np.sort(context.suspicion_R)
                ours = np.sort(scoring_fit._suspicions(own.own_parts_IKC, WEIGHTS, config))
                np.testing.assert_allclose(ours, theirs, atol=1e-5)
        expected = []
        for i in rest:
            compared = None if context is None else context.compare(encoded[i].tokens)
            found = None if compared is None else compared.references
            expected.append(suspicion_of(encoded[i], found, WEIGHTS, config))
        np.testing.assert_allclose(scoring_fit._suspicions(own.parts_IKC, WEIGHTS, config), expected, atol=1e-5)
        assert own.labels.tolist() == [one.samples[i].label for i in rest]


def test_the_verdicts_counted_are_those_of_an_inspection(data: Path, tmp_path: Path) -> None:
    """Fitted on two sets and inspected with the written model: the same false alarms and misses in every mode."""
    folder = save_small_model(tmp_path / "small")
    sets = labelled_sets([data / "one", data / "two"])
    config = fit_scoring(sets, load(str(folder), "cpu").engine, {}, tmp_path / "fit", ScoringPlan())
    inspector = load(str(with_scoring(folder, config, tmp_path / "fit/model")), "cpu")
    (own,) = [t for t in trials_of(sets[0], inspector.engine, None, ScoringPlan()) if t.mode == "folder"]
    paths = [str(sample.image) for sample in sorted(sets[0], key=lambda sample: sample.label or 0)]
    context = inspector.folder_context(paths)
    findings = list(inspector.stream(paths, context=context))
    beyond = scoring_fit._beyond(own, config.folder, config) - config.folder.step
    np.testing.assert_allclose([one.score for one in findings], 1 / (1 + np.exp(-config.slope * beyond)), atol=2e-4)
    assert [one.anomalous for one in findings] == (beyond >= 0).tolist()


def test_a_folders_own_figures_are_of_good_and_bad_images(
    data: Path, engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more references than are measured, those that the builder measures: the first by digest."""
    from anomaly_ov.context import build

    monkeypatch.setattr(build, "MEASURED", 6)
    monkeypatch.setattr(scoring_fit, "MEASURED", 6)
    (one,) = labelled_sets([data / "one"])
    (own,) = [t for t in trials_of(one, engine, None, ScoringPlan()) if t.mode == "folder"]
    context = Inspector(engine).folder_context([str(sample.image) for sample in one])
    theirs = context.suspicion_R[~np.isnan(context.suspicion_R)]
    ours = scoring_fit._suspicions(own.own_parts_IKC, engine.config.scoring.folder, engine.config.scoring)
    np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-5)


def test_unreadable_images_and_copies_of_references_are_left_out(engine: TorchEngine, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "set", 12)
    goods = sorted((folder / "test/good").iterdir())
    goods[0].write_bytes(b"broken")
    for path in goods[2:]:
        path.write_bytes(goods[1].read_bytes())  # every other good image is a copy
    (one,) = labelled_sets([folder])
    trials = {(t.mode, t.count): t for t in trials_of(one, engine, None, ScoringPlan())}
    assert len(trials["alone", 0].labels) == 23
    assert trials["few", 1].labels.tolist() == [1] * 12


def test_another_expert_looks_where_one_is_given(data: Path, engine: TorchEngine) -> None:
    (one,) = labelled_sets([data / "small"])
    own, other = (next(iter(trials_of(one, engine, given, ScoringPlan()))) for given in (None, _other()))
    for ours, theirs in zip(own.parts_IKC, other.parts_IKC, strict=True):
        assert np.array_equal(ours[:3], theirs[:3])
        assert not np.allclose(ours[3], theirs[3])


def _other() -> TorchEngine:
    """The same encoder with another expert."""
    model, another = small_model(), small_model(seed=1)
    model.expert.load_state_dict(another.expert.state_dict())
    return TorchEngine(model, "cpu", "float32")


def written(out: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((out / "scoring.json").read_text())
    return {name: value for name, value in table.items() if name != "provenance"}


def test_a_second_fit_finds_the_same_and_says_what_to_expect(data: Path, engine: TorchEngine, tmp_path: Path) -> None:
    sets = labelled_sets([data / name for name in ("one", "two", "small")])
    plan = ScoringPlan(images=12)
    told: list[tuple[str, int, int]] = []
    first = fit_scoring(
        sets, engine, {}, tmp_path / "a", plan, lambda name: lambda done, total: told.append((name, done, total))
    )
    assert fit_scoring(sets, engine, {}, tmp_path / "b", plan) == first
    table = written(tmp_path / "a")
    assert table == written(tmp_path / "b")
    assert told[-1] == ("small", 10, 10)
    assert table["held_out"].keys() == {"one", "two", "small"}
    assert table["all"].keys() == {"alone", "folder", "1 references", "2 references", "4 references"}
    assert table["held_out"]["small"].keys() == {"alone", "folder"}  # too few good images for references
    assert table["held_out_mean"]["folder"]["auroc"] == pytest.approx(
        np.mean([table["held_out"][name]["folder"]["auroc"] for name in ("one", "two", "small")])
    )
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a/scoring.json"]


def test_a_single_set_is_fitted_and_nothing_held_out(data: Path, engine: TorchEngine, tmp_path: Path) -> None:
    fit_scoring(labelled_sets([data / "one"]), engine, {}, tmp_path, ScoringPlan())
    assert written(tmp_path)["held_out"] == {}


def test_half_a_copy_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the configuration is written, the folder is not taken for a model that judges otherwise."""
    folder = save_small_model(tmp_path / "small")
    config = replace(read_config(folder).scoring, top=0.2)
    out = with_scoring(folder, config, tmp_path / "out")
    assert read_config(out) == replace(read_config(folder), scoring=config)
    monkeypatch.setattr(scoring_fit, "write_atomic", lambda path, data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        with_scoring(folder, config, out)
    assert not (out / CONFIG_FILE).exists()
    assert read_config(folder).scoring.top != 0.2


def test_the_verb_writes_a_model_that_judges_as_fitted(data: Path, tmp_path: Path) -> None:
    folder = save_small_model(tmp_path / "small")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: small\nsets: [one, two]\nviews: {base_size: 32, grids: [[1, 1]], cap: 64}\n")
    command = ["train", "scoring", "--recipe", str(recipe), "--data", str(data), "--model", str(folder)]
    assert run([*command, "--out", str(tmp_path / "out"), "--images", "12"]) == 0
    table = written(tmp_path / "out")
    model = tmp_path / "out/model"
    assert json.loads((model / CONFIG_FILE).read_text())["scoring"] == table["scoring"]
    finding = load(str(model), "cpu").inspect(str(next((data / "one/test/spot").iterdir())))
    assert finding.threshold is not None
    assert finding.threshold.value == 0.5
    assert "2 training sets" in finding.threshold.source
    assert run([*command, "--out", str(tmp_path / "other"), "--folds", str(tmp_path)]) == 4  # no folds there
